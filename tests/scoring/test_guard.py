import collections
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbx_aml.scoring import guard, guard_loader
from dbx_aml.scoring.guard import MISSING, QUARANTINED, REASON, UNSCORABLE, Guard, Limits
from dbx_aml.scoring.guard_several import CHALLENGER_FIELD
from tests.support.models import save_model

# The first integer that no float is equal to.
BIG = 2**53 + 1
SwappedRow = collections.namedtuple("SwappedRow", ["b", "a"])
DOUBLE = {"name": None, "field": "p0", "type": "double", "is_list": False, "length": None}


class Model:
    """Predicts with a function, and remembers the number of rows of each call."""

    def __init__(self, function):
        self.function = function
        self.batch_sizes = []

    def predict(self, rows):
        self.batch_sizes.append(len(rows))
        return self.function(rows)


def choosy(rows):
    if rows["x"].isna().any() or (rows["x"] == -1).any():
        raise ValueError("x is invalid")
    return rows["x"].to_numpy() * 2


def output(kind, **changes):
    return {**DOUBLE, "type": kind, **changes}


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_without_a_name_of_the_signature_is_quarantined_and_not_null(count):
    outputs = [output("double", name=f"y{i}", field=f"p{i}") for i in range(count)]

    def predict(rows):
        full = dict.fromkeys([o["name"] for o in outputs], 1.0)
        return [full if x > 0 else {"z": 0.0} if x == 0 else {} for x in rows["x"]]

    frame = pd.DataFrame({"x": [1.0, -1.0, 2.0]})
    result = Guard(Model(predict), outputs, []).predict(frame)
    assert list(result[QUARANTINED]) == [False, True, False]
    assert list(result["p0"]) == [1.0, 0.0, 1.0]


def test_an_optional_output_that_a_row_lacks_is_null_whatever_the_other_rows_have():
    outputs = [output("double", name="a"), output("long", name="b", field="p1", required=False)]
    model = Model(lambda rows: [{"a": x, "b": 7} if x > 1 else {"a": x} for x in rows["x"]])
    for values in ([1.0], [1.0, 2.0]):
        result = Guard(model, outputs, []).predict(pd.DataFrame({"x": values}))
        assert not result[QUARANTINED].any()
        assert list(result["p1_null"]) == [x < 2 for x in values]


def test_a_batch_without_failing_rows_is_one_call_and_no_copy():
    frame = pd.DataFrame({"x": np.arange(1000.0)})
    seen = []
    model = Model(lambda rows: seen.append(rows["x"].to_numpy()) or rows["x"] * 2)
    result = Guard(model, [DOUBLE], []).predict(frame)
    assert model.batch_sizes == [1000]
    assert np.shares_memory(seen[0], frame["x"].to_numpy())
    assert not result[QUARANTINED].any()
    assert (result["p0"] == frame["x"] * 2).all()


@pytest.mark.parametrize("positions", [[0], [9_999], [5_000], [3, 4, 5], [0, 4_999, 9_999]])
@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_exactly_the_failing_rows_are_quarantined_at_every_position(positions, value):
    frame = pd.DataFrame({"x": np.arange(10_000.0)})
    frame.loc[positions, "x"] = value
    model = Model(choosy)
    result = Guard(model, [DOUBLE], []).predict(frame)
    assert list(np.flatnonzero(result[QUARANTINED])) == positions
    assert set(result.loc[positions, REASON]) == {"ValueError: x is invalid"}
    good = ~result[QUARANTINED]
    assert (result.loc[good, "p0"] == frame.loc[good, "x"] * 2).all()
    assert (result.loc[good, REASON] == "").all()
    # Looking for them costs a little more than one more pass over the batch.
    assert sum(model.batch_sizes) <= (2.1 if np.isnan(value) else 5) * len(frame)


def test_rows_with_missing_values_are_split_off_and_cost_little_more_than_a_call_each():
    frame = pd.DataFrame({"x": np.where(np.arange(10_000) % 40 == 0, np.nan, 1.0)})
    model = Model(choosy)
    assert Guard(model, [DOUBLE], []).predict(frame)[QUARANTINED].sum() == 250
    assert len(model.batch_sizes) < 1.1 * 250


class ErrorWithoutText(Exception):
    def __str__(self):
        raise KeyError("text")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ErrorWithoutText(), "ErrorWithoutText: an error without a text"),
        (ValueError("x \ud800"), "ValueError: x ?"),
    ],
)
def test_an_error_whose_text_cannot_be_shown_is_the_reason_of_its_row(error, reason):
    def raise_error(rows):
        raise error

    result = Guard(Model(raise_error), [DOUBLE], []).predict(pd.DataFrame({"x": [1.0]}))
    assert list(result[REASON]) == [reason]
    pa.Table.from_pandas(result)


def test_after_a_row_that_does_not_fail_the_others_are_one_call_again():
    def refuse_small(rows):
        if (rows["y"] < 20).any():
            raise ValueError("y is small")
        return rows["y"]

    frame = pd.DataFrame({"x": np.nan, "y": np.arange(1024.0)})
    model = Model(refuse_small)
    result = Guard(model, [DOUBLE], []).predict(frame)
    assert list(np.flatnonzero(result[QUARANTINED])) == list(range(20))
    # The batch, 10 halves, 19 rows alone, then groups of 1, 2, 4 to 512 rows.
    assert len(model.batch_sizes) == 40


@pytest.mark.parametrize(
    ("positions", "calls"),
    [
        # The batch, 13 or 14 halves, and the groups after the row, each twice as large.
        pytest.param([6_789], 16, id="one row"),
        # For each row a group of 100 and 7 halves of it: two halves a row less than for each alone.
        pytest.param(range(50, 10_000, 100), 960, id="one in 100"),
        pytest.param(range(4_000, 4_300), 340, id="300 neighbours"),
        pytest.param(range(10_000), 10_020, id="all rows"),
    ],
)
def test_failing_rows_are_found_with_few_calls(positions, calls):
    frame = pd.DataFrame({"x": np.ones(10_000)})
    frame.loc[list(positions), "x"] = -1.0
    model = Model(choosy)
    result = Guard(model, [DOUBLE], []).predict(frame)
    assert list(np.flatnonzero(result[QUARANTINED])) == list(positions)
    assert len(model.batch_sizes) <= calls


@given(st.lists(st.booleans(), max_size=60), st.lists(st.sampled_from("ab"), max_size=60))
def test_only_rows_that_fail_alone_are_quarantined(failing, letters):
    """The model also fails where `a` and `b` come together, which no row alone does."""
    size = min(len(failing), len(letters))
    failing, letters = failing[:size], letters[:size]
    frame = pd.DataFrame({"y": letters, "x": np.where(failing, -1.0, 1.0)})

    def refuse_two_letters(rows):
        if rows["y"].nunique() > 1:
            raise ValueError("two letters")
        return choosy(rows)

    result = Guard(Model(refuse_two_letters), [DOUBLE], []).predict(frame)
    assert list(result[QUARANTINED]) == failing
    assert list(result["p0"][~result[QUARANTINED]]) == [2.0] * (size - sum(failing))
    assert set(result[REASON]) <= {"", "ValueError: x is invalid"}


def test_a_model_that_fails_for_a_row_once_only_scores_it():
    calls = []

    def fail_first(rows):
        calls.append(len(rows))
        if len(calls) < 4:
            raise ConnectionError("no answer")
        return rows["x"]

    result = Guard(Model(fail_first), [DOUBLE], []).predict(pd.DataFrame({"x": np.arange(100.0)}))
    assert not result[QUARANTINED].any()
    assert list(result["p0"]) == list(range(100))


def missing_n(values, flags):
    return pd.DataFrame({"n": np.array(values, np.int64), f"{MISSING}n": flags})


def test_a_missing_optional_integer_is_nan_and_the_flag_column_is_gone():
    frames = []
    model = Model(lambda rows: frames.append(rows.copy()) or rows["n"].fillna(-1.0))
    result = Guard(model, [DOUBLE], []).predict(missing_n([5, 0], [False, True]))
    assert list(result["p0"]) == [5.0, -1.0]
    pd.testing.assert_frame_equal(frames[0], pd.DataFrame({"n": [5.0, np.nan]}))


def test_a_large_integer_stays_exact_beside_a_missing_one():
    big = 2**53 + 1
    model = Model(lambda rows: rows["n"].fillna(-1))
    result = Guard(model, [output("long")], []).predict(
        missing_n([big, 0, 7, 0], [False, True, False, True])
    )
    assert list(result["p0"]) == [big, -1, 7, -1]
    assert model.batch_sizes == [2, 2]


def test_integers_stay_integers_where_none_is_missing():
    dtypes = []
    model = Model(lambda rows: dtypes.append(rows["n"].dtype) or rows["n"] * 1.0)
    Guard(model, [DOUBLE], []).predict(missing_n([5, 0], [False, False]))
    assert dtypes == [np.int64]


def test_rows_with_a_missing_integer_that_the_model_refuses_are_split_off_first():
    def refuse_missing(rows):
        if rows["n"].isna().any():
            raise ValueError("n is missing")
        return rows["n"] * 1.0

    model = Model(refuse_missing)
    flags = np.arange(1000) % 500 == 0
    result = Guard(model, [DOUBLE], []).predict(missing_n(np.arange(1000), flags))
    assert list(np.flatnonzero(result[QUARANTINED])) == [0, 500]
    assert model.batch_sizes == [1000, 998, 2, 1, 1]


def test_mlflow_passes_a_missing_integer_of_an_optional_column(tmp_path):
    import mlflow.pyfunc
    from mlflow.types import ColSpec, Schema

    inputs = Schema([ColSpec("double", "x"), ColSpec("long", "n", required=False)])
    example = pd.DataFrame({"x": [1.0], "n": [5]})
    folder = save_model(
        tmp_path, lambda rows: rows["x"] + rows["n"].fillna(0), example, inputs=inputs
    )
    model = mlflow.pyfunc.load_model(folder)
    frame = pd.DataFrame({"x": [1.0, 2.0], **missing_n([5, 0], [False, True])})
    assert list(Guard(model, [DOUBLE], []).predict(frame)["p0"]) == [6.0, 2.0]
    assert model.metadata.get_input_schema() == inputs


def test_a_row_that_the_table_made_unscorable_is_quarantined_without_the_model():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], UNSCORABLE: [0, 2, 0]})
    model = Model(choosy)
    result = Guard(model, [DOUBLE], ["first", "second"]).predict(frame)
    assert list(result[QUARANTINED]) == [False, True, False]
    assert list(result[REASON]) == ["", "second", ""]
    assert list(result["p0"][[0, 2]]) == [2.0, 6.0]
    assert model.batch_sizes == [2]


def test_all_rows_are_quarantined_if_the_model_fails_on_each():
    result = Guard(Model(choosy), [DOUBLE], []).predict(pd.DataFrame({"x": [-1.0] * 100}))
    assert result[QUARANTINED].all()


def test_a_model_that_drops_rows_never_shifts_predictions_to_other_rows():
    model = Model(lambda rows: rows["x"].dropna() * 2)
    result = Guard(model, [DOUBLE], []).predict(pd.DataFrame({"x": [1.0, np.nan, 3.0]}))
    assert list(result[QUARANTINED]) == [False, True, False]
    assert list(result["p0"][[0, 2]]) == [2.0, 6.0]
    assert "must return one row for each row: got 0 for 1" in result[REASON][1]


@pytest.mark.parametrize("wrap", [lambda values: values, lambda values: values.to_frame("p")])
def test_an_answer_in_another_order_is_put_in_the_order_of_the_rows(wrap):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = Model(lambda rows: wrap(rows["x"].sort_values(ascending=False) * 10))
    assert list(Guard(model, [DOUBLE], []).predict(frame)["p0"]) == [10.0, 20.0, 30.0]


@pytest.mark.parametrize("index", [[5, 6, 7], [1, 1, 2], ["a", "b", "c"]])
def test_an_answer_whose_index_is_not_that_of_the_rows_is_refused(index):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = Model(lambda rows: pd.Series(rows["x"].to_numpy(), index=index[: len(rows)]))
    result = Guard(model, [DOUBLE], []).predict(frame)
    assert result[QUARANTINED][2]
    assert "the index of a prediction must be that of the rows, 0 to n - 1" in result[REASON][2]


def test_each_call_gets_rows_numbered_from_zero():
    def predict(rows):
        assert list(rows.index) == list(range(len(rows)))
        return choosy(rows)

    frame = pd.DataFrame({"x": [0.0, 1.0, -1.0, 3.0, 4.0], UNSCORABLE: [1, 0, 0, 0, 0]})
    result = Guard(Model(predict), [DOUBLE], ["no"]).predict(frame)
    assert list(result[REASON]) == ["no", "", "ValueError: x is invalid", "", ""]
    assert list(result["p0"][[1, 3, 4]]) == [2.0, 6.0, 8.0]


def test_a_failed_call_leaves_the_rows_as_they_were():
    def predict(rows):
        rows["x"] *= 2
        for who in rows["who"]:
            who["a"] *= 2
        if (rows["x"] < 0).any():
            raise ValueError("x is negative")
        return rows["x"] + pd.Series([who["a"] for who in rows["who"]])

    frame = pd.DataFrame({"x": [0.0, 1.0, -1.0, 3.0]})
    frame["who"] = [{"a": value * 100} for value in frame["x"]]
    result = Guard(Model(predict), [DOUBLE], []).predict(frame)
    assert list(result[QUARANTINED]) == [False, False, True, False]
    assert list(result["p0"][[0, 1, 3]]) == [0.0, 202.0, 606.0]


@pytest.mark.parametrize("error", [SystemExit(3), BaseException("panic")])
def test_an_error_that_is_no_exception_is_the_reason_of_its_row(error):
    def predict(rows):
        if (rows["x"] < 0).any():
            raise error
        return rows["x"]

    result = Guard(Model(predict), [DOUBLE], []).predict(pd.DataFrame({"x": [1.0, -1.0, 3.0]}))
    assert list(result[REASON]) == ["", f"{type(error).__name__}: {error}", ""]


def test_a_name_that_is_there_twice_is_the_reason_of_its_rows():
    def predict(rows):
        columns = ["a", "a"] if (rows["x"] < 0).any() else ["a", "b"]
        return pd.DataFrame(np.stack([rows["x"], rows["x"]], axis=1), columns=columns)

    outputs = [output("double", name="a"), output("double", name="b", field="p1")]
    result = Guard(Model(predict), outputs, []).predict(pd.DataFrame({"x": [1.0, -1.0, 3.0]}))
    assert list(result[QUARANTINED]) == [False, True, False]
    assert "the model must return each column once: got ['a'] twice" in result[REASON][1]


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: {"logits": [[-7.0, -7.0]] * n, "probs": [[0.5, 0.5]] * n},
        lambda n: [{"logits": -7.0, "probs": [0.5, 0.5]}] * n,
        lambda n: pd.DataFrame({"logits": [[-7.0, -7.0]] * n, "probs": [[0.5, 0.5]] * n}),
        lambda n: pd.DataFrame([[0.5, 0.5]] * n),
    ],
)
def test_a_list_is_taken_by_the_name_of_the_signature(answer):
    probabilities = output("double", name="probs", length=2)
    model = Model(lambda rows: answer(len(rows)))
    result = Guard(model, [probabilities], []).predict(pd.DataFrame({"x": [1.0, 2.0]}))
    assert list(result["p0_0"]) == list(result["p0_1"]) == [0.5, 0.5]


@pytest.mark.parametrize(
    "swap",
    [
        lambda x: pd.DataFrame({"b": x + 1, "a": x}),
        lambda x: pa.table({"b": x + 1, "a": x}),
        lambda x: [{"b": value + 1, "a": value} for value in x],
        lambda x: [SwappedRow(value + 1, value) for value in x],
        lambda x: [pd.Series({"b": value + 1, "a": value}) for value in x],
    ],
)
def test_several_outputs_are_taken_by_name_and_a_missing_one_is_said(swap):
    outputs = [output("double", name="a"), output("double", name="b", field="p1")]
    frame = pd.DataFrame({"x": [1.0, 5.0]})
    result = Guard(Model(lambda rows: swap(rows["x"])), outputs, []).predict(frame)
    assert list(result["p0"]) == [1.0, 5.0]
    assert list(result["p1"]) == [2.0, 6.0]
    partial = Model(lambda rows: pd.DataFrame({"a": rows["x"]}))
    reason = Guard(partial, outputs, []).predict(frame)[REASON][0]
    assert "missing ['b']; got ['a']" in reason


@pytest.mark.parametrize(
    ("kind", "values", "cast_values", "nulls"),
    [
        ("string", ["a", None, float("nan")], ["a", "", ""], [False, True, True]),
        ("long", [BIG, None, -5], [BIG, 0, -5], [False, True, False]),
        ("long", (BIG, np.nan, -5), [BIG, 0, -5], [False, True, False]),
        ("long", [{"n": BIG}, {"n": None}, {"n": -5}], [BIG, 0, -5], [False, True, False]),
        ("long", pa.array([BIG, None, -5]), [BIG, 0, -5], [False, True, False]),
        ("long", {"n": pa.array([BIG, None, -5])}, [BIG, 0, -5], [False, True, False]),
        ("long", np.ma.masked_equal([BIG, 7, -5], 7), [BIG, 0, -5], [False, True, False]),
        ("long", np.array([1.0, np.nan, 3.0]), [1, 0, 3], [False, True, False]),
        ("integer", np.array([1, 2, 3], np.int8), [1, 2, 3], [False] * 3),
        ("boolean", [True, None, False], [True, False, False], [False, True, False]),
        ("boolean", pd.array([True, None, False]), [True, False, False], [False, True, False]),
        ("long", pd.array([BIG, None, 3], "Int64"), [BIG, 0, 3], [False, True, False]),
        ("long", pd.Series([BIG, None, 3], dtype="int64[pyarrow]"), [BIG, 0, 3], [0, 1, 0]),
    ],
)
def test_scalars_keep_their_values_and_their_nulls(kind, values, cast_values, nulls):
    model = Model(lambda rows: values)
    result = Guard(model, [output(kind)], []).predict(pd.DataFrame({"x": [0.0] * 3}))
    assert list(result[REASON]) == [""] * 3
    assert list(result["p0"]) == cast_values
    assert list(result["p0_null"]) == nulls


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("long", 1.5),
        ("long", float("inf")),
        ("long", 2.0**63),
        ("integer", 2**31),
        ("integer", "1"),
        ("float", 0.1),
        ("double", "1.5"),
        ("string", 1),
        ("boolean", 1),
    ],
)
def test_a_prediction_that_its_type_cannot_represent_is_quarantined_not_changed(kind, value):
    model = Model(lambda rows: [value] * len(rows))
    result = Guard(model, [output(kind)], []).predict(pd.DataFrame({"x": [0.0]}))
    assert result[QUARANTINED][0]
    assert f"prediction must be a {kind}" in result[REASON][0]


def test_a_text_that_utf_8_cannot_encode_is_the_reason_of_its_row():
    model = Model(lambda rows: rows["x"].map({1.0: "ä", 2.0: "\ud800"}).to_numpy())
    result = Guard(model, [output("string")], []).predict(pd.DataFrame({"x": [1.0, 2.0]}))
    assert list(result["p0"]) == ["ä", ""]
    assert list(result[QUARANTINED]) == [False, True]
    assert "surrogates not allowed" in result[REASON][1]
    pa.Table.from_pandas(result)


@pytest.mark.parametrize(
    "values",
    [
        np.ma.masked_equal([1.0, 7.0], 7.0),
        pd.array([1.0, None], "Float64"),
        pd.array([1, None], "Int64"),
        [1.0, None],
    ],
)
def test_a_missing_float_is_nan(values):
    result = Guard(Model(lambda rows: values), [DOUBLE], []).predict(pd.DataFrame({"x": [0, 0]}))
    np.testing.assert_array_equal(result["p0"].to_numpy(), [1.0, np.nan])


@pytest.mark.parametrize(
    "values", [np.ma.masked_equal([[1, 7]], 7), [np.ma.masked_equal([1, 7], 7)], [[BIG, np.nan]]]
)
def test_a_list_with_a_missing_integer_is_quarantined(values):
    numbers = output("long", is_list=True, length=2)
    result = Guard(Model(lambda rows: values), [numbers], []).predict(pd.DataFrame({"x": [0]}))
    assert list(result[REASON]) == ["ValueError: a list in a prediction must not hold nulls"]


def test_floats_keep_nan_and_infinity():
    values = np.array([np.nan, np.inf, -np.inf, -0.0])
    result = Guard(Model(lambda rows: values), [DOUBLE], []).predict(pd.DataFrame({"x": values}))
    np.testing.assert_array_equal(result["p0"].to_numpy(), values)
    assert not result[QUARANTINED].any()


def test_lists_of_a_fixed_length_become_fields_and_free_ones_stay_lists():
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]])
    frame = pd.DataFrame({"x": [0.0, 0.0]})
    fixed = output("double", is_list=True, length=2)
    result = Guard(Model(lambda rows: matrix[: len(rows)]), [fixed], []).predict(frame)
    assert result[["p0_0", "p0_1"]].to_numpy().tolist() == matrix.tolist()
    free = output("double", is_list=True)
    ragged = Model(lambda rows: [np.array([1.0]), np.array([2.0, 3.0])][: len(rows)])
    result = Guard(ragged, [free], []).predict(frame)
    assert [list(one) for one in result["p0"]] == [[1.0], [2.0, 3.0]]


def test_a_long_reason_is_cut_and_stays_on_one_line():
    model = Model(lambda rows: (_ for _ in ()).throw(ValueError("a\nb " + "c" * 10_000)))
    reason = Guard(model, [DOUBLE], []).predict(pd.DataFrame({"x": [0.0]}))[REASON][0]
    assert reason.startswith("ValueError: a b ccc")
    assert len(reason) == 300
    assert "\n" not in reason


@pytest.mark.slow
def test_every_estimator_in_a_model_gets_one_thread_fitted_ones_included():
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    forest = RandomForestClassifier(2, n_jobs=-1, random_state=0)
    voting = VotingClassifier([("f", forest), ("l", LogisticRegression())], n_jobs=4)
    pipeline = make_pipeline(StandardScaler(), voting).fit([[0.0], [1.0], [2.0]], [0, 1, 1])

    class Wrapper:
        def __init__(self):
            self.sklearn_model = pipeline

    class Loaded:
        def __init__(self):
            self._model_impl = Wrapper()

    guard.use_one_thread(Loaded())
    fitted = pipeline[-1].estimators_[0]
    assert (voting.n_jobs, forest.n_jobs, fitted.n_jobs) == (1, 1, 1)


def write_spec(folder, *hashes, job="1"):
    """Write what the loader reads of a guarded model; its models are in folders of their hashes."""
    models = [
        {
            "folder": name,
            "hash": name,
            "outputs": [{**DOUBLE, "field": "p0" if number == 0 else f"{CHALLENGER_FIELD}p0"}],
            "unscorable_reasons": [],
            "columns": ["x"],
            "positions": [number],
            "version": None,
            "bytes": 1,
            "environment": None,
        }
        for number, name in enumerate(hashes)
    ]
    folder.mkdir(exist_ok=True)
    spec = {"job": job, "models": models, "segments": None, "environments": {}}
    (folder / guard_loader.SPEC_FILE).write_text(json.dumps(spec))


def test_a_worker_loads_a_model_once_and_keeps_one_only(tmp_path, monkeypatch):
    import mlflow.pyfunc

    loads = []
    monkeypatch.setattr(
        mlflow.pyfunc, "load_model", lambda path, **_: loads.append(path) or Model(choosy)
    )
    for name in ("a", "b"):
        write_spec(tmp_path / name, name)
    models = guard_loader.ModelCache()
    models.load(str(tmp_path / "a"), {})
    write_spec(tmp_path / "a", "a", job="2")
    models.load(str(tmp_path / "a"), {})
    assert len(loads) == 1
    models.load(str(tmp_path / "b"), {})
    assert models.hashes == ["b"]


@pytest.mark.slow
def test_a_worker_runs_the_code_of_the_version_that_it_loads(tmp_path):
    import mlflow.pyfunc

    class Delay(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input):
            from delay_features import FACTOR

            return model_input["x"] * FACTOR

    def load(*factors):
        folder = tmp_path / "_".join(map(str, factors))
        write_spec(folder, *map(str, factors))
        for factor in factors:
            code = tmp_path / "delay_features.py"
            code.write_text(f"FACTOR = {factor}")
            model = folder / str(factor)
            mlflow.pyfunc.save_model(model, python_model=Delay(), code_paths=[str(code)])
        return models.load(str(folder), {})

    models = guard_loader.ModelCache()
    try:
        for factor in (10, 100):
            assert list(load(factor).predict(pd.DataFrame({"x": [1.0]}))["p0"]) == [factor]
        # Both import their module when they predict, each its own.
        both = load(20, 30)
        for value in (1.0, 2.0):
            result = both.predict(pd.DataFrame({"x": [value], "y": [10 * value]}))
            assert list(result["p0"]) == [20 * value]
            assert list(result["challenger_p0"]) == [300 * value]
        assert "delay_features" not in sys.modules
    finally:
        models.forget()


def test_a_strict_guard_raises_if_its_first_rows_all_fail_and_not_after_a_scored_row(
    monkeypatch,
):
    monkeypatch.setattr(guard, "_verified_jobs", [])

    def strict(job):
        return guard.Guard(Model(choosy), [DOUBLE], [], limits=Limits(strict_job=job))

    bad, good = pd.DataFrame({"x": [-1.0, -1.0]}), pd.DataFrame({"x": [-1.0, 2.0]})
    with pytest.raises(RuntimeError) as err:
        strict("monday").predict(bad)
    assert str(err.value) == "dbx_aml: an error on every row, ValueError: x is invalid"
    assert strict("monday").predict(bad.head(0)).empty
    assert strict("monday").predict(good)[QUARANTINED].tolist() == [True, False]
    assert strict("monday").predict(bad)[QUARANTINED].all()
    with pytest.raises(RuntimeError):
        strict("tuesday").predict(bad)
