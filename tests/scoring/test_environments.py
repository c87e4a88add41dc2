"""Scoring in an environment made from the model's own requirements."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from dbx_aml import score_table
from tests.support.models import save_model

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]


def test_another_environment_gives_the_same_rows_and_never_a_false_for_a_null(
    request, spark, tmp_path, monkeypatch
):
    if request.config.getoption("--connect"):
        pytest.skip("MLflow makes environments on Connect only where the server is Databricks")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    example = pd.DataFrame(
        {
            "x": [1.0, 2.0],
            "n": [1, 2],
            "at": [pd.Timestamp("2013-01-01")] * 2,
            "s": ["a", "b"],
            "b": [True, False],
        }
    )

    def tell(rows):
        if (rows["x"] < 0).any():
            raise ValueError("x is negative")
        # A missing text is None or NaN, as the environment's pandas has it.
        texts = [None if pd.isna(s) else s for s in rows["s"]]
        told = zip(rows.itertuples(), texts, strict=True)
        return [f"{r.x}|{r.n}|{r.at}|{s}|{r.b}" for r, s in told]

    model = save_model(tmp_path, tell, example)
    values = [
        (0.1 + 0.2, 2**53 + 1, "2013-10-27 02:30:00", "größe", True),
        (float("inf"), -(2**62) - 1, None, None, False),
        (-1.0, 0, None, "bad", True),
        (1.0, 0, None, "null", None),
    ]
    schema = "x double, n bigint, at string, s string, b boolean"
    frame = spark.createDataFrame(values, schema)
    frame.withColumn("at", frame["at"].cast("timestamp_ntz")).write.format("delta").save(
        f"{tmp_path}/in"
    )
    result = score_table(
        model_uri=model,
        input_table=f"delta.`{tmp_path}/in`",
        output_table=f"delta.`{tmp_path}/out`",
        env_manager="uv",
        max_quarantined_rows=2,
        spark=spark,
    )
    scored = spark.sql(f"SELECT prediction FROM {result.output_table}").collect()
    assert sorted(row[0] for row in scored) == [
        "0.30000000000000004|9007199254740993|2013-10-27 02:30:00|größe|True",
        "inf|-4611686018427387905|NaT|None|False",
    ]
    aside = spark.sql(f"SELECT s, _quarantine.reason FROM {result.quarantine_table}").collect()
    assert {row[0]: row[1] for row in aside} == {
        "bad": "ValueError: x is negative",
        "null": "column 'b' must not be null: with this env_manager it would become false",
    }
