"""For any rows: `score_table` returns what the loaded model returns for each row alone."""

import math
import struct
from datetime import datetime

import mlflow.pyfunc
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbx_aml import score_table
from tests.support.models import save_model

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SCHEMA = (
    "id int, n int, big bigint, d double, f float, s string, `b.flag` boolean, "
    "`when it was` timestamp_ntz, small smallint"
)
ROW = st.tuples(
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(),
    st.none() | st.floats(width=32),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.none() | st.booleans(),
    st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    st.integers(-(2**15), 2**15 - 1),
)
EXAMPLE = pd.DataFrame(
    {
        "f": pd.Series([1.0, 2.0], dtype="float32"),
        "big": [1, 2],
        "when it was": [pd.Timestamp("2013-01-01")] * 2,
        "s": ["a", "b"],
        "small": pd.Series([1, 2], dtype="int32"),
        "b.flag": [True, False],
        "d": [1.0, 2.0],
        "n": pd.Series([1, 2], dtype="int32"),
    }
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that returns each value of a row bit by bit, as one text."""

    def value_text(value):
        if value is None or value is pd.NaT:
            return "null"
        if isinstance(value, float) or type(value).__name__.startswith("float"):
            return "nan" if math.isnan(value) else struct.pack(">d", float(value)).hex()
        return f"{value!s}"

    def row_texts(rows):
        names = ["n", "big", "d", "f", "s", "b.flag", "when it was", "small"]
        columns = [rows[name] for name in names]
        return ["|".join(map(value_text, row)) for row in zip(*columns, strict=True)]

    return save_model(tmp_path_factory.mktemp("model"), row_texts, EXAMPLE)


@pytest.fixture
def check_rows(spark, model, tmp_path_factory):
    """Score rows and compare each prediction with the model's own."""

    def check(rows, files):
        folder = tmp_path_factory.mktemp("tables")
        numbered = [(i, *row) for i, row in enumerate(rows)]
        frame = spark.createDataFrame(numbered, SCHEMA).repartition(files)
        writer = frame.write.format("delta").option("delta.columnMapping.mode", "name")
        writer.save(f"{folder}/in")
        result = score_table(
            model_uri=model,
            input_table=f"delta.`{folder}/in`",
            output_table=f"delta.`{folder}/out`",
            max_quarantined_rows="100%",
            spark=spark,
        )
        output = spark.sql(f"SELECT id, prediction FROM {result.output_table}").collect()
        predictions = {row["id"]: row["prediction"] for row in output}
        assert len(output) == len(predictions) == result.rows_scored
        expected = predict_rows_alone(model, numbered)
        assert predictions == expected
        assert result.rows_quarantined == len(rows) - len(expected)
        if result.rows_quarantined:
            quarantine = spark.sql(f"SELECT id FROM {result.quarantine_table}").collect()
            assert {row[0] for row in quarantine} == set(range(len(rows))) - set(expected)

    return check


def predict_rows_alone(model, numbered):
    """Return the prediction of each row alone, in the model's own types; none where it fails."""
    loaded = mlflow.pyfunc.load_model(model)
    predictions = {}
    for row in numbered:
        frame = pd.DataFrame(
            {
                "n": pd.Series([row[1]], dtype="int32" if row[1] is not None else "float64"),
                "big": pd.Series([row[2]], dtype="int64" if row[2] is not None else "float64"),
                "d": pd.Series([row[3]], dtype="float64"),
                "f": pd.Series([row[4]], dtype="float32"),
                "s": pd.Series([row[5]], dtype=object),
                "b.flag": pd.Series([row[6]], dtype=object if row[6] is None else bool),
                "when it was": pd.Series([row[7]], dtype="datetime64[ns]"),
                "small": pd.Series([row[8]], dtype="int32"),
            }
        )
        try:
            predictions[row[0]] = loaded.predict(frame)[0]
        except mlflow.exceptions.MlflowException:
            continue
    return predictions


SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=2, **SETTINGS)
@given(rows=st.lists(ROW, min_size=10, max_size=40), files=st.integers(1, 3))
def test_scoring_equals_predicting_row_by_row(check_rows, rows, files):
    check_rows(rows, files)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@settings(max_examples=30, **SETTINGS)
@given(rows=st.lists(ROW, max_size=40), files=st.integers(1, 3))
def test_scoring_equals_predicting_row_by_row_in_many_examples(check_rows, rows, files):
    check_rows(rows, files)
