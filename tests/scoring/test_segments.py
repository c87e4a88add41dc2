"""The model of its segment predicts each row, in one pass."""

import json

import numpy as np
import pandas as pd
import pytest

from dbx_aml import batches
from dbx_aml._common.errors import (
    ArgumentError,
    ModelNotFoundError,
    ModelUriError,
    SchemaMismatchError,
    TableNotFoundError,
)
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.scoring import guard_loader, segments
from dbx_aml.scoring.guard import QUARANTINED, REASON, Guard, Limits
from dbx_aml.scoring.guard_several import MODEL_VERSION, SegmentGuard
from dbx_aml.scoring.segments import pin_segment_models, read_segment_uris
from tests.support.models import XY, save_model

DOUBLE = {"name": None, "field": "p0", "type": "double", "is_list": False, "length": None}


class Factor:
    def __init__(self, factor):
        self.factor = factor

    def predict(self, rows):
        return rows["x"] * self.factor


def segment_guard(factors, default=None):
    """Return a guard of columns (segment, x) whose segments have these factors."""
    loads = []
    models = [
        {"outputs": [DOUBLE], "positions": [1], "version": number + 1}
        for number in range(len(factors))
    ]

    def load(position):
        loads.append(position)
        return Guard(Factor(list(factors.values())[position]), [DOUBLE], [], columns=["x"])

    routing = {
        "position": 0,
        "models": {name: number for number, name in enumerate(factors)},
        "default": default,
    }
    return SegmentGuard(load, models, routing, Limits()), loads


def test_mixed_segments_come_back_in_the_order_of_the_rows_with_one_call_a_model():
    segment_names = np.array(["a", "b", "c"], object)[np.random.default_rng(0).integers(0, 3, 1000)]
    rows = pd.DataFrame({"segment": segment_names, "x": np.arange(1000.0)})
    guard, loads = segment_guard({"a": 2.0, "b": 3.0, "c": 5.0})
    result = guard.predict(rows)
    factors = rows["segment"].map({"a": 2.0, "b": 3.0, "c": 5.0})
    assert (result["p0"] == rows["x"] * factors).all()
    assert sorted(loads) == [0, 1, 2]
    assert (result[MODEL_VERSION] == rows["segment"].map({"a": 1, "b": 2, "c": 3})).all()


def test_rows_of_another_or_of_no_segment_are_quarantined_or_have_the_model_of_the_rest():
    rows = pd.DataFrame({"segment": ["a", None, "z", np.nan], "x": [1.0, 2.0, 3.0, 4.0]})
    result = segment_guard({"a": 2.0})[0].predict(rows)
    assert list(result[QUARANTINED]) == [False, True, True, True]
    assert list(result[REASON]) == [
        "", "no model for segment None", "no model for segment 'z'", "no model for segment None"
    ]  # fmt: skip
    result = segment_guard({"a": 2.0, "rest": 10.0}, default=1)[0].predict(rows)
    assert list(result["p0"]) == [2.0, 20.0, 30.0, 40.0]


def test_a_worker_keeps_the_models_that_were_used_last_and_loads_each_when_it_is_met(
    monkeypatch, tmp_path
):
    import mlflow.pyfunc

    loads = []

    def load_model(path, **_):
        loads.append(int(path.rpartition("_")[2]))
        return Factor(loads[-1])

    monkeypatch.setattr(mlflow.pyfunc, "load_model", load_model)
    models = [
        {
            "folder": f"model_{number}", "hash": str(number), "outputs": [DOUBLE],
            "unscorable_reasons": [], "columns": ["x"], "positions": [1], "version": 1, "bytes": 10,
            "environment": None,
        }
        for number in range(2000)
    ]  # fmt: skip
    names = {f"s{number}": number for number in range(2000)}
    routing = {"position": 0, "models": names, "default": None, "cache_bytes": 500}
    spec = {"job": "1", "models": models, "segments": routing, "environments": {}}
    (tmp_path / guard_loader.SPEC_FILE).write_text(json.dumps(spec))
    cache = guard_loader.ModelCache()
    for first in (0, 40):
        guard = cache.load(str(tmp_path), {})
        numbers = range(first, first + 50)
        rows = pd.DataFrame({"segment": [f"s{n}" for n in numbers], "x": 1.0})
        assert list(guard.predict(rows)["p0"]) == list(numbers)
    # The second guard finds models 40 to 49 in memory.
    assert loads == list(range(90))
    rows = pd.DataFrame({"segment": list(names), "x": 1.0})
    assert list(guard.predict(rows)["p0"]) == list(range(2000))
    assert len(cache.hashes) == 50


@pytest.fixture
def factors(tmp_path):
    """Return a function that saves one model a segment, each with another factor."""

    def save(**factors_by_segment):
        def predict_with(factor):
            return lambda rows: rows["x"] * factor

        return {
            name: save_model(tmp_path, predict_with(factor), XY[["x"]])
            for name, factor in factors_by_segment.items()
        }

    return save


def test_a_file_that_names_a_segment_twice_is_refused(tmp_path):
    file = tmp_path / "models.json"
    file.write_text('{"n": "models:/a/1", "s": "models:/b/1", "n": "models:/b/2"}')
    with pytest.raises(ArgumentError, match="once: got 3 entries of 2 segments"):
        read_segment_uris(None, "region", str(file), None)


def test_the_order_of_the_segments_is_no_part_of_the_models(factors, tmp_path):
    models = factors(s=3.0, n=2.0)

    def pin(*names, folder):
        uris = {name: models[name] for name in names}
        client = create_client()
        return pin_segment_models(uris, "region", None, client, tmp_path / folder, "local")

    first, second = pin("s", "n", folder="1"), pin("n", "s", folder="2")
    assert first.content == second.content
    assert first.as_one_model("m").files == second.as_one_model("m").files
    assert [first.uris["models"][name] for name in "ns"] == [models[name] for name in "ns"]


def test_a_text_that_makes_no_uri_is_a_segment_without_a_model(factors, tmp_path, caplog):
    uris = {"n": factors(n=2.0)["n"], "n/a": "models:/delay_n/a@champion"}
    arguments = (uris, "region", None, create_client(), tmp_path / "files", "local")
    pinned = pin_segment_models(*arguments, skips_missing=True)
    assert list(pinned.uris["models"]) == ["n"]
    assert "segment has no model: model URI must" in caplog.text
    with pytest.raises(ModelUriError):
        pin_segment_models(*arguments)


@pytest.mark.spark
def test_segments_have_the_text_of_spark_and_none_is_null(spark, view):
    pairs = [(True, "models:/a/1"), (False, "models:/b/1")]
    frame = spark.createDataFrame(pairs, "segment boolean, model_uri string")
    expected = {"true": "models:/a/1", "false": "models:/b/1"}
    for source in (view(frame), dict(pairs)):
        assert read_segment_uris(spark, "late", source, frame) == (expected, False)
    null = spark.createDataFrame([(None, "models:/a/1")], frame.schema)
    for source in (view(null), {None: "models:/a/1"}):
        with pytest.raises(ArgumentError, match="must name each segment: got null for 'models:/a"):
            read_segment_uris(spark, "late", source, frame)


@pytest.fixture
def rows(spark, delta_table):
    frame = spark.createDataFrame(
        [(i, "nsx"[i % 3] if i % 10 else None, float(i)) for i in range(60)],
        "id int, region string, x double",
    )
    return delta_table(frame.coalesce(2))


def expected_rows(**factors_by_segment):
    regions = {i: "nsx"[i % 3] for i in range(60) if i % 10}
    return [
        (i, i * factors_by_segment[region])
        for i, region in regions.items()
        if region in factors_by_segment
    ]


def rows_of(spark, table, *columns):
    query = f"SELECT {', '.join(columns)} FROM {table}"
    return sorted(tuple(row) for row in spark.sql(query).collect())


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("fits", [True, False])
def test_each_segment_has_its_own_model_and_the_ledger_has_the_rows_of_each(
    spark, rows, score, factors, tmp_path, monkeypatch, fits
):
    if not fits:
        monkeypatch.setattr(segments, "CACHE_BYTES", 1)
    models = factors(n=2.0, s=3.0)
    file = tmp_path / "models.json"
    file.write_text(json.dumps(models))
    arguments = {"segment_column": "region", "segment_models": str(file)}
    limit = {"max_quarantined_rows": "60%"}
    if not fits:
        plan = score(None, rows, **arguments, dry_run=True).plan
        assert "by segment: the 2 models have" in plan["partitions"]
    result = score(None, rows, **arguments, **limit)
    scored = rows_of(spark, result.output_table, "id", "prediction")
    assert scored == expected_rows(n=2.0, s=3.0)
    reasons = dict(
        spark.sql(
            f"SELECT _quarantine.reason, count(*) FROM {result.quarantine_table} GROUP BY ALL"
        ).collect()
    )
    assert reasons == {"no model for segment 'x'": 18, "no model for segment None": 6}
    (entry,) = batches(result.output_table, spark).collect()
    assert json.loads(entry.plan)["segments"] == [
        {"segment": name, "model_uri": models[name], "model_version": None, "rows": 18}
        for name in ("n", "s")
    ]
    assert score(None, rows, **arguments, **limit).status == "already_scored"


@pytest.mark.spark
@pytest.mark.slow
def test_a_template_names_registered_versions_and_model_uri_has_the_other_rows(
    spark, rows, score, factors, mlflow_store
):
    import mlflow

    client = mlflow.MlflowClient()
    models = factors(n=2.0, s=3.0, rest=7.0)
    for name in ("n", "s"):
        client.create_registered_model(f"delay_{name}")
        client.create_model_version(f"delay_{name}", models[name])
        client.set_registered_model_alias(f"delay_{name}", "champion", "1")
    client.create_model_version("delay_s", models["s"])
    client.set_registered_model_alias("delay_s", "champion", "2")
    template = {"segment_column": "region", "segment_models": "models:/delay_{region}@champion"}
    result = score(models["rest"], rows, **template)
    assert (result.rows_scored, result.rows_quarantined) == (60, 0)
    scored = rows_of(spark, result.output_table, "id", "prediction", "_scoring.model_version")
    by_region = {"n": (2.0, 1), "s": (3.0, 2)}
    for i, prediction, version in scored:
        factor = by_region.get("nsx"[i % 3], (7.0, None)) if i % 10 else (7.0, None)
        assert (prediction, version) == (i * factor[0], factor[1])


@pytest.mark.spark
@pytest.mark.slow
def test_segments_that_cannot_be_scored_are_one_line(spark, rows, score, factors, tmp_path, view):
    models = factors(n=2.0)
    for arguments, error, message in (
        ({"segment_column": "region"}, ArgumentError, "must go with segment_models"),
        ({"segment_models": models}, ArgumentError, "segment_column must go with"),
        (
            {"segment_column": "area", "segment_models": models},
            SchemaMismatchError,
            "segment_column must be an input column",
        ),
        (
            {"segment_column": "region", "segment_models": "/no/such.json"},
            ArgumentError,
            "segment_models must be readable: got '/no/such.json'",
        ),
        (
            {"segment_column": "region", "segment_models": {"n": ""}},
            ArgumentError,
            "must have a model URI by segment: got '' for 'n'",
        ),
        (
            {"segment_column": "region", "segment_models": "no_such_table"},
            TableNotFoundError,
            "segment_models must be a table with the columns segment and model_uri",
        ),
        (
            {"segment_column": "region", "segment_models": {"n": str(tmp_path / "none")}},
            ModelNotFoundError,
            "model must exist",
        ),
        (
            {"segment_column": "region", "segment_models": models, "challenger_uri": models["n"]},
            ArgumentError,
            "segment_models must go without challenger_uri",
        ),
    ):
        with pytest.raises(error, match=message):
            score(None, rows, **arguments)
    texts = save_model(tmp_path, lambda frame: frame["x"].astype(str), XY[["x"]])
    both = {"segment_column": "region", "segment_models": {**models, "s": texts}}
    with pytest.raises(SchemaMismatchError, match="models of segments must predict one type"):
        score(None, rows, **both)
    twice = view(
        spark.createDataFrame([("n", "a"), ("n", "b")], "segment string, model_uri string")
    )
    with pytest.raises(ArgumentError, match="must name each segment once: got 2 entries of 1"):
        score(None, rows, segment_column="region", segment_models=twice)
    with pytest.raises(ArgumentError, match="model_uri must be given"):
        score(None, rows)
