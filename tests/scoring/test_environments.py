"""The requirements of a model, compared with this machine, and an environment made from them."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from dbx_aml import score_table
from dbx_aml.scoring.environments import requirement_differences
from tests.support.models import save_model


@pytest.mark.parametrize(
    ("requirements", "differences"),
    [
        ("", []),
        ("pandas", []),
        ("pandas==0.1", [f"pandas==0.1: {pd.__version__} here"]),
        ("nosuchpackage==3", ["nosuchpackage==3: not installed here"]),
        ("nosuchpackage; python_version<'3'", []),
    ],
)
def test_a_requirement_that_this_machine_does_not_meet_is_listed(
    tmp_path, requirements, differences
):
    (tmp_path / "requirements.txt").write_text(requirements)
    assert requirement_differences(tmp_path) == differences


@pytest.mark.spark
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_another_environment_gives_the_same_rows_and_never_a_false_for_a_null(
    spark, tmp_path, monkeypatch
):
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

    def describe(rows):
        if (rows["x"] < 0).any():
            raise ValueError("x is negative")
        # A missing text is None or NaN, as the environment's pandas has it.
        texts = [None if pd.isna(text) else text for text in rows["s"]]
        described = zip(rows.itertuples(), texts, strict=True)
        return [f"{row.x}|{row.n}|{row.at}|{text}|{row.b}" for row, text in described]

    model = save_model(tmp_path, describe, example)
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
    quarantined = spark.sql(
        f"SELECT s, _quarantine.reason FROM {result.quarantine_table}"
    ).collect()
    assert {row[0]: row[1] for row in quarantined} == {
        "bad": "ValueError: x is negative",
        "null": "column 'b' must not be null: with this env_manager it would become false",
    }
