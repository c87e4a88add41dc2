"""The windows of a table: their times, their rows in the quarantine, and deleted rows."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring import monitor_table, windows
from dbx_aml.monitoring.windows import TableWindows, Window, Windows
from dbx_aml.scoring.delta_table import Table

# 2024-05-01 00:00 in UTC, and later batches of the same day.
DAY = 1_714_521_600_000_000
BATCHES = [DAY + number for number in (1, 2, 3)]


def windows_of(kind, zone):
    spark = SimpleNamespace(conf={"spark.sql.session.timeZone": zone})
    return Windows(spark, None, kind)


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("UTC", 0), ("Z", 0), ("+05:30", 5.5), ("-08", -8), ("+5:30", 5.5), ("GMT+1", 1),
        ("UTC+01:00", 1), ("-13:33:36", -13.56), ("Europe/Berlin", 2),
    ],
)  # fmt: skip
def test_a_period_is_shown_in_every_time_zone_that_spark_takes(zone, hours):
    begin, end = windows_of("day", zone).period(DAY)
    assert begin == datetime(2024, 5, 1, tzinfo=UTC)
    assert begin.utcoffset() == timedelta(hours=hours)
    assert end - begin == timedelta(days=1)


def test_a_time_zone_that_is_no_region_is_named():
    with pytest.raises(ArgumentError, match=r"region or an offset: got 'PST'; set .*Los_Angeles"):
        windows_of("day", "PST").period(DAY)


def test_the_hour_that_comes_twice_ends_when_its_copy_begins():
    # At 01:00 UTC Berlin goes from 03:00 back to 02:00.
    start = datetime(2024, 10, 27, 0, tzinfo=UTC)
    hours = windows_of("hour", "Europe/Berlin")
    _, end = hours.period(int(start.timestamp()) * 1_000_000)
    assert end.astimezone(UTC) == start + timedelta(hours=1)


def test_a_window_without_rows_keeps_its_state(monkeypatch):
    """For example an hour of an endpoint whose requests have no rows."""
    monkeypatch.setattr(monitor_table, "profile_windows", lambda *arguments: {})
    run = monitor_table._MonitoringRun(None, Table("delay"), {}, lambda step: None)
    run._windows = SimpleNamespace(
        select=lambda windows: None,
        key=None,
        period=windows_of("hour", "UTC").period,
        quarantine_rows=lambda windows, counts: {},
    )
    run._granularity, run._slice_by = "1 hour", None
    (row,) = run._profile_rows([Window(start=DAY, state="1 files")])
    assert (row["dbx_aml_window"], row["column_name"], row["count"]) == (DAY, ":table", 0)
    assert row["dbx_aml_window_state"].startswith("1 files")


@pytest.fixture
def write(spark, tmp_path):
    """Append a batch to a table of this test, and return the table."""

    def append(name, struct, batch, *days):
        frame = spark.createDataFrame([(day,) for day in days], "day date")
        scoring = f"named_struct('batch', {batch}L, 'reason', 'x is null') AS {struct}"
        path = f"{tmp_path}/{name}"
        frame.selectExpr("*", scoring).coalesce(1).write.format("delta").mode("append").save(path)
        return f"delta.`{path}`"

    return append


@pytest.fixture
def ledger(monkeypatch, tmp_path):
    """The ledger of the table: each batch has scored three rows at its version."""
    facts = {"model_run_id": None, "quarantine_table": f"delta.`{tmp_path}/scored_quarantine`"}
    entries = [
        SimpleNamespace(
            facts=SimpleNamespace(batch=batch, **facts), output_version=version, rows_read=3,
            rows_scored=3, rows_quarantined=0,
        )
        for version, batch in enumerate(BATCHES)
    ]  # fmt: skip
    monkeypatch.setattr(windows.Ledger, "read", lambda self: entries[::-1])


@pytest.mark.spark
def test_a_batch_whose_rows_are_gone_is_no_window(spark, write, ledger):
    for batch in BATCHES:
        table = write("scored", "_scoring", batch, None)

    def starts():
        found = TableWindows(spark, Table(table), "batch", None).read()
        return [window.start for window in found]

    assert starts() == BATCHES
    spark.sql(f"DELETE FROM {table} WHERE _scoring.batch = {BATCHES[1]}").collect()
    assert starts() == [BATCHES[0], BATCHES[2]]


@pytest.mark.spark
def test_quarantined_rows_change_the_state_of_a_day_and_may_be_all_of_it(spark, write, ledger):
    table = write("scored", "_scoring", BATCHES[0], None, None)
    name = "scored_quarantine"
    # A table of this name that was dropped had this row, and left it in the quarantine.
    write(name, "_quarantine", BATCHES[0] - 1, None)

    def read():
        days = TableWindows(spark, Table(table), "day", None)
        found = days.read()
        counts = {window.start: 0 if window.is_empty else 2 for window in found}
        rows = days.quarantine_rows(found, counts)
        return [
            (w.start, w.state.partition(",")[0], rows[w.start]["dbx_aml_percent_quarantined"])
            for w in found
        ], [window.state for window in found]

    found, (state,) = read()
    assert found == [(DAY, "2 rows", 0)]
    write(name, "_quarantine", BATCHES[1], None, None)
    tomorrow = DAY + 86_400_000_000
    write(name, "_quarantine", tomorrow + 5, None)
    found, states = read()
    assert found == [(DAY, "2 rows", 50), (tomorrow, "0 rows", 100)]
    assert states[0] != state


@pytest.mark.spark
def test_a_wrong_time_in_the_quarantine_makes_no_window(spark, write, ledger):
    day = datetime(2024, 5, 1).date()
    # "Without an end" is no time: the sum with a day is none of Python's.
    table = write("scored", "_scoring", BATCHES[0], day, day, datetime(9999, 12, 31).date())
    write("scored_quarantine", "_quarantine", BATCHES[0], day, datetime(9999, 1, 1).date(), None)
    (window,) = TableWindows(spark, Table(table), "day", "day").read()
    assert (window.start, window.rows_quarantined) == (DAY, 1)
    (by_batch,) = TableWindows(spark, Table(table), "day", None).read()
    assert by_batch.start == window.start
    assert by_batch.state != window.state
