"""The columns that a baseline table lacks, and the tables that two runs make at once."""

from datetime import UTC, date, datetime

import pytest

from dbx_aml import monitor_table
from dbx_aml._common.errors import ArgumentError, MonitoringError
from dbx_aml.monitoring.baseline import ColumnBaseline, read_baseline, write_baseline
from dbx_aml.monitoring.bins import Bins, MonitoredColumn
from dbx_aml.monitoring.metric_tables import BASELINE_COLUMNS, MetricTable
from dbx_aml.monitoring.monitor_table import _MonitoringRun
from dbx_aml.scoring.delta_table import Table

pytestmark = pytest.mark.spark

BATCHES = [1_750_000_000_000_000 + number for number in range(3)]


@pytest.fixture
def save(spark, spark_database):
    """Save rows as a table of this test, and return its name."""

    def write(name, rows, columns):
        frame = spark.createDataFrame(rows, columns)
        if "batch" in frame.columns:
            frame = frame.selectExpr("* EXCEPT (batch)", "struct(batch) AS _scoring")
        frame.write.format("delta").mode("append").saveAsTable(f"{spark_database}.{name}")
        return f"{spark_database}.{name}"

    return write


@pytest.mark.slow
def test_a_column_without_a_baseline_has_the_first_window_with_a_value(spark, save):
    # Days are not compared with seconds.
    baseline = save("train", [(1.0, date(2024, 5, 1))], "x double, at date")
    now = datetime(2024, 5, 1, tzinfo=UTC)
    rows = [(1.0, None, None, None), (2.0, now, 9.0, "a"), (3.0, now, 18.0, "b")]
    rows = [(*row, batch) for row, batch in zip(rows, BATCHES, strict=True)]
    table = save("scored", rows, "x double, at timestamp, z double, u string, batch bigint")
    result = monitor_table(table, baseline, spark=spark)
    assert [row["column_name"] for row in result.drift] == ["x"]
    kept = read_baseline(MetricTable(spark, Table(result.baseline_table), BASELINE_COLUMNS))
    assert {name: (b.source == result.baseline, b.bins) for name, b in kept.items()} == {
        "x": (True, Bins(edges=(1.0,))),
        "at": (False, Bins(edges=(now.timestamp(),))),
        "z": (False, Bins(edges=(9.0,))),
        "u": (False, Bins(values=("a",))),
    }


def test_a_version_alone_is_one_of_the_kept_baseline(spark, save, spark_database):
    table = f"{spark_database}.scored"

    def find_baseline():
        run = _MonitoringRun(spark, Table(table), {}, lambda step: None)
        run.find_baseline(None, 0)
        return run

    with pytest.raises(ArgumentError, match="baseline_version must go with a baseline table: got"):
        find_baseline()
    baseline = save("train", [(3.0,)], "x double")
    save("train", [(5.0,)], "x double")
    column = MonitoredColumn("x", "double")
    source = f"{baseline} at version 1"
    kept = ColumnBaseline(column=column, source=source, bins=Bins(edges=(3.0, 5.0)), profile={})
    write_baseline(MetricTable(spark, Table(f"{table}_monitor_baseline"), BASELINE_COLUMNS), [kept])
    run = find_baseline()
    assert run._source == f"{baseline} at version 0"
    assert [row.x for row in run._baseline_rows.collect()] == [3.0]


def test_a_version_that_is_gone_is_one_line(spark, save):
    table = save("scored", [(1.0, BATCHES[0])], "x double, batch bigint")
    with pytest.raises(MonitoringError, match=r"must be readable: got .*version 9"):
        monitor_table(table, table, baseline_version=9, spark=spark)


def test_two_first_runs_write_each_row_once(spark, spark_database):
    table = Table(f"{spark_database}.scored_metrics")
    columns = "granularity string, column_name string, dbx_aml_window bigint"
    runs = [MetricTable(spark, table, columns) for _ in range(2)]
    for run in runs:
        assert run.read() == []
    row = {"granularity": "batch", "column_name": "x", "dbx_aml_window": 1}
    for run in runs:
        run.write([row], "dbx_aml_window = 1")
    assert runs[0].read() == [row]
