"""Streams: they read the input at an interval until a signal stops them between two batches."""

import os
import signal
import time

import psutil
import pytest

from dbx_aml import score_table
from dbx_aml._common.errors import ArgumentError, ScoringError, TooManyQuarantinedRowsError
from dbx_aml.scoring.auto_loader import auto_loader_options
from dbx_aml.scoring.delta_table import Table

SCHEMA = "id int, x double, y double"
MODES = {"incremental": {}, "follow": {"key_columns": "id"}}


@pytest.fixture
def numbers(spark, delta_table):
    """A table with a change feed and two rows, and a function that adds rows to it."""
    rows = spark.createDataFrame([(1, 1.0, 1.0), (2, -2.0, 2.0)], SCHEMA)
    table = delta_table(rows, **{"delta.enableChangeDataFeed": "true"})

    def add(*rows):
        values = ", ".join(f"({row_id}, {x}, 0)" for row_id, x in rows)
        spark.sql(f"INSERT INTO {table} VALUES {values}").collect()

    return table, add


@pytest.fixture
def stream(score, choosy_model, numbers):
    """Score the numbers every second; functions are called when the stream reports their step."""

    def call(mode, actions, **arguments):
        def act(step, done, total):
            for prefix in [prefix for prefix in actions if step.startswith(prefix)]:
                actions.pop(prefix)()

        defaults = {"max_quarantined_rows": "60%", "trigger": "1 second", "progress": act}
        merged = {**defaults, **MODES[mode], **arguments}
        return score(choosy_model, numbers[0], write_mode=mode, **merged)

    return call


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "number"), [("incremental", signal.SIGINT), ("follow", signal.SIGTERM)]
)
def test_a_signal_in_the_middle_of_a_batch_stops_the_stream_after_that_batch(
    spark, numbers, stream, output_table, mode, number
):
    _, add = numbers
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    steps = []

    def stop_in_the_next_batch():
        add((3, 3.0))
        steps.append("added")
        actions["scoring"] = send(number)

    # The first batch of `follow` is no batch of its stream.
    first = {"incremental": "batch 0: 2 rows", "follow": "waiting for new rows"}[mode]
    actions = {first: stop_in_the_next_batch}
    result = stream(mode, actions)
    assert steps == ["added"]
    assert (result.status, result.rows_read, result.rows_scored) == ("stopped", 3, 2)
    output = f"SELECT id, prediction FROM {output_table} ORDER BY id"
    rows = [tuple(row) for row in spark.sql(output).collect()]
    assert rows == [(1, 11.0), (3, 30.0)]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert stream(mode, {}, trigger="available-now").status == "no_new_rows"


@pytest.mark.spark
@pytest.mark.slow
def test_each_batch_of_a_stream_says_how_far_the_input_is_ahead(numbers, stream):
    _, add = numbers
    steps = []

    def note(step, done, total):
        if total:
            return
        if step == "scoring" and not steps:
            steps.append(step)
            add((3, 3.0))
        elif step.startswith("batch"):
            steps.append(step)
            if "1 row," in step:
                os.kill(os.getpid(), signal.SIGTERM)

    stream("incremental", {}, progress=note)
    assert [step.partition(",")[0] for step in steps[1:]] == ["batch 0: 2 rows", "batch 1: 1 row"]
    assert [step.rpartition(", ")[2] for step in steps[1:]] == [
        "1 version behind", "0 versions behind"
    ]  # fmt: skip


@pytest.mark.spark
@pytest.mark.slow
def test_an_endless_stream_ends_when_too_many_rows_are_quarantined(numbers, stream):
    _, add = numbers
    actions = {"batch 0:": lambda: add((3, -3.0), (4, 4.0))}
    with pytest.raises(TooManyQuarantinedRowsError, match="at most 1: got 2 of 4"):
        stream("incremental", actions, max_quarantined_rows=1)
    with pytest.raises(TooManyQuarantinedRowsError, match="at most 1: got 2 of 4"):
        stream("incremental", {}, max_quarantined_rows=1, trigger="available-now")


@pytest.mark.spark
@pytest.mark.slow
def test_a_batch_of_quarantined_rows_alone_does_not_end_a_stream(spark, numbers, stream):
    _, add = numbers
    actions = {
        "batch 0:": lambda: add((3, -3.0)),
        "batch 1: 1 row": lambda: add((4, 4.0)),
        "batch 2:": send(signal.SIGTERM),
    }
    result = stream("incremental", actions)
    assert (result.status, result.rows_read, result.rows_quarantined) == ("stopped", 4, 2)
    add((5, -5.0))
    # Nor where an earlier run has scored rows.
    result = stream("incremental", {"batch 3: 1 row": send(signal.SIGTERM)}, max_quarantined_rows=1)
    assert (result.status, result.rows_quarantined) == ("stopped", 1)


def test_an_interval_is_refused_where_it_cannot_work(monkeypatch):
    names = {"model_uri": "models:/m/1", "input_table": "t", "output_table": "o"}
    interval = {**names, "trigger": "30 seconds"}
    with pytest.raises(ArgumentError) as error:
        score_table(**interval)
    assert str(error.value) == (
        "trigger must be 'available-now' for write_mode 'append': got an interval of 30 s; leave "
        "it out, or use write_mode 'incremental' or 'follow'"
    )
    monkeypatch.setenv("DATABRICKS_ENV_VERSION", "4")
    with pytest.raises(ArgumentError) as error:
        score_table(**interval, write_mode="incremental")
    assert str(error.value) == (
        "trigger must be 'available-now' on serverless compute: got an interval of 30 s; start "
        "available-now runs again and again, as the job score_stream of the bundle does"
    )


@pytest.mark.spark
@pytest.mark.slow
def test_files_are_read_by_auto_loader_on_databricks_only(
    spark, tmp_path, score, choosy_model, monkeypatch
):
    spark.createDataFrame([(1, 1.0, 1.0)], SCHEMA).write.json(f"{tmp_path}/files")
    files = f"json.`{tmp_path}/files`"
    with pytest.raises(ScoringError, match="or Databricks, where Auto Loader reads new files"):
        score(choosy_model, files, write_mode="incremental")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    # The local Spark has no Auto Loader.
    with pytest.raises(ScoringError, match="cloudFiles"):
        score(choosy_model, files, write_mode="incremental")
    assert auto_loader_options(Table(files)) == {"cloudFiles.format": "json"}


@pytest.mark.spark
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["incremental", "follow"])
def test_the_memory_of_a_stream_of_five_minutes_does_not_grow(spark, numbers, stream, mode):
    """Python's memory, and the objects that Java still uses, from the second minute to the last.

    The first minute fills the caches of Spark and Delta.
    """
    _, add = numbers
    start_time = time.monotonic()
    used = []

    def measure():
        for _ in range(3):
            spark._jvm.System.gc()
        runtime = spark._jvm.Runtime.getRuntime()
        java_bytes = runtime.totalMemory() - runtime.freeMemory()
        used.append((psutil.Process().memory_info().rss >> 20, java_bytes >> 20))

    def note(step, done, total):
        # The first batch of `follow` is no batch of its stream.
        if total or not step.startswith(("batch", "reading", "waiting")):
            return
        seconds = time.monotonic() - start_time
        if seconds > 60 * (len(used) + 1):
            measure()
        if seconds > 310:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            add((int(seconds * 1000) + 10, 1.0))

    result = stream(mode, {}, progress=note)
    assert result.rows_read > 20
    growth = [last - first for first, last in zip(used[1], used[-1], strict=True)]
    assert max(growth) < 40, used
