"""Jobs that are killed, run twice at once or out of disk leave the tables of one clean run."""

import logging
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from functools import partial

import pytest

from dbx_aml import score_table
from dbx_aml._common.errors import ScoringError
from tests.support.job import BEFORE_QUARANTINE, BEFORE_STREAM_COMMIT
from tests.support.job_process import JobProcess
from tests.support.models import XY, choosy_sum, save_model

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

# Rows that the model fails on, by id: those without x or with a negative one.
FAILING_ROWS = {
    17: (None, "ValueError: x contains NaN"),
    1234: (-1.0, "ValueError: x is negative"),
    3999: (None, "ValueError: x contains NaN"),
    5005: (-1.0, "ValueError: x is negative"),
}
SCHEMA = "id bigint, month int, x double, y double"


def make_row(row_id, y=None):
    x = FAILING_ROWS[row_id][0] if row_id in FAILING_ROWS else float(row_id)
    return (row_id, 10 + row_id % 2, x, float(row_id % 7 if y is None else y))


ROWS = [make_row(row_id) for row_id in range(4000)]
# Rows that the input gains between a kill and the restart.
NEW_ROWS = [make_row(row_id) for row_id in range(5000, 5200)]
# Rows of an earlier batch in the output, with other values for some ids.
EARLIER_ROWS = [make_row(row_id, y=50) for row_id in range(3900, 4100)]


def scored_rows(rows):
    """Return the output rows of input rows, without `_scoring`."""
    return [(i, month, x, y, x * 10 + y) for i, month, x, y in rows if i not in FAILING_ROWS]


def quarantined_rows(rows):
    return [(*row, FAILING_ROWS[row[0]][1]) for row in rows if row[0] in FAILING_ROWS]


def tables_of_batch(rows, batch_id, model="-", version=None, input_version=0):
    """Return the content of both tables for one batch, in the form of `read_tables`."""
    return [
        Counter((*row, model, version, input_version, batch_id) for row in scored_rows(rows)),
        Counter((*row, model, input_version, batch_id) for row in quarantined_rows(rows)),
    ]


def add_tables(*batches):
    return [sum(tables, Counter()) for tables in zip(*batches, strict=True)]


def read_tables(spark, output, quarantine=None, whole_batch_id=None):
    """Read every row of both tables, without the time and the stream's id, which always differ.

    `whole_batch_id` stands for the id of a batch that is no batch of a stream.
    """
    batch_id = "regexp_replace(batch_id, '^.*/', 'stream/')"
    if whole_batch_id:
        batch_id = f"IF(batch_id LIKE '%/%', {batch_id}, '{whole_batch_id}')"
    batch_id += " AS batch_id"
    ledger = spark.read.format("delta").load(f"{output}_batches")
    facts = ledger.selectExpr(
        "batch", "model_uri", "model_version", "input_version_to AS input_version", batch_id
    )
    scored = spark.read.format("delta").load(str(output)).select("*", "_scoring.batch")
    columns = ["prediction", "model_uri", "model_version", "input_version", "batch_id"]
    quarantine = spark.read.format("delta").load(str(quarantine or f"{output}_quarantine"))
    reasons = ["reason", "model_uri", "input_version", batch_id]
    return [
        Counter(tuple(row) for row in frame.collect())
        for frame in (
            scored.join(facts, "batch", "left").select("id", "month", "x", "y", *columns),
            quarantine.select("*", "_quarantine.*").selectExpr("id", "month", "x", "y", *reasons),
        )
    ]


def assert_same_tables(actual_tables, expected_tables, description):
    """Compare tables row by row, each as often as it occurs; show the first rows that differ."""
    for table, actual_rows, expected_rows in zip(
        ("output", "quarantine"), actual_tables, expected_tables, strict=True
    ):
        missing = list((expected_rows - actual_rows).elements())
        extra = list((actual_rows - expected_rows).elements())
        message = (description, table, len(missing), missing[:3], len(extra), extra[:3])
        assert not missing, message
        assert not extra, message


def assert_counts(result, status, rows, description):
    counts = (result["status"], result["rows_scored"], result["rows_quarantined"])
    expected = (status, len(scored_rows(rows)), len(quarantined_rows(rows)))
    assert counts == expected, description


def write_rows(spark, rows, path, mode="error", files=1):
    frame = spark.createDataFrame(rows, SCHEMA).repartition(files)
    writer = frame.write.format("delta").option("delta.enableChangeDataFeed", "true")
    writer.mode(mode).save(str(path))


def delta(path):
    return f"delta.`{path}`"


def save_slow_model(folder, factor=10):
    def predict_slowly(rows):
        time.sleep(0.005)  # a kill has a chance to come while the model runs
        return choosy_sum(rows) + (factor - 10) * rows["x"]

    return save_model(folder, predict_slowly, XY)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_slow_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def input_path(spark, tmp_path_factory):
    """The input of every job: 4,000 rows in 8 files; the model fails on 3 of them."""
    path = tmp_path_factory.mktemp("input") / "rows"
    write_rows(spark, ROWS, path, files=8)
    return path


@pytest.fixture(scope="module")
def earlier_output(spark, model, tmp_path_factory):
    """An output and its quarantine with the rows of an earlier batch."""
    folder = tmp_path_factory.mktemp("earlier")
    write_rows(spark, EARLIER_ROWS, folder / "rows")
    score_table(
        model_uri=model,
        input_table=delta(folder / "rows"),
        output_table=delta(folder / "output"),
        batch_id="earlier",
        spark=spark,
    )
    return folder / "output"


JOBS = {
    "append": {},
    "merge": {"write_mode": "merge", "key_columns": ["id"]},
    "replace": {
        "write_mode": "replace",
        "replace_where": "month = 11",
        "row_filter": "month = 11",
    },
    "incremental": {"write_mode": "incremental"},
    "follow": {"write_mode": "follow", "key_columns": ["id"]},
    "named": {},
}
# These jobs write into the tables of the earlier batch; the others create their tables.
JOBS_WITH_EARLIER_ROWS = ("append", "merge", "replace")


def make_jobs(root, model, input_path, earlier_output):
    """Return a job for each way to write, and copy the earlier batch's tables for them."""
    for name in JOBS_WITH_EARLIER_ROWS:
        shutil.copytree(earlier_output, root / name)
        for suffix in ("quarantine", "batches"):
            shutil.copytree(f"{earlier_output}_{suffix}", root / f"{name}_{suffix}")
    return {
        name: {
            "model_uri": str(model),
            "input_table": delta(input_path),
            "output_table": "named" if name == "named" else delta(root / name),
            **arguments,
        }
        for name, arguments in JOBS.items()
    }


def input_rows(job_name):
    """Return the input rows that a job scores."""
    return [row for row in ROWS if row[1] == 11] if job_name == "replace" else ROWS


def expected_tables(job_name, earlier_model, batch_id, model, version=None):
    """Return both tables after a job: its batch, and the remaining rows of the earlier batch."""
    remaining_rows = {
        "append": EARLIER_ROWS,
        "merge": [row for row in EARLIER_ROWS if row[0] >= len(ROWS)],
        "replace": [row for row in EARLIER_ROWS if row[1] == 10],
    }
    earlier = tables_of_batch(remaining_rows.get(job_name, []), "earlier", earlier_model)
    if job_name in remaining_rows:
        # No job deletes rows of the quarantine.
        earlier[1] = tables_of_batch(EARLIER_ROWS, "earlier", earlier_model)[1]
    return add_tables(earlier, tables_of_batch(input_rows(job_name), batch_id, model, version))


class Nights:
    """Runs the same jobs in the same folder again and again, so that batch ids are the same."""

    def __init__(self, spark, folder, model, input_path, earlier_output):
        self._spark = spark
        self._sources = (model, input_path, earlier_output)
        self._model = model
        self.root = folder / "night"

    def make_jobs(self):
        self.root.mkdir()
        return make_jobs(self.root, *self._sources)

    def check_tables(self, results, description):
        """Compare all tables with the expected ones, after the folder was renamed.

        The session of the tests would take a new table in an old place for the old one.
        """
        renamed = self.root.with_name(f"night_{time.time_ns()}")
        self.root.rename(renamed)
        for name, result in results.items():
            is_stream = result["write_mode"] == "incremental"
            batch_id = "stream/0" if is_stream else result["batch_id"]
            expected = expected_tables(name, self._model, batch_id, self._model)
            path = renamed / ("warehouse/named" if name == "named" else name)
            assert_same_tables(read_tables(self._spark, path), expected, f"{name}, {description}")
        shutil.rmtree(renamed)


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory, model, input_path, earlier_output):
    return Nights(spark, tmp_path_factory.mktemp("nights"), model, input_path, earlier_output)


def stable_batch_ids(results):
    """Return the batch ids that depend on the arguments only; a stream's id does not."""
    return {
        name: result["batch_id"]
        for name, result in results.items()
        if result["write_mode"] != "incremental"
    }


def kill_jobs(nights, jobs, seconds, span, spans):
    """Start jobs, kill them in one of equal spans of a clean run, and describe the kill.

    Args:
        nights: Nights of the jobs.
        jobs: Jobs by name.
        seconds: Seconds of a clean run.
        span: Number of the span.
        spans: Number of spans.
    """
    seed = int(os.environ.get("DBX_AML_KILL_SEED", time.time_ns() % 10**6))
    with JobProcess(nights.root, jobs) as process:
        process.wait_for("up")
        moment = seconds * (span + random.Random(seed + span).random()) / spans
        time.sleep(moment)
        process.kill()
    description = (
        f"DBX_AML_KILL_SEED={seed}, killed {moment:.2f} s of {seconds:.2f} s after the start, "
        f"finished jobs: {[*process.results()]}"
    )
    log.warning(description)
    return description


@pytest.fixture(scope="module")
def clean_run(nights):
    """The seconds of a clean run, and its batch ids."""
    jobs = nights.make_jobs()
    with JobProcess(nights.root, jobs) as process:
        process.wait_for("up")
        start_time = time.monotonic()
        assert process.wait_for_exit() == 0, process.output()
        seconds = time.monotonic() - start_time
    results = process.results()
    for name in jobs:
        assert_counts(results[name], "scored", input_rows(name), name)
    nights.check_tables(results, "clean run")
    return seconds, stable_batch_ids(results)


@pytest.mark.nightly
@pytest.mark.parametrize("span", range(20))
def test_jobs_killed_in_each_twentieth_of_their_time_leave_the_tables_of_a_clean_run(
    nights, clean_run, span
):
    """The jobs start again in a new process."""
    seconds, batch_ids = clean_run
    jobs = nights.make_jobs()
    description = kill_jobs(nights, jobs, seconds, span, 20)
    with JobProcess(nights.root, jobs) as process:
        assert process.wait_for_exit() == 0, (description, process.output())
    results = process.results()
    assert stable_batch_ids(results) == batch_ids, description
    assert sorted(results) == sorted(jobs), description
    nights.check_tables(results, description)


@pytest.fixture
def set_alias(mlflow_store, tmp_path):
    """Register two versions, the first with the alias; return a function that moves the alias."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model("sum")
    for factor in (10, 20):
        client.create_model_version("sum", save_slow_model(tmp_path, factor))
    client.set_registered_model_alias("sum", "champion", "1")
    return partial(client.set_registered_model_alias, "sum", "champion")


def test_a_job_killed_between_its_two_commits_is_completed_with_its_first_model_and_rows(
    spark, tmp_path, model, earlier_output, set_alias, mlflow_store
):
    """The alias moves and the input gains rows between the kill and the restart."""
    write_rows(spark, ROWS, tmp_path / "rows", files=8)
    jobs = make_jobs(tmp_path, "models:/sum@champion", tmp_path / "rows", earlier_output)
    del jobs["named"]  # only the killed process has a table of that name
    jobs["stream"] = {**jobs["incremental"], "output_table": delta(tmp_path / "stream")}
    for name, arguments in jobs.items():
        arguments.update(tracking_uri=mlflow_store, registry_uri=mlflow_store)
        if name in JOBS_WITH_EARLIER_ROWS:
            arguments["batch_id"] = "night"
    stops = {**dict.fromkeys(jobs, BEFORE_QUARANTINE), "stream": BEFORE_STREAM_COMMIT}
    with JobProcess(tmp_path, jobs, stops=stops) as process:
        for name in jobs:
            process.wait_for("at", name)
    write_rows(spark, NEW_ROWS, tmp_path / "rows", mode="append")
    set_alias("2")

    results = {name: score_table(**arguments, spark=spark) for name, arguments in jobs.items()}

    for name in JOBS_WITH_EARLIER_ROWS:
        assert_counts(results[name].to_dict(), "scored", input_rows(name), name)
        assert results[name].model_version == "1"
        expected = expected_tables(name, model, "night", "models:/sum/1", "1")
        assert_same_tables(read_tables(spark, tmp_path / name), expected, name)
    second = tables_of_batch(NEW_ROWS, "stream/1", "models:/sum/2", "2", 1)
    # Version 2 predicts 20 x + y.
    second[0] = Counter((*row[:4], row[4] + 10 * row[2], *row[5:]) for row in second[0])
    expected = add_tables(tables_of_batch(ROWS, "stream/0", "models:/sum/1", "1"), second)
    for name, rows, batches in (("incremental", ROWS + NEW_ROWS, "0-1"), ("stream", NEW_ROWS, "1")):
        assert_counts(results[name].to_dict(), "scored", rows, name)
        assert results[name].model_version == "2"
        assert results[name].batch_id.partition("/")[2] == batches
        assert_same_tables(read_tables(spark, tmp_path / name), expected, name)
    assert_counts(results["follow"].to_dict(), "scored", ROWS + NEW_ROWS, "follow")
    first = tables_of_batch(ROWS, "all rows", "models:/sum/1", "1")
    second = [Counter({(*row[:-1], "stream/0"): 1 for row in table}) for table in second]
    followed = read_tables(spark, tmp_path / "follow", whole_batch_id="all rows")
    assert_same_tables(followed, add_tables(first, second), "follow")


def run_twice_at_once(nights, names):
    """Run the same jobs in two processes at once; return both processes and their exit codes.

    The first process's job "held" stops in the middle of its micro-batch until the second
    process's job on the same checkpoint is over. The other jobs start at the same moment in both.
    """
    jobs = nights.make_jobs()
    jobs = {name: jobs[name] for name in names}
    jobs["held"] = {**jobs["incremental"], "output_table": delta(nights.root / "held")}
    with (
        JobProcess(nights.root, jobs, waits=names, stops={"held": BEFORE_QUARANTINE}) as first,
        JobProcess(nights.root, jobs, waits=list(jobs)) as second,
    ):
        first.wait_for("at", "held")
        second.wait_for("up")
        second.resume("held")
        second.wait_for("over", "held")
        first.resume("held")
        for name in names:
            first.resume(name)
            second.resume(name)
        exit_codes = [first.wait_for_exit(), second.wait_for_exit()]
    return first, second, exit_codes


@pytest.mark.parametrize(
    "names",
    [
        ["append", "incremental"],
        pytest.param([*JOBS], marks=pytest.mark.nightly),
    ],
    ids=["two jobs", "all jobs"],
)
def test_two_equal_jobs_at_once_leave_one_set_of_rows(nights, names):
    """Each job succeeds or ends with one clear line; of two equal jobs at least one succeeds."""
    first, second, exit_codes = run_twice_at_once(nights, names)
    for process, code in zip((first, second), exit_codes, strict=True):
        assert code == (1 if process.failures() else 0), process.output()
    description = f"failed: {first.failures()}, {second.failures()}"
    log.warning(description)
    results = {**first.results(), **second.results()}
    assert set(results) == {*names, "held"}, description
    for line in (*first.failures().values(), *second.failures().values()):
        assert re.match("(table|batch|checkpoint_location) must be ", line), description
    assert re.fullmatch(
        r"checkpoint_location must be used by one job at a time: got '\S+/held_checkpoint', "
        "which another job is using; wait for it to end",
        first.failures()["held"],
    )
    assert_counts(second.results()["held"], "scored", ROWS, "held")
    nights.check_tables(results, description)


@pytest.mark.parametrize(
    "master",
    ["local[2,4]", pytest.param("local-cluster[2,1,1024]", marks=pytest.mark.nightly)],
)
def test_a_worker_that_dies_once_loses_no_row_and_doubles_none(spark, tmp_path, input_path, master):
    death_mark = tmp_path / "died"

    def die_once(rows):
        if (rows["x"] == 2345).any():
            try:
                os.close(os.open(death_mark, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), 9)
            except FileExistsError:
                pass
        return choosy_sum(rows)

    arguments = {
        "model_uri": save_model(tmp_path, die_once, XY),
        "input_table": delta(input_path),
        "output_table": delta(tmp_path / "output"),
        "batch_id": "once",
    }
    with JobProcess(tmp_path, {"job": arguments}, master=master) as process:
        assert process.wait_for_exit() == 0, process.output()
    assert death_mark.exists()
    assert_counts(process.results()["job"], "scored", ROWS, master)
    expected = tables_of_batch(ROWS, "once", arguments["model_uri"])
    assert_same_tables(read_tables(spark, tmp_path / "output"), expected, master)


def test_one_failing_row_of_ten_thousand_is_quarantined_and_the_others_are_exact(
    spark, tmp_path, model
):
    rows = [(i, 1, float(i), float(i % 7)) for i in range(10_000)]
    rows[6789] = (6789, 1, None, 6.0)
    write_rows(spark, rows, tmp_path / "rows", files=3)
    result = score_table(
        model_uri=model,
        input_table=delta(tmp_path / "rows"),
        output_table=delta(tmp_path / "output"),
        max_quarantined_rows=1,
        batch_id="ten",
        spark=spark,
    )
    assert (result.rows_scored, result.rows_quarantined) == (9_999, 1)
    scored = [
        (i, 1, x, y, x * 10 + y, model, None, 0, "ten") for i, _, x, y in rows if x is not None
    ]
    quarantined = [(6789, 1, None, 6.0, "ValueError: x contains NaN", model, 0, "ten")]
    actual = read_tables(spark, tmp_path / "output")
    assert_same_tables(actual, [Counter(scored), Counter(quarantined)], "ten thousand")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as err:
        pytest.skip(f"no small disk can be mounted: {err}")
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "full",
    [
        "output",
        pytest.param("quarantine", marks=pytest.mark.nightly),
        pytest.param("checkpoint", marks=pytest.mark.nightly),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_job_completes_when_the_disk_has_room(
    spark, tmp_path, small_disk, model, input_path, full
):
    paths = {name: tmp_path / name for name in ("output", "quarantine", "checkpoint")}
    paths[full] = small_disk / full
    arguments = {
        "model_uri": model,
        "input_table": delta(input_path),
        "output_table": delta(paths["output"]),
        "quarantine_table": delta(paths["quarantine"]),
    }
    if full == "checkpoint":
        arguments["write_mode"] = "incremental"
        arguments["checkpoint_location"] = str(paths["checkpoint"])
    # For the output, the disk gets full in the middle of its files; the others cannot start.
    free_bytes = 24 << 10 if full == "output" else 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - free_bytes))

    with pytest.raises(ScoringError) as error:
        score_table(**arguments, spark=spark)

    line = str(error.value)
    assert "No space left on device" in line
    assert "\n" not in line
    assert str(paths[full]) in line or full == "checkpoint"
    assert list((paths[full] / "_delta_log").glob("*.json")) == []
    ballast.unlink()
    result = score_table(**arguments, spark=spark)
    assert_counts(result.to_dict(), "scored", ROWS, full)
    batch_id = "stream/0" if full == "checkpoint" else result.batch_id
    expected = tables_of_batch(ROWS, batch_id, model)
    assert_same_tables(read_tables(spark, paths["output"], paths["quarantine"]), expected, full)
