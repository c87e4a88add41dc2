"""`monitor_table`: its tables against pandas, its windows, and tables that cannot be monitored."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from dbx_aml import monitor_table, score_table
from dbx_aml._common.errors import ArgumentError, MonitoringError, TableNotFoundError
from dbx_aml.monitoring import drift
from dbx_aml.monitoring.bins import Bins, MonitoredColumn
from dbx_aml.monitoring.monitor_table import windows_to_compare
from dbx_aml.monitoring.profile import ProfileKey, profile_windows
from dbx_aml.scoring.delta_table import Table
from tests.support.models import XY, choosy_sum, save_model

pytestmark = [pytest.mark.spark, pytest.mark.slow]

BATCHES = [1_750_000_000_000_000 + number for number in range(3)]


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(drift, "MIN_ROWS", 10)


@pytest.fixture
def tables(spark, tmp_path):
    """Writes rows of a baseline or of a batch to Delta tables of this test, and returns a name."""

    class Tables:
        baseline = f"delta.`{tmp_path}/baseline`"
        output = f"delta.`{tmp_path}/scored`"

        def write(self, rows, columns, batch=None, version="1"):
            frame = spark.createDataFrame(rows, columns)
            if batch is not None:
                scoring = f"named_struct('batch', {batch}L, 'model_version', {version}) AS _scoring"
                frame = frame.selectExpr("*", scoring)
            path = Table(self.baseline if batch is None else self.output).path
            frame.coalesce(1).write.format("delta").mode("append").save(path)

        def read(self, name, condition="slice_key IS NULL"):
            rows = spark.read.format("delta").load(f"{tmp_path}/scored_{name}_metrics")
            return rows.where(condition).collect()

        def profile(self, condition="slice_key IS NULL AND column_name NOT LIKE ':%'"):
            rows = self.read("profile", condition)
            return {(row.dbx_aml_window, row.column_name): row for row in rows}

        def drift(self):
            rows = self.read("drift", "slice_key IS NULL AND column_name <> ':table'")
            return {(row.dbx_aml_window, row.column_name, row.drift_type): row for row in rows}

    return Tables()


@pytest.mark.connect
def test_the_profile_is_the_one_of_pandas(spark, tables):
    random = np.random.default_rng(1)
    numbers = random.normal(size=200).round(3)
    texts = random.choice(["a", "b", "c"], size=200)
    tables.write(list(zip(numbers.tolist(), texts.tolist(), strict=True)), "x double, t string")
    values = [*(numbers[:100] + 3).round(3).tolist(), None, math.nan, math.inf, 0.0]
    now = [*texts[:100].tolist(), "new", "new", None, None]
    tables.write(list(zip(values, now, strict=True)), "x double, t string", BATCHES[0])
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    x = tables.profile()[BATCHES[0], "x"]
    finite = pd.Series([*values[:100], 0.0])
    assert (x["count"], x.num_nulls, x.num_nan, x.dbx_aml_num_infinite) == (104, 1, 1, 1)
    assert (x.avg, x.stddev) == pytest.approx((finite.mean(), finite.std()))
    assert (x.min, x.max, x.num_zeros) == (finite.min(), finite.max(), 1)
    edges = sorted({numbers.min(), numbers.max(), *np.quantile(
        numbers, [i / 20 for i in range(1, 20)], method="inverted_cdf")})  # fmt: skip
    below = (finite < edges[0]).sum()
    first = finite.between(edges[0], edges[1]).sum()
    inner = [((finite > low) & (finite <= high)).sum() for low, high in pairwise(edges[1:])]
    above = finite[finite > edges[-1]]
    assert x.dbx_aml_bin_counts == [below, first, *inner, len(above)]
    assert x.dbx_aml_bin_sums[-1] == pytest.approx(above.sum())
    assert x.dbx_aml_percent_out_of_range == pytest.approx(100 * (below + len(above)) / 101)
    t = tables.profile()[BATCHES[0], "t"]
    order = pd.Series(texts).value_counts().index
    expected = [int((texts[:100] == value).sum()) for value in order]
    assert t.dbx_aml_bin_counts == [*expected, 2, 2]
    assert (t.num_nulls, t.distinct_count, t.max_length) == (2, 4, 3)
    assert result.rows == 104


def test_drift_is_computed_against_the_baseline_and_the_batch_before(
    spark, tables, few_rows, tmp_path
):
    tables.write([(float(i), "a") for i in range(100)], "x double, t string")
    tables.write([(float(i), "a") for i in range(100)], "x double, t string", BATCHES[0])
    tables.write([(float(i) + 50, "b") for i in range(100)], "x double, t string", BATCHES[1])
    result = monitor_table(
        tables.output,
        tables.baseline,
        thresholds={"psi": 0.2, "ks": 0.4},
        page=tmp_path / "pages" / "drift.html",
        spark=spark,
    )
    rows = tables.drift()
    same = rows[BATCHES[0], "x", "BASELINE"]
    assert (same.population_stability_index, same.wasserstein_distance) == (0, 0)
    assert (same.ks_test.statistic, same.ks_test.pvalue, same.dbx_aml_status) == (0, 1, "ok")
    for drift_type in ("BASELINE", "CONSECUTIVE"):
        moved = rows[BATCHES[1], "x", drift_type]
        assert moved.wasserstein_distance == pytest.approx(50)
        assert moved.avg_delta == pytest.approx(50)
        assert moved.ks_test.statistic == pytest.approx(0.5, abs=0.01)
        assert moved.dbx_aml_normalized_wasserstein == pytest.approx(50 / 29.011, abs=0.001)
    text = rows[BATCHES[1], "t", "BASELINE"]
    assert (text.tv_distance, text.l_infinity_distance) == (1, 1)
    assert text.chi_squared_test.statistic == pytest.approx(200)
    assert {(alert.column_name, alert.threshold) for alert in result.alerts} == {
        ("x", "psi"), ("x", "ks"), ("t", "psi"),
    }  # fmt: skip
    assert [row["column_name"] for row in result.drift] == ["t", "x"]
    assert (result.windows, result.windows_computed, result.rows) == (2, 2, 100)
    page = (tmp_path / "pages" / "drift.html").read_text(encoding="utf-8")
    *over_time, first, second = re.findall("<h2>(.*?)</h2>", page)
    assert len(over_time) == 2, "a plot for each threshold"
    assert all(title.startswith("Drift over time: ") for title in over_time)
    assert (first, second) == ("t", "x")


def test_one_spark_job_reads_all_columns_and_windows(spark):
    columns = [MonitoredColumn("a", "double"), MonitoredColumn("b", "string")]
    rows = spark.range(100).selectExpr("id / 2 AS a", "CAST(id % 3 AS STRING) AS b", "id % 5 AS w")
    bins = {"a": Bins(edges=(0.0, 20.0, 40.0)), "b": Bins(values=("0", "1"))}
    spark.sparkContext.setJobGroup("profile", "")
    try:
        profiles = profile_windows(rows, columns, bins, F.col("w"))
        jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("profile")
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert len(profiles) == 5
    assert profiles[ProfileKey(0, None)]["a"]["dbx_aml_bin_counts"] == [0, 9, 8, 3]
    assert len(jobs) == 1


def test_few_rows_are_no_drift(spark, tables):
    tables.write([(1.0,)] * 20, "x double")
    tables.write([(9.0,)] * 20, "x double", BATCHES[0])
    result = monitor_table(tables.output, tables.baseline, thresholds={"psi": 0.2}, spark=spark)
    assert result.alerts == []
    assert result.drift[0]["dbx_aml_status"] == "too few rows"
    assert result.drift[0]["population_stability_index"] > 0.2


def test_a_second_run_computes_only_a_new_batch_and_a_changed_batch(spark, tables):
    tables.write([(1.0,), (2.0,)], "x double")
    tables.write([(1.0,)] * 4, "x double", BATCHES[0])
    tables.write([(2.0,)] * 4, "x double", BATCHES[1])
    assert monitor_table(tables.output, tables.baseline, spark=spark).windows_computed == 2
    assert monitor_table(tables.output, tables.baseline, spark=spark).windows_computed == 0
    # The kept baseline is used.
    assert monitor_table(tables.output, spark=spark).windows_computed == 0
    tables.write([(7.0,)] * 4, "x double", BATCHES[2])
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert (result.windows, result.windows_computed) == (3, 1)
    assert tables.drift()[BATCHES[2], "x", "CONSECUTIVE"].avg_delta == 5
    spark.sql(f"DELETE FROM {tables.output} WHERE _scoring.batch = {BATCHES[1]}")
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert result.windows == 2
    assert {window for window, _ in tables.profile()} == {BATCHES[0], BATCHES[2]}
    assert tables.drift()[BATCHES[2], "x", "CONSECUTIVE"].avg_delta == 6
    assert not [key for key in tables.drift() if key[0] == BATCHES[1]]


def test_a_later_run_reads_the_rows_of_a_new_batch_alone(spark, tables, tmp_path):
    model = save_model(tmp_path, choosy_sum, XY)
    arguments = {"model_uri": model, "output_table": tables.output, "spark": spark}
    tables.write([(1.0, 2.0), (2.0, 3.0)], "x double, y double")
    score_table(input_table=tables.baseline, batch_id="1", **arguments)
    monitor_table(tables.output, tables.baseline, spark=spark)
    older = sorted(Path(Table(tables.output).path).glob("*.parquet"))
    score_table(input_table=tables.baseline, batch_id="2", **arguments)
    for path in [*older, *Path(Table(tables.baseline).path).glob("*.parquet")]:
        path.unlink()
        path.with_name(f".{path.name}.crc").unlink(missing_ok=True)
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert (result.windows, result.windows_computed, result.rows) == (2, 1, 2)
    for path in Path(Table(tables.output).path).glob("*.parquet"):
        path.unlink()
    assert monitor_table(tables.output, tables.baseline, spark=spark).windows_computed == 0


def test_the_first_window_with_a_new_column_is_its_baseline_from_then_on(spark, tables):
    tables.write([(1.0,)], "x double")
    tables.write([(1.0, 5.0)], "x double, y double", BATCHES[0])
    monitor_table(tables.output, tables.baseline, spark=spark)
    spark.sql(f"ALTER TABLE {tables.output} ADD COLUMN z double").collect()
    tables.write([(1.0, 5.0, 7.0)], "x double, y double, z double", BATCHES[1])
    monitor_table(tables.output, tables.baseline, spark=spark)
    kept = spark.read.format("delta").load(f"{Table(tables.output).path}_monitor_baseline")
    assert sorted(row.column_name for row in kept.collect()) == ["x", "y", "z"]


def test_another_baseline_replaces_the_kept_baseline(spark, tables):
    tables.write([(1.0,)] * 3, "x double")
    tables.write([(1.0,)] * 3, "x double", BATCHES[0])
    monitor_table(tables.output, tables.baseline, spark=spark)
    tables.write([(5.0,)] * 9, "x double")
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert (result.baseline, result.windows_computed) == (f"{tables.baseline} at version 0", 0)
    result = monitor_table(tables.output, tables.baseline, baseline_version=1, spark=spark)
    assert (result.baseline, result.windows_computed) == (f"{tables.baseline} at version 1", 1)
    assert tables.drift()[BATCHES[0], "x", "BASELINE"].avg_delta == -3


def test_days_of_a_time_column_are_windows(spark, tables):
    tables.write([(1.0,)] * 3, "x double")
    days = [datetime(2024, 2, 28, hour, tzinfo=UTC) + timedelta(days=hour % 2) for hour in range(5)]
    rows = [(float(day.day), day) for day in days]
    tables.write(rows, "x double, seen timestamp", BATCHES[0])
    result = monitor_table(
        tables.output, tables.baseline, by="day", time_column="seen", spark=spark
    )
    assert result.windows == 2
    assert result.newest_window == datetime(2024, 2, 29, tzinfo=UTC)
    rows = sorted((row.window.start, row.avg, row.granularity) for row in tables.profile().values())
    assert rows == [
        (datetime(2024, 2, 28), 28.0, "1 day"), (datetime(2024, 2, 29), 29.0, "1 day")
    ]  # fmt: skip


def test_the_drift_of_the_table_has_the_columns_that_came_and_went(spark, tables):
    columns = "x double, y double, z string"
    tables.write([(1.0, 2.0, None)] * 2, columns)
    tables.write([(1.0, 2.0, None)] * 5, columns, BATCHES[0])
    tables.write([(None, 2.0, "a")] * 3, columns, BATCHES[1])
    monitor_table(tables.output, tables.baseline, spark=spark)
    found = {
        (row.dbx_aml_window, row.drift_type): (row.count_delta, *row.non_null_columns_delta)
        for row in tables.read("drift", "column_name = ':table' AND slice_key IS NULL")
    }
    assert found == {
        (BATCHES[0], "BASELINE"): (3, 0, 0),
        (BATCHES[1], "BASELINE"): (1, 1, 1),
        (BATCHES[1], "CONSECUTIVE"): (-2, 1, 1),
    }


@pytest.fixture(params=["America/New_York", "+05:30"])
def zone(spark, request):
    spark.conf.set("spark.sql.session.timeZone", request.param)
    yield request.param
    spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_days_start_at_midnight_in_the_time_zone_of_the_session(spark, tables, zone):
    midnight = datetime(2024, 3, 10, tzinfo=UTC) + {
        "America/New_York": timedelta(hours=5), "+05:30": -timedelta(hours=5, minutes=30)
    }[zone]  # fmt: skip
    tables.write([(1.0,)], "x double")
    times = [midnight - timedelta(seconds=1), midnight, midnight + timedelta(hours=22)]
    tables.write([(float(n), time) for n, time in enumerate(times)], "x double, at timestamp",
                 BATCHES[0])  # fmt: skip
    result = monitor_table(tables.output, tables.baseline, by="day", time_column="at", spark=spark)
    assert (result.windows, result.newest_window) == (2, midnight)
    rows = {row.dbx_aml_window: row for row in tables.profile().values()}
    assert [rows[start].avg for start in sorted(rows)] == [0.0, 1.5]
    ends = spark.read.format("delta").load(f"{Table(tables.output).path}_profile_metrics")
    newest = ends.where("column_name = 'x'").selectExpr("max(unix_micros(window.end)) AS m")
    # On this day New York goes to summer time.
    hours = 23 if zone == "America/New_York" else 24
    end = midnight + timedelta(hours=hours)
    assert newest.collect()[0].m == end.timestamp() * 1_000_000


def test_a_day_without_rows_is_no_window_and_drift_skips_it(spark, tables):
    tables.write([(1.0,)], "x double")
    rows = [(1.0, date(2024, 5, 1)), (3.0, date(2024, 5, 4)), (9.0, None)]
    tables.write(rows, "x double, day date", BATCHES[0])
    result = monitor_table(tables.output, tables.baseline, by="day", time_column="day", spark=spark)
    assert result.windows == 2
    last = max(start for start, _ in tables.profile())
    row = tables.drift()[last, "x", "CONSECUTIVE"]
    assert row.avg_delta == 2
    assert (row.window.start - row.window_cmp.start) == timedelta(days=3)


def test_a_table_without_rows_has_no_windows(spark, tables, tmp_path):
    tables.write([(1.0,)], "x double")
    tables.write([], "x double", BATCHES[0])
    result = monitor_table(tables.output, tables.baseline, page=tmp_path / "d.html", spark=spark)
    assert (result.windows, result.rows, result.newest_window, result.drift) == (0, 0, None, [])
    assert "newest window" in (tmp_path / "d.html").read_text(encoding="utf-8")


def test_a_column_of_a_million_different_texts_has_50_bins(spark, tables):
    frame = spark.range(1_000_000).selectExpr("concat('user ', id) AS t")
    frame.write.format("delta").save(Table(tables.baseline).path)
    scoring = f"named_struct('batch', {BATCHES[0]}L, 'model_version', '1') AS _scoring"
    frame.selectExpr("*", scoring).write.format("delta").save(Table(tables.output).path)
    monitor_table(tables.output, tables.baseline, spark=spark)
    row = tables.profile()[BATCHES[0], "t"]
    assert row.distinct_count == pytest.approx(1_000_000, rel=0.15)
    assert row.dbx_aml_bin_counts == [1] * 50 + [999_950, 0]
    assert tables.drift()[BATCHES[0], "t", "BASELINE"].population_stability_index == 0


def test_columns_without_a_baseline_are_named_and_compared_with_the_batch_before(spark, tables):
    tables.write([("1", 2.0)] * 3, "x string, y double")
    for number, batch in enumerate(BATCHES[:2]):
        tables.write([(number, 2.0, number)] * 3, "x int, y double, prediction int", batch)
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert sorted(result.columns_without_baseline) == ["prediction", "x"]
    rows = tables.drift()
    assert (BATCHES[1], "x", "BASELINE") not in rows
    assert rows[BATCHES[1], "prediction", "CONSECUTIVE"].avg_delta == 1
    assert rows[BATCHES[1], "y", "BASELINE"].population_stability_index == 0


def test_every_type_of_a_value_is_monitored(spark, tables):
    columns = "a date, b decimal(10, 2), c boolean, d timestamp, e double, f bigint, g array<int>"
    now = datetime(2024, 5, 1, tzinfo=UTC)
    rows = [(date(2024, 5, day), day, day > 2, now, None, 7, [1]) for day in (1, 2, 3)]
    rows = [(*row[:1], Decimal(row[1]), *row[2:]) for row in rows]
    tables.write(rows, columns)
    tables.write(rows, columns, BATCHES[0])
    monitor_table(tables.output, tables.baseline, spark=spark)
    profile = {name: row for (_, name), row in tables.profile().items()}
    assert sorted(profile) == list("abcdef")
    assert profile["a"].avg == (date(2024, 5, 2) - date(1970, 1, 1)).days
    assert profile["b"].max == 3
    assert profile["c"].dbx_aml_bin_counts == [2, 1, 0, 0]
    assert profile["d"].min == now.timestamp()
    assert (profile["e"].num_nulls, profile["e"].dbx_aml_bin_counts) == (3, [])
    assert profile["f"].dbx_aml_bin_counts == [0, 3, 0]
    rows = tables.drift()
    assert rows[BATCHES[0], "e", "BASELINE"].population_stability_index is None
    assert rows[BATCHES[0], "f", "BASELINE"].population_stability_index == 0


def test_tables_and_arguments_that_cannot_be_used_are_named(spark, tables):
    with pytest.raises(TableNotFoundError, match="output_table must exist"):
        monitor_table("no_such_table", spark=spark)
    tables.write([(1.0,)], "y double")
    with pytest.raises(ArgumentError, match="must have the column _scoring"):
        monitor_table(tables.baseline, spark=spark)
    tables.write([(1.0,)], "x double", BATCHES[0])
    with pytest.raises(MonitoringError, match="must have columns of the output table"):
        monitor_table(tables.output, tables.baseline, spark=spark)
    with pytest.raises(TableNotFoundError, match="baseline must exist"):
        monitor_table(tables.output, "no_such_table", spark=spark)
    with pytest.raises(ArgumentError, match="time_column must be a column of dates or times"):
        monitor_table(tables.output, by="day", time_column="x", spark=spark)
    with pytest.raises(ArgumentError, match="threshold must be one of psi"):
        monitor_table(tables.output, thresholds={"chi": 1}, spark=spark)


def test_each_version_of_the_model_is_a_slice(spark, tables):
    tables.write([(1.0,), (3.0,)], "x double")
    tables.write([(1.0,), (3.0,)], "x double", BATCHES[0])
    tables.write([(0.0,)] * 2, "x double", BATCHES[1], version="1")
    tables.write([(9.0,)] * 6, "x double", BATCHES[1], version="2")
    monitor_table(tables.output, tables.baseline, spark=spark)
    rows = tables.read("profile", "column_name = 'x'")
    found = {(row.dbx_aml_window, row.slice_key, row.slice_value): row for row in rows}
    key = "_scoring.model_version"
    assert set(found) == {
        (BATCHES[0], None, None), (BATCHES[0], key, "1"),
        (BATCHES[1], None, None), (BATCHES[1], key, "1"), (BATCHES[1], key, "2"),
    }  # fmt: skip
    whole = found[BATCHES[1], None, None]
    assert (whole["count"], whole.avg, whole.stddev) == pytest.approx((8, 6.75, 4.166190))
    assert found[BATCHES[1], key, "2"].avg == 9
    rows = tables.read("drift", "slice_value IS NOT NULL AND column_name = 'x'")
    moved = {(row.dbx_aml_window, row.slice_value, row.drift_type): row.avg_delta for row in rows}
    assert moved == {
        (BATCHES[0], "1", "BASELINE"): 0,
        (BATCHES[1], "1", "BASELINE"): -2,
        (BATCHES[1], "1", "CONSECUTIVE"): -2,
        (BATCHES[1], "2", "BASELINE"): 7,
    }


@pytest.mark.parametrize(
    ("starts", "changed", "gone", "expected"),
    [
        ([1, 2, 3], {1, 2, 3}, set(), {1: None, 2: 1, 3: 2}),
        ([1, 2, 3], {3}, set(), {3: 2}),
        ([1, 2, 3], {1}, set(), {1: None, 2: 1}),
        ([1, 3, 4], set(), {2}, {3: 1}),
        ([3, 4], set(), {1, 2}, {3: None}),
        ([1, 2], set(), {3}, {}),
    ],
)
def test_the_window_after_a_changed_or_gone_one_is_compared_again(starts, changed, gone, expected):
    assert windows_to_compare(starts, changed, gone) == expected


def test_labels_that_come_later_fill_older_windows(spark, tables, tmp_path):
    columns = "id int, prediction double, _challenger struct<prediction: double>"
    tables.write([(number, float(number), (0.0,)) for number in range(4)], columns)
    rows = [(0, 1.0, (2.0,)), (1, 2.0, (4.0,)), (2, 4.0, (None,))]
    tables.write(rows, columns, BATCHES[0])
    facts = f"delta.`{tmp_path}/facts`"

    def add_labels(*rows):
        spark.createDataFrame(list(rows), "id int, fact double").write.format("delta").mode(
            "append"
        ).save(f"{tmp_path}/facts")

    def quality(batch, name=":table"):
        rows = tables.profile("column_name LIKE ':%' AND slice_key IS NULL")
        row = rows[batch, name]
        return row["count"], row.dbx_aml_labeled_rows, row.mean_average_error

    add_labels((0, 1.0), (1, 4.0), (77, 5.0))
    arguments = {"label": "fact", "label_table": facts, "key": "id", "spark": spark}
    result = monitor_table(tables.output, tables.baseline, **arguments)
    assert quality(BATCHES[0]) == (3, 2, 1.0)
    errors = result.quality, result.challenger_quality
    assert [error["mean_average_error"] for error in errors] == [1.0, 0.5]
    add_labels((2, 0.0))
    tables.write([(3, 8.0, (8.0,))], columns, BATCHES[1])
    result = monitor_table(tables.output, tables.baseline, **arguments)
    assert result.windows_computed == 1
    assert quality(BATCHES[0]) == (3, 3, 2.0)
    assert quality(BATCHES[1]) == (1, 0, None)
    # The challenger has not scored the row of the new label.
    assert quality(BATCHES[0], ":challenger") == (2, 2, 0.5)
    row = tables.profile("column_name = ':table' AND slice_value = '1'")[BATCHES[0], ":table"]
    assert row.root_mean_squared_error == pytest.approx((20 / 3) ** 0.5)
    assert row.mean_squared_error == pytest.approx(20 / 3)
    assert row.r2_score == pytest.approx(1 - 20 / (26 / 3))
    assert row.mean_absolute_percentage_error == pytest.approx(0.25)
    add_labels((1, 4.0), (0, 1.0), (0, 1.0))
    with pytest.raises(MonitoringError, match=r"got id 0 \(3 times\), 1 \(2 times\) in delta"):
        monitor_table(tables.output, tables.baseline, **arguments)


def test_errors_above_and_scores_below_their_threshold_are_alerts(spark, tables, few_rows):
    columns = "prediction double, fact double"
    tables.write([(1.0, 1.0)] * 20, columns)
    arguments = {"label": "fact", "spark": spark, "thresholds": {"rmse": 2, "r2": 0.5, "mape": 9}}
    tables.write([(float(n), float(n)) for n in range(10)], columns, BATCHES[0])
    result = monitor_table(tables.output, tables.baseline, **arguments)
    assert (result.alerts, result.quality["r2_score"]) == ([], 1)
    tables.write([(float(n), float(n) + 3) for n in range(10)], columns, BATCHES[1])
    # A window of few labels is not judged: the newest with enough labels is.
    tables.write([(0.0, 90.0)] * 3, columns, BATCHES[2])
    for computed in (2, 0):
        result = monitor_table(tables.output, tables.baseline, **arguments)
        assert result.windows_computed == computed
        alerts = {(a.threshold, a.column_name): (a.value, a.limit) for a in result.alerts}
        assert alerts == {
            ("rmse", ":table"): (3, 2),
            ("r2", ":table"): (pytest.approx(1 - 9 / 8.25), 0.5),
        }
        assert result.quality_window.microsecond == BATCHES[1] % 1_000_000
    with pytest.raises(ArgumentError, match="threshold rmse must go with labels"):
        monitor_table(tables.output, thresholds={"rmse": 2}, spark=spark)


def test_labels_of_the_scored_table_are_classes_where_they_are_texts(spark, tables):
    columns = "prediction string, label string"
    rows = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("a", None)]
    tables.write(rows, columns)
    tables.write(rows, columns, BATCHES[0])
    monitor_table(tables.output, tables.baseline, label="label", spark=spark)
    row = tables.profile("column_name = ':table' AND slice_key IS NULL")[BATCHES[0], ":table"]
    assert (row["count"], row.dbx_aml_labeled_rows, row.accuracy_score) == (5, 4, 0.75)
    assert row.precision.one_vs_all == {"a": 0.5, "b": 1.0}
    assert row.non_null_columns == ["prediction", "label"]
    assert [tuple(pair) for pair in row.confusion_matrix] == [
        ("a", "a", 1), ("a", "b", 1), ("b", "b", 2)
    ]  # fmt: skip


def test_labels_that_cannot_be_used_are_named(spark, tables):
    tables.write([(1, 1.0)], "id int, prediction double", BATCHES[0])
    with pytest.raises(ArgumentError, match="label_table and key must be given together"):
        monitor_table(tables.output, label="fact", label_table="facts", spark=spark)
    with pytest.raises(TableNotFoundError, match="label_table must exist"):
        monitor_table(tables.output, label="fact", label_table="none", key="id", spark=spark)
    with pytest.raises(ArgumentError, match="label must be a column"):
        monitor_table(tables.output, label="fact", spark=spark)


@pytest.mark.connect
def test_batches_of_scoring_are_windows_from_the_ledger(spark, tables, tmp_path):
    model = save_model(tmp_path, choosy_sum, XY)
    arguments = {"model_uri": model, "output_table": tables.output, "spark": spark}
    arguments["max_quarantined_rows"] = 1
    tables.write([(1.0, 2.0), (2.0, 3.0), (None, 3.0)], "x double, y double")
    only_bad = {**arguments, "row_filter": "x IS NULL", "max_quarantined_rows": "100%"}
    empty = score_table(input_table=tables.baseline, batch_id="0", **only_bad)
    first = score_table(input_table=tables.baseline, batch_id="1", **arguments)
    result = monitor_table(tables.output, tables.baseline, spark=spark)
    assert (result.windows, result.windows_computed, result.rows) == (2, 2, 2)
    rows = tables.profile("column_name LIKE ':%' AND slice_key IS NULL")
    assert rows[empty.batch, ":table"]["count"] == 0
    assert rows[empty.batch, ":quarantine"].dbx_aml_percent_quarantined == 100
    assert result.columns_without_baseline == ["prediction"]
    assert tables.profile()[first.batch, "prediction"].avg == 17.5
    row = tables.profile("column_name = ':quarantine'")[first.batch, ":quarantine"]
    assert (row["count"], row.dbx_aml_percent_quarantined) == (1, pytest.approx(100 / 3))
    assert [item["count"] for item in row.frequent_items] == [1]
    second = score_table(input_table=tables.baseline, batch_id="2", **arguments)
    limits = {"percent_quarantined": 30}
    result = monitor_table(tables.output, tables.baseline, thresholds=limits, spark=spark)
    assert (result.windows, result.windows_computed) == (3, 1)
    assert result.percent_quarantined == pytest.approx(100 / 3)
    (alert,) = result.alerts
    assert (alert.column_name, alert.threshold, alert.limit) == (
        ":quarantine", "percent_quarantined", 30
    )  # fmt: skip
    row = tables.drift()[second.batch, "prediction", "CONSECUTIVE"]
    assert (row.wasserstein_distance, row.window_cmp.start.microsecond) == (
        0,
        first.batch % 1_000_000,
    )
