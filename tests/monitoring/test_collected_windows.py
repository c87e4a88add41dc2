"""`monitor_table` of the files of Azure ML's data collector."""

import json

import pytest

from dbx_aml import monitor_table
from dbx_aml._common.errors import ArgumentError, TableNotFoundError
from dbx_aml.monitoring.collected_windows import CollectedWindows

pytestmark = [pytest.mark.spark, pytest.mark.slow]


class Endpoint:
    """Files of a deployment's data collector, and the table of its training rows."""

    def __init__(self, spark, folder):
        self.spark = spark
        self.folder = folder / "modelDataCollector" / "delay" / "blue" / "model_inputs"
        self.baseline = f"delta.`{folder}/train`"
        self.output = f"delta.`{folder}/delay`"
        columns = "distance double, carrier string, delay double"
        train = spark.createDataFrame([(1.0, "UA", 9.0), (3.0, "AA", 9.0)], columns)
        train.write.format("delta").save(f"{folder}/train")

    def collect(self, hour, *rows):
        """Write a request with these rows into the file of an hour, for example "2024/05/01/10"."""
        path = self.folder / hour / "instance.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = f"{hour[:10].replace('/', '-')}T{hour[11:]}:30:00Z"
        data = [{"distance": distance, "carrier": carrier} for distance, carrier in rows]
        with path.open("a") as file:
            file.write(json.dumps({"id": "d3c1", "time": time, "data": data}) + "\n")
        return path

    def monitor(self, **changes):
        arguments = {"baseline": self.baseline, "by": "day", **changes}
        folder = str(self.folder)
        return monitor_table(self.output, collected_folder=folder, spark=self.spark, **arguments)

    def profile(self):
        rows = self.spark.read.format("delta").load(
            f"{self.folder.parents[3]}/delay_profile_metrics"
        )
        found = rows.where("column_name NOT LIKE ':%'").selectExpr(
            "*", "date_format(window.start, 'MM-dd') AS day"
        )
        return {(row.day, row.column_name): row for row in found.collect()}


@pytest.fixture
def endpoint(spark, tmp_path):
    return Endpoint(spark, tmp_path)


def test_days_of_the_files_are_windows_and_a_later_run_computes_only_new_ones(endpoint):
    endpoint.collect("2024/05/01/23", (1.0, "UA"), (2.0, None))
    endpoint.collect("2024/05/02/00", (7.0, "AA"))
    result = endpoint.monitor()
    assert (result.windows, result.windows_computed, result.rows) == (2, 2, 1)
    profile = endpoint.profile()
    # The collector has no labels: the column `delay` of the training rows is left out.
    assert sorted(profile) == [
        ("05-01", "carrier"), ("05-01", "distance"), ("05-02", "carrier"), ("05-02", "distance")
    ]  # fmt: skip
    assert profile["05-01", "distance"].avg == 1.5
    assert profile["05-01", "carrier"].num_nulls == 1
    assert endpoint.monitor().windows_computed == 0
    endpoint.collect("2024/05/02/13", (9.0, "AA"))
    result = endpoint.monitor()
    assert (result.windows, result.windows_computed) == (2, 1)
    assert endpoint.profile()["05-02", "distance"].avg == 8.0
    (row,) = [row for row in result.drift if row["column_name"] == "distance"]
    assert row["avg_delta"] == 6.0


def test_the_rows_of_a_window_come_from_its_files_alone(endpoint, spark):
    endpoint.collect("2024/05/01/23", (1.0, "UA"))
    newest = endpoint.collect("2024/05/02/00", (2.0, "UA"))
    schema = spark.createDataFrame([], "distance double").schema
    windows = CollectedWindows(spark, str(endpoint.folder), schema, "day")
    rows = windows.select(windows.read()[1:])
    assert [row.distance for row in rows.collect()] == [2.0]
    assert rows.inputFiles() == [newest.as_uri()]


def test_a_later_run_needs_no_baseline(endpoint):
    endpoint.collect("2024/05/01/10", (1.0, "UA"))
    with pytest.raises(ArgumentError, match="baseline must be a table where collected_folder"):
        endpoint.monitor(baseline=None)
    endpoint.monitor()
    endpoint.collect("2024/05/02/10", (1.0, "UA"))
    result = endpoint.monitor(baseline=None)
    assert (result.windows_computed, result.baseline) == (1, f"{endpoint.baseline} at version 0")


def test_folders_that_cannot_be_read_are_named(endpoint):
    with pytest.raises(TableNotFoundError, match="collected_folder must exist"):
        endpoint.monitor()
    endpoint.collect("2024/05/01/10", (1.0, "UA"))
    with pytest.raises(ArgumentError, match="must go with hours, days, weeks or months"):
        endpoint.monitor(by="batch")
    (endpoint.folder / "loose.jsonl").write_text("{}\n")
    with pytest.raises(ArgumentError, match="must have a folder for each hour"):
        endpoint.monitor()
