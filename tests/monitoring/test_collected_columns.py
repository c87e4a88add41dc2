"""The columns of an endpoint's data collector: their types, and those that no baseline has."""

import json

import pandas as pd
import pytest

from dbx_aml import monitor_table
from dbx_aml._common.errors import MonitoringError
from dbx_aml.monitoring.collected_rows import read_collected_rows

pytestmark = pytest.mark.spark


@pytest.fixture
def collect(tmp_path):
    """Write requests into the file of an hour, and return the folder."""

    def write(*requests):
        path = tmp_path / "2024" / "05" / "01" / "10" / "instance.jsonl"
        path.parent.mkdir(parents=True)
        # PandasFrameData.to_json of azureml-ai-monitoring is this call.
        texts = [pd.DataFrame(request).to_json(orient="records") for request in requests]
        events = [{"time": "2024-05-01T10:00:00Z", "data": json.loads(text)} for text in texts]
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return str(tmp_path)

    return write


def test_an_integer_is_read_from_a_request_where_a_row_lacks_it(spark, collect):
    large = 2**53 + 1
    folder = collect({"hour": [large, 7]}, {"hour": [8, None]}, {"hour": [300]})
    for kind, expected in (
        ("bigint", [None, 7, 8, 300, large]),
        ("tinyint", [None, None, None, 7, 8]),
    ):
        schema = spark.createDataFrame([], f"hour {kind}").schema
        rows = read_collected_rows(spark, folder, schema)
        assert rows.schema["hour"].dataType == schema["hour"].dataType
        assert [row.hour for row in rows.orderBy("hour").collect()] == expected


def test_an_endpoint_without_a_column_of_the_baseline_is_named(spark, collect, spark_database):
    folder = collect({"0": [1.5]})
    train = f"{spark_database}.train"
    spark.createDataFrame([(1.0,)], "x double").write.format("delta").saveAsTable(train)
    with pytest.raises(MonitoringError, match=r"endpoint collects: got .* with x; .* has 0$"):
        monitor_table(
            f"{spark_database}.delay", train, by="day", collected_folder=folder, spark=spark
        )
