"""Jobs that are killed, raced and starved leave both tables as one clean run does."""

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
from tests.support.job_process import JobProcess
from tests.support.models import XY, choosy_sum, save_model

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

# Bad for the model: no x, or a negative one.
BAD = {
    17: (None, "ValueError: x contains NaN"),
    1234: (-1.0, "ValueError: x is negative"),
    3999: (None, "ValueError: x contains NaN"),
    5005: (-1.0, "ValueError: x is negative"),
}
SCHEMA = "id bigint, month int, x double, y double"


def row(i, y=None):
    return (i, 10 + i % 2, BAD[i][0] if i in BAD else float(i), float(i % 7 if y is None else y))


# The input, what it grows by between a kill and the restart, and what outputs held before.
ROWS = [row(i) for i in range(4000)]
NEW_ROWS = [row(i) for i in range(5000, 5200)]
EARLIER_ROWS = [row(i, y=50) for i in range(3900, 4100)]


def scored(rows):
    """What the output must hold of these rows, without `_scoring`."""
    return [(i, month, x, y, x * 10 + y) for i, month, x, y in rows if i not in BAD]


def set_aside(rows):
    return [(*one, BAD[one[0]][1]) for one in rows if one[0] in BAD]


def stamped(rows, batch_id, model="-", version=None, input_version=0):
    """Both tables of these rows, with where each came from, as `contents` has them."""
    return [
        Counter((*one, model, version, input_version, batch_id) for one in scored(rows)),
        Counter((*one, model, input_version, batch_id) for one in set_aside(rows)),
    ]


def together(*parts):
    return [sum(tables, Counter()) for tables in zip(*parts, strict=True)]


def contents(spark, output, quarantine=None):
    """Every row of an output and of its quarantine but for what no two runs share.

    That is the time, and the stream's own id in the batch id.
    """
    both = []
    for path, name, rest in (
        (output, "_scoring", ["prediction", "_scoring.model_uri", "_scoring.model_version"]),
        (
            quarantine or f"{output}_quarantine",
            "_quarantine",
            ["_quarantine.reason", "_quarantine.model_uri"],
        ),
    ):
        batch_id = f"regexp_replace({name}.batch_id, '^.*/', 'stream/')"
        columns = ["id", "month", "x", "y", *rest, f"{name}.input_version", batch_id]
        frame = spark.read.format("delta").load(str(path)).selectExpr(*columns)
        both.append(Counter(tuple(one) for one in frame.collect()))
    return both


def assert_same(actual, expected, what):
    """Compare tables row by row, each as often as it is there, and show the first that differ."""
    for table, have, want in zip(("output", "quarantine"), actual, expected, strict=True):
        missing, extra = list((want - have).elements()), list((have - want).elements())
        shown = (what, table, len(missing), missing[:3], len(extra), extra[:3])
        assert not missing, shown
        assert not extra, shown


def assert_counts(result, status, rows, what):
    counts = (result["status"], result["rows_scored"], result["rows_quarantined"])
    assert counts == (status, len(scored(rows)), len(set_aside(rows))), what


def write(spark, rows, path, mode="error", files=1):
    frame = spark.createDataFrame(rows, SCHEMA).repartition(files)
    frame.write.format("delta").mode(mode).save(str(path))


def delta(path):
    return f"delta.`{path}`"


def save_slow_model(folder, factor=10):
    def slow(rows):
        time.sleep(0.005)
        return choosy_sum(rows) + (factor - 10) * rows["x"]

    return save_model(folder, slow, XY)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_slow_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def table(spark, tmp_path_factory):
    """The input of every job: 4,000 rows in 8 files, 3 of them bad."""
    path = tmp_path_factory.mktemp("input") / "rows"
    write(spark, ROWS, path, files=8)
    return path


@pytest.fixture(scope="module")
def earlier(spark, model, tmp_path_factory):
    """An output, and its quarantine, with rows of an earlier batch: other values for some ids."""
    folder = tmp_path_factory.mktemp("earlier")
    write(spark, EARLIER_ROWS, folder / "rows")
    score_table(
        model_uri=model,
        input_table=delta(folder / "rows"),
        output_table=delta(folder / "output"),
        batch_id="earlier",
        spark=spark,
    )
    return folder / "output"


MODES = {
    "append": {},
    "merge": {"write_mode": "merge", "key_columns": ["id"]},
    "replace": {
        "write_mode": "replace",
        "replace_where": "month = 11",
        "row_filter": "month = 11",
    },
    "incremental": {"write_mode": "incremental"},
    "named": {},
}
# These write over the rows of an earlier batch, the others make their tables.
OVER_EARLIER = ("append", "merge", "replace")


@pytest.fixture(scope="module")
def chaos(request):
    """Whether the long version is asked for."""
    return request.config.getoption("--chaos")


def make_jobs(root, model, table, earlier):
    """Return a job for each way to write, and put what its output held before in its place."""
    for name in OVER_EARLIER:
        shutil.copytree(earlier, root / name)
        shutil.copytree(f"{earlier}_quarantine", root / f"{name}_quarantine")
    return {
        name: {
            "model_uri": str(model),
            "input_table": delta(table),
            "output_table": "named" if name == "named" else delta(root / name),
            **arguments,
        }
        for name, arguments in MODES.items()
    }


def rows_of(name):
    """The input rows that a job scores."""
    return [one for one in ROWS if one[1] == 11] if name == "replace" else ROWS


def expected(name, earlier_model, batch_id, model, version=None):
    """Both tables after a job: what it wrote, and what it left of the rows before."""
    kept = {
        "append": EARLIER_ROWS,
        "merge": [one for one in EARLIER_ROWS if one[0] >= len(ROWS)],
        "replace": [one for one in EARLIER_ROWS if one[1] == 10],
    }
    before = stamped(kept.get(name, []), "earlier", earlier_model)
    if name in kept:
        # No job takes anything out of the quarantine.
        before[1] = stamped(EARLIER_ROWS, "earlier", earlier_model)[1]
    return together(before, stamped(rows_of(name), batch_id, model, version))


# How much longer the jobs of the short version take than Spark's start does, about.
_JOBS_PER_START = 9


class Nights:
    """Runs the same jobs in the same folder again and again, so that batch ids are the same."""

    def __init__(self, spark, base, model, table, earlier):
        self._spark = spark
        self._of = (model, table, earlier)
        self._model = model
        self.root = base / "night"

    def make(self):
        self.root.mkdir()
        return make_jobs(self.root, *self._of)

    def check(self, results, about):
        """Compare every table with what must be in it, and move the folder out of the way.

        Before, because the session of the tests would take a new table in an old place for
        the old one.
        """
        kept = self.root.with_name(f"night_{time.time_ns()}")
        self.root.rename(kept)
        for name, result in results.items():
            stream = result["write_mode"] == "incremental"
            known = expected(
                name, self._model, "stream/0" if stream else result["batch_id"], self._model
            )
            actual = contents(self._spark, kept / ("warehouse/named" if name == "named" else name))
            assert_same(actual, known, f"{name}, {about}")
        shutil.rmtree(kept)


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory, model, table, earlier):
    return Nights(spark, tmp_path_factory.mktemp("nights"), model, table, earlier)


@pytest.fixture(scope="module")
def clean(nights, chaos):
    """Seconds of a clean run, from Spark being up to the end, and its batch ids.

    None in the short version, which has no time for one.
    """
    if not chaos:
        return None
    jobs = nights.make()
    with JobProcess(nights.root, jobs) as process:
        process.wait_for("up")
        started = time.monotonic()
        assert process.wait_for_exit() == 0, process.output()
        seconds = time.monotonic() - started
    results = process.results()
    for name in jobs:
        assert_counts(results[name], "scored", rows_of(name), name)
    nights.check(results, "clean")
    return seconds, batch_ids_of(results)


def batch_ids_of(results):
    """The ids that depend on nothing but the arguments: not the stream's."""
    return {
        name: result["batch_id"]
        for name, result in results.items()
        if result["write_mode"] != "incremental"
    }


def pytest_generate_tests(metafunc):
    if "kill" in metafunc.fixturenames:
        kills = 20 if metafunc.config.getoption("--chaos") else 1
        metafunc.parametrize("kill", [(i, kills) for i in range(kills)], ids=lambda k: f"{k[0]}")


def test_jobs_killed_at_any_moment_and_started_again_leave_what_a_clean_run_leaves(
    spark, nights, clean, kill
):
    """Driver, Java and Python's workers are killed, and with them a job of each kind.

    The short version starts again in the session of the tests, which cannot know a table by a
    name that it was given elsewhere.
    """
    number, kills = kill
    seed = int(os.environ.get("DBX_AML_CHAOS_SEED", time.time_ns() % 10**6))
    jobs = nights.make()
    if not clean:
        del jobs["named"]
    with JobProcess(nights.root, jobs) as killed:
        killed.wait_for("up")
        seconds = clean[0] if clean else _JOBS_PER_START * killed.seconds
        moment = seconds * (number + random.Random(seed + number).random()) / kills
        time.sleep(moment)
        killed.kill()
    about = (
        f"DBX_AML_CHAOS_SEED={seed}, killed {moment:.2f} s of {seconds:.2f} s after the start, "
        f"done then: {[*killed.results()]}"
    )
    log.warning(about)
    if clean:
        with JobProcess(nights.root, jobs) as again:
            assert again.wait_for_exit() == 0, (about, again.output())
        results = again.results()
        assert batch_ids_of(results) == clean[1], about
    else:
        results = {name: score_table(**jobs[name], spark=spark).to_dict() for name in jobs}
    assert sorted(results) == sorted(jobs), about
    nights.check(results, about)


@pytest.fixture
def registered(mlflow_store, tmp_path):
    """A model of two versions, the first with the alias; returns what moves the alias."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model("sum")
    for factor in (10, 20):
        client.create_model_version("sum", save_slow_model(tmp_path, factor))
    client.set_registered_model_alias("sum", "champion", "1")
    return partial(client.set_registered_model_alias, "sum", "champion")


def test_a_job_killed_between_its_commits_is_completed_with_the_model_and_rows_it_began_with(
    spark, tmp_path, model, earlier, registered, mlflow_store
):
    """The alias moves and the input grows between the kill and the restart."""
    write(spark, ROWS, tmp_path / "rows", files=8)
    jobs = make_jobs(tmp_path, "models:/sum@champion", tmp_path / "rows", earlier)
    del jobs["named"]  # its next process knows it by name, this one does not
    jobs["stream"] = {**jobs["incremental"], "output_table": delta(tmp_path / "stream")}
    for name, arguments in jobs.items():
        arguments.update(tracking_uri=mlflow_store, registry_uri=mlflow_store)
        if name in OVER_EARLIER:
            arguments["batch_id"] = "night"
    stops = {**dict.fromkeys(jobs, "before the quarantine"), "stream": "before the stream's commit"}
    with JobProcess(tmp_path, jobs, stops=stops) as killed:
        for name in jobs:
            killed.wait_for("at", name)
    write(spark, NEW_ROWS, tmp_path / "rows", mode="append")
    registered("2")

    results = {name: score_table(**arguments, spark=spark) for name, arguments in jobs.items()}

    for name in OVER_EARLIER:
        assert_counts(results[name].to_dict(), "scored", rows_of(name), name)
        assert results[name].model_version == "1"
        known = expected(name, model, "night", "models:/sum/1", "1")
        assert_same(contents(spark, tmp_path / name), known, name)
    second = stamped(NEW_ROWS, "stream/1", "models:/sum/2", "2", 1)
    # Version 2 predicts 20 x + y.
    second[0] = Counter((*one[:4], one[4] + 10 * one[2], *one[5:]) for one in second[0])
    known = together(stamped(ROWS, "stream/0", "models:/sum/1", "1"), second)
    for name, rows, batches in (("incremental", ROWS + NEW_ROWS, "0-1"), ("stream", NEW_ROWS, "1")):
        assert_counts(results[name].to_dict(), "scored", rows, name)
        assert results[name].model_version == "2"
        assert results[name].batch_id.partition("/")[2] == batches
        assert_same(contents(spark, tmp_path / name), known, name)


@pytest.fixture(scope="module")
def race(chaos, nights):
    """Two processes with the same jobs at once: what became of them.

    The first one's job "held" stops in the middle of its micro-batch until the second one's,
    on the same checkpoint, is over; the other jobs start at the same moment in both.
    """
    jobs = nights.make()
    if not chaos:
        jobs = {name: jobs[name] for name in ("append", "incremental")}
    others = list(jobs)
    held = delta(nights.root / "held")
    jobs["held"] = {**jobs["incremental"], "output_table": held}
    with (
        JobProcess(nights.root, jobs, waits=others, stops={"held": "before the quarantine"}) as one,
        JobProcess(nights.root, jobs, waits=list(jobs)) as two,
    ):
        one.wait_for("at", "held")
        two.wait_for("up")
        two.resume("held")
        two.wait_for("over", "held")
        one.resume("held")
        for name in others:
            one.resume(name)
            two.resume(name)
        codes = [one.wait_for_exit(), two.wait_for_exit()]
    return one, two, codes


def test_two_equal_jobs_at_once_leave_one_set_of_rows(race, nights):
    """Each ends well, or with one clear line; at least one of the two ends well."""
    one, two, codes = race
    for process, code in zip((one, two), codes, strict=True):
        assert code == (1 if process.failures() else 0), process.output()
    about = f"failed: {one.failures()}, {two.failures()}"
    log.warning(about)
    results = {**one.results(), **two.results()}
    assert {"append", "incremental", "held"} <= set(results), about
    assert set(results) >= {*one.failures(), *two.failures()}, about
    for line in (*one.failures().values(), *two.failures().values()):
        assert re.match("(table|checkpoint_location) must be ", line), about
    nights.check(results, about)


def test_two_jobs_on_one_checkpoint_end_with_one_clear_line(race):
    one, two, _ = race
    assert re.fullmatch(
        r"checkpoint_location must be used by one job at a time: got '\S+/held_checkpoint', "
        "which another job is using; wait for it to end",
        one.failures()["held"],
    )
    assert_counts(two.results()["held"], "scored", ROWS, "held")


def test_a_worker_that_dies_once_costs_no_row_and_doubles_none(spark, tmp_path, table, chaos):
    """On executors of their own in the long version, in the driver's Java in the short one."""
    marker = tmp_path / "died"

    def deadly(rows):
        if (rows["x"] == 2345).any():
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), 9)
            except FileExistsError:
                pass
        return choosy_sum(rows)

    arguments = {
        "model_uri": save_model(tmp_path, deadly, XY),
        "input_table": delta(table),
        "output_table": delta(tmp_path / "output"),
        "batch_id": "once",
    }
    master = "local-cluster[2,1,1024]" if chaos else "local[2,4]"
    with JobProcess(tmp_path, {"job": arguments}, master=master) as process:
        assert process.wait_for_exit() == 0, process.output()
    assert marker.exists()
    assert_counts(process.results()["job"], "scored", ROWS, master)
    known = stamped(ROWS, "once", arguments["model_uri"])
    assert_same(contents(spark, tmp_path / "output"), known, master)


def test_one_bad_row_in_ten_thousand_is_found_and_all_others_are_exact(spark, tmp_path, model):
    rows = [(i, 1, float(i), float(i % 7)) for i in range(10_000)]
    rows[6789] = (6789, 1, None, 6.0)
    write(spark, rows, tmp_path / "rows", files=3)
    result = score_table(
        model_uri=model,
        input_table=delta(tmp_path / "rows"),
        output_table=delta(tmp_path / "output"),
        max_quarantined_rows=1,
        batch_id="ten",
        spark=spark,
    )
    assert (result.rows_scored, result.rows_quarantined) == (9_999, 1)
    exact = [
        (i, 1, x, y, x * 10 + y, model, None, 0, "ten") for i, _, x, y in rows if x is not None
    ]
    bad = [(6789, 1, None, 6.0, "ValueError: x contains NaN", model, 0, "ten")]
    actual = contents(spark, tmp_path / "output")
    assert_same(actual, [Counter(exact), Counter(bad)], "ten thousand")


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


@pytest.mark.parametrize("full", ["output", "quarantine", "checkpoint"])
def test_a_full_disk_is_one_line_and_the_same_job_completes_when_there_is_room(
    spark, tmp_path, small_disk, model, table, full
):
    places = {one: tmp_path / one for one in ("output", "quarantine", "checkpoint")}
    places[full] = small_disk / full
    arguments = {
        "model_uri": model,
        "input_table": delta(table),
        "output_table": delta(places["output"]),
        "quarantine_table": delta(places["quarantine"]),
    }
    if full == "checkpoint":
        arguments["write_mode"] = "incremental"
        arguments["checkpoint_location"] = str(places["checkpoint"])
    # The disk gets full in the middle of the output's files; the other two are not even begun.
    room = 24 << 10 if full == "output" else 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1 << 20) - room))

    with pytest.raises(ScoringError) as caught:
        score_table(**arguments, spark=spark)

    line = str(caught.value)
    assert "No space left on device" in line
    assert "\n" not in line
    assert str(places[full]) in line or full == "checkpoint"
    assert list((places[full] / "_delta_log").glob("*.json")) == []
    ballast.unlink()
    result = score_table(**arguments, spark=spark)
    assert_counts(result.to_dict(), "scored", ROWS, full)
    known = stamped(ROWS, "stream/0" if full == "checkpoint" else result.batch_id, model)
    assert_same(contents(spark, places["output"], places["quarantine"]), known, full)
