"""Files of Azure ML's data collector as rows."""

import json
from datetime import UTC, date, datetime

import pandas as pd
import pytest
from pyspark.sql.types import StructType

from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring.collected_rows import read_collected_rows

pytestmark = [pytest.mark.spark, pytest.mark.slow]
DDL = "distance double, hour int, carrier string, day date, `at time` timestamp"
TIMES = ["2024-05-01T10:00:00Z", "2024-05-01T11:30:00Z"]


def frame(*distances):
    """Return rows as the package azureml-ai-monitoring gets them from a scoring script."""
    number = len(distances)
    return pd.DataFrame(
        {
            "distance": distances,
            "hour": [7] * number,
            "carrier": ["UA"] * number,
            "day": [pd.Timestamp("2024-05-01")] * number,
            "at time": [pd.Timestamp("2024-05-01 09:59:58.125")] * number,
        }
    )


def write(folder, hour, *events):
    path = folder / "2024" / "05" / "01" / hour / "instance.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def event(time, **values):
    return {
        "specversion": "1.0",
        "id": "d3c1",
        "source": "/subscriptions/s/onlineEndpoints/delay/deployments/blue",
        "type": "azureml.inference.model_inputs",
        "datacontenttype": "application/json",
        "time": time,
        **values,
    }


def rows_of(frame):
    # PandasFrameData.to_json of azureml-ai-monitoring is this call.
    return json.loads(frame.to_json(orient="records"))


def schema(spark):
    return spark.createDataFrame([], DDL).schema


def test_each_row_of_each_request_has_the_types_of_the_schema(spark, tmp_path):
    write(tmp_path, "10", event(TIMES[0], data=rows_of(frame(1.5, float("nan")))))
    write(tmp_path, "11", event(TIMES[1], data=rows_of(frame(3.0))))
    rows = read_collected_rows(spark, str(tmp_path), schema(spark))

    assert rows.schema.simpleString() == (
        "struct<distance:double,hour:int,carrier:string,day:date,at time:timestamp,"
        "collected_time:timestamp>"
    )
    collected = rows.orderBy("collected_time", "distance").collect()
    assert [row.distance for row in collected] == [None, 1.5, 3.0]
    assert {(row.hour, row.carrier, row.day) for row in collected} == {(7, "UA", date(2024, 5, 1))}
    micros = rows.selectExpr("unix_micros(`at time`) AS m", "unix_micros(collected_time) AS c")
    at = datetime(2024, 5, 1, 9, 59, 58, 125_000, UTC)
    assert {row.m for row in micros.collect()} == {int(at.timestamp() * 1_000_000)}
    assert {row.c for row in micros.collect()} == {
        int(datetime.fromisoformat(time).timestamp()) * 1_000_000 for time in TIMES
    }


def test_a_request_above_4_megabytes_is_read_from_its_path(spark, tmp_path):
    payload = tmp_path / "payload.json"
    payload.write_text(frame(5.0, 6.0).to_json(orient="records"))
    folder = tmp_path / "model_inputs"
    write(
        folder,
        "10",
        event(TIMES[0], data=rows_of(frame(1.0))),
        event(TIMES[1], dataref=str(payload)),
    )
    rows = read_collected_rows(spark, str(folder), schema(spark)).collect()
    assert sorted(row.distance for row in rows) == [1.0, 5.0, 6.0]


def test_a_column_that_was_not_collected_is_null(spark, tmp_path):
    write(tmp_path, "10", event(TIMES[0], data=[{"distance": 1.0, "other": True}]))
    (row,) = read_collected_rows(spark, str(tmp_path), schema(spark)).collect()
    assert (row.distance, row.hour, row.day) == (1.0, None, None)


def test_a_schema_with_the_column_of_the_time_is_refused(spark, tmp_path):
    with pytest.raises(ArgumentError, match="must not have the column collected_time"):
        read_collected_rows(spark, str(tmp_path), StructType.fromDDL("collected_time timestamp"))
