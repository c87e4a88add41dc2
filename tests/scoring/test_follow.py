"""`write_mode="follow"`: the output has what the input has, after each run."""

import logging
import os
import random
import time

import pytest
from pyspark.sql.streaming import DataStreamReader

from dbx_aml import batches, score_table
from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring import stream
from dbx_aml.scoring.batch_writer import BatchWriter
from dbx_aml.scoring.delta_table import Table
from tests.support.job_process import JobProcess
from tests.support.models import XY, choosy_sum, save_model

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

log = logging.getLogger(__name__)

CHANGE_FEED = "delta.enableChangeDataFeed"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), choosy_sum, XY)


class Followed:
    """An input with a change feed, and the tables of a job that follows it."""

    def __init__(self, spark, folder, model):
        self.spark = spark
        self.input = f"delta.`{folder}/input`"
        self.output = f"delta.`{folder}/output`"
        self.quarantine = f"delta.`{folder}/output_quarantine`"
        self._model = model
        self.create()

    def create(self, columns="id int, x double, y double"):
        self.sql(
            f"CREATE OR REPLACE TABLE {self.input} ({columns}) USING delta "
            f"TBLPROPERTIES ({CHANGE_FEED} = true)"
        )

    def sql(self, text):
        return [tuple(row) for row in self.spark.sql(text).collect()]

    def change(self, *statements):
        """Run statements on the input, which they call `t`."""
        for statement in statements:
            self.sql(statement.replace(" t ", f" {self.input} "))

    def arguments(self, **arguments):
        defaults = {
            "model_uri": self._model,
            "input_table": self.input,
            "output_table": self.output,
            "write_mode": "follow",
            "key_columns": "id",
            "max_quarantined_rows": "50%",
        }
        return {**defaults, **arguments}

    def follow(self, **arguments):
        return score_table(**self.arguments(**arguments), spark=self.spark)

    def assert_equal(self, condition="true"):
        """Compare both tables with the input: each row has the verdict that the model gives."""
        scored = f"{condition} AND x IS NOT NULL AND x >= 0"
        expected = self.sql(f"SELECT id, x, y, x * 10 + y FROM {self.input} WHERE {scored}")
        assert sorted(self.sql(f"SELECT id, x, y, prediction FROM {self.output}")) == sorted(
            expected
        )
        failing = self.sql(f"SELECT id, x FROM {self.input} WHERE {condition} AND NOT ({scored})")
        actual = []
        if Table(self.quarantine).exists(self.spark):
            actual = self.sql(f"SELECT id, x FROM {self.quarantine}")
        assert sorted(actual, key=str) == sorted(failing, key=str)

    def batches_by_id(self):
        return dict(self.sql(f"SELECT id, _scoring.batch FROM {self.output}"))


@pytest.fixture
def followed(spark, tmp_path, model):
    return Followed(spark, tmp_path, model)


@pytest.mark.connect
def test_inserts_updates_and_deletes_reach_the_output_and_other_rows_keep_their_batch(followed):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, -3, 3), (4, 4, 4), (5, 5, 5)")
    first = followed.follow()
    assert (first.status, first.rows_scored, first.rows_quarantined) == ("scored", 4, 1)
    followed.assert_equal()
    assert followed.follow().status == "no_new_rows"
    followed.change(
        "INSERT INTO t VALUES (6, 6, 6), (7, 7, 7)",
        "UPDATE t SET x = 3 WHERE id = 3",  # mended
        "UPDATE t SET x = -4 WHERE id = 4",  # goes bad
        "DELETE FROM t WHERE id IN (5, 7)",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (2, 20, 2)",
        "OPTIMIZE t ",
    )
    second = followed.follow()
    counts = second.rows_read, second.rows_scored, second.rows_quarantined, second.rows_deleted
    assert counts == (4, 3, 1, 2)
    followed.assert_equal()
    assert followed.batches_by_id() == {
        1: first.batch, 2: second.batch, 3: second.batch, 6: second.batch
    }  # fmt: skip
    followed.change("UPDATE t SET id = 60 WHERE id = 6", "DELETE FROM t WHERE id = 4")
    third = followed.follow()
    followed.assert_equal()
    assert (third.rows_scored, third.rows_deleted) == (1, 2)
    ledger = batches(followed.output, followed.spark).select(
        "batch", "rows_scored", "rows_deleted", "input_version_from", "input_version_to"
    )
    assert [tuple(row) for row in ledger.collect()] == [
        (third.batch, 1, 2, 9, 10),
        (second.batch, 3, 2, 2, 8),
        (first.batch, 4, 0, None, 1),
    ]


def fail_once(monkeypatch, owner, name, *, after):
    """Make a function raise at its next call, before or after its work; a kill at that moment."""
    function = getattr(owner, name)

    def fail(*args, **kwargs):
        monkeypatch.setattr(owner, name, function)
        if after:
            function(*args, **kwargs)
        raise ScoringError("killed")

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        pytest.param(stream, "write_batch", True, id="checkpoint", marks=pytest.mark.nightly),
        pytest.param(BatchWriter, "_save_quarantine", False, id="quarantine"),
        pytest.param(BatchWriter, "_write_entry", False, id="ledger", marks=pytest.mark.nightly),
    ],
)
def test_a_run_that_ends_in_the_middle_is_finished_by_the_next(
    followed, monkeypatch, owner, name, after
):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, -2, 2), (3, 3, 3), (4, 4, 4)")
    if name != "write_batch":
        fail_once(monkeypatch, owner, name, after=after)
        with pytest.raises(ScoringError, match="killed"):
            followed.follow()
    followed.follow()
    followed.assert_equal()
    followed.change("UPDATE t SET x = -x WHERE id IN (2, 3)", "DELETE FROM t WHERE id = 1")
    fail_once(monkeypatch, owner, name, after=after)
    with pytest.raises(ScoringError, match="killed"):
        followed.follow()
    followed.change("INSERT INTO t VALUES (5, 5, 5)")
    followed.follow()
    followed.assert_equal()
    ledger = batches(followed.output, followed.spark)
    states = ledger.selectExpr("state", "rows_deleted", "quarantine_version IS NULL").collect()
    # The last batch has no row for the quarantine, and none to take out of it.
    assert [tuple(row) for row in states] == [
        ("scored", 0, True), ("scored", 1, False), ("scored", 0, False)
    ]  # fmt: skip


@pytest.mark.nightly
def test_a_filter_is_followed_too(followed):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, -3, 3)")
    for changes in (
        ["UPDATE t SET y = 9 WHERE id = 1", "UPDATE t SET y = 9 WHERE id = 3"],
        ["UPDATE t SET y = 1 WHERE id = 1", "UPDATE t SET x = 7 WHERE id = 3"],
    ):
        followed.follow(row_filter="y < 5")
        followed.assert_equal("y < 5")
        followed.change(*changes)
    followed.follow(row_filter="y < 5")
    followed.assert_equal("y < 5")
    with pytest.raises(ScoringError) as error:
        followed.follow(row_filter="y < 4")
    assert str(error.value) == (
        f"output_table must follow one input in one way: got {followed.output!r}, where row_filter "
        "was 'y < 5', is 'y < 4'; name another output_table and another checkpoint_location, or "
        "pass rescore=True to score all rows again"
    )
    with pytest.raises(ScoringError, match=r"row_filter must select the same rows at any time"):
        followed.follow(row_filter="y < rand()")


def test_a_table_without_a_change_feed_is_refused_with_the_statement_that_sets_it(followed):
    followed.change(f"ALTER TABLE t UNSET TBLPROPERTIES ({CHANGE_FEED})")
    with pytest.raises(ScoringError) as error:
        followed.follow()
    assert str(error.value) == (
        "input table must have a change feed for write_mode 'follow': got "
        f"{followed.input!r} without one; run ALTER TABLE {followed.input} SET TBLPROPERTIES "
        f"({CHANGE_FEED} = true), which counts for the changes from then on"
    )


REPEATED = "key_columns must name each input row once: got several rows with "


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["INSERT INTO t VALUES (8, 1, 1), (8, 2, 2)"], REPEATED + '{"id":8};'),
        (["INSERT INTO t VALUES (1, 1, 1)"], REPEATED + '{"id":1};'),
        (["INSERT INTO t VALUES (2, 2, 2)"], REPEATED + '{"id":2};'),
        (
            ["INSERT INTO t VALUES (1, 9, 9)", "DELETE FROM t WHERE id = 1 AND x = 9"],
            REPEATED + '{"id":1};',
        ),
        (
            [f"INSERT INTO t VALUES {', '.join(f'({i}, 1, 1), ({i}, 1, 1)' for i in range(6))}"],
            REPEATED + ", ".join(f'{{"id":{i}}}' for i in range(5)) + ";",
        ),
        (["INSERT INTO t VALUES (null, 1, 1)"], "write_mode 'follow': got {\"id\":null};"),
    ],
    ids=["twice", "in the output", "in the quarantine", "for a while", "five examples", "null"],
)
def test_a_change_that_gives_a_key_two_rows_or_none_is_refused_until_all_is_scored_again(
    followed, changes, line
):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, -2, 2)")
    followed.follow()
    followed.change(*changes)
    for _ in range(2):
        with pytest.raises(ScoringError) as error:
            followed.follow()
        assert line in str(error.value)
        assert "rescore=True" in str(error.value)
    if "null" in line:
        followed.change("DELETE FROM t WHERE id IS NULL")
    else:
        followed.change("DELETE FROM t WHERE id <> 2 OR x >= 0", "INSERT INTO t VALUES (1, 2, 3)")
    followed.follow(rescore=True)
    followed.assert_equal()


def test_the_keys_of_the_first_version_are_checked_before_anything_is_written(followed):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (1, 1, 1), (null, 2, 2)")
    with pytest.raises(ScoringError, match=r'must have a value in each .*: got \{"id":null\};'):
        followed.follow()
    followed.change("DELETE FROM t WHERE id IS NULL")
    with pytest.raises(ScoringError, match=r'each input row once: got 2 rows with \{"id":1\};'):
        followed.follow()
    assert not Table(followed.output).exists(followed.spark)


def test_a_feed_that_vacuum_cut_off_is_refused_and_all_rows_are_scored_again(followed, vacuum):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, -2, 2), (3, 3, 3)")
    first = followed.follow()
    followed.change("UPDATE t SET x = 7 WHERE id = 1", "DELETE FROM t WHERE id = 3")
    vacuum(followed.input)
    with pytest.raises(ScoringError) as error:
        followed.follow()
    assert str(error.value).startswith("input table for write_mode 'follow' must have the files")
    assert "\n" not in str(error.value)
    assert "pass rescore=True to score all rows of version 5" in str(error.value)
    again = followed.follow(rescore=True)
    followed.assert_equal()
    assert set(followed.batches_by_id().values()) == {again.batch} != {first.batch}
    followed.change("DELETE FROM t WHERE id = 2")
    followed.follow()
    followed.assert_equal()


def test_a_lost_checkpoint_goes_on_after_the_newest_batch_and_an_old_one_is_refused(
    followed, tmp_path
):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)")
    first = followed.follow()
    followed.change("UPDATE t SET x = 7 WHERE id = 1")
    followed.follow()
    followed.change("INSERT INTO t VALUES (3, 3, 3)")
    other = {"checkpoint_location": str(tmp_path / "other")}
    third = followed.follow(**other)
    assert (third.rows_read, followed.batches_by_id()[2]) == (1, first.batch)
    followed.assert_equal()
    with pytest.raises(ScoringError, match="checkpoint_location must be the one of the newest run"):
        followed.follow()
    assert followed.follow(**other).status == "no_new_rows"


def test_a_change_by_another_writer_is_refused_with_the_version_before_it(followed):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)")
    followed.follow()
    followed.sql(f"OPTIMIZE {followed.output}")
    followed.sql(f"UPDATE {followed.output} SET prediction = 0 WHERE id = 1")
    followed.change("INSERT INTO t VALUES (3, 3, 3)")
    with pytest.raises(ScoringError) as error:
        followed.follow()
    assert "must be written by its stream alone" in str(error.value)
    assert "(UPDATE) is of another writer" in str(error.value)
    followed.follow(rescore=True)
    followed.assert_equal()


def test_tables_and_checkpoints_of_other_jobs_are_refused(followed, tmp_path):
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, -2, 2)")
    followed.follow(write_mode="append", key_columns=None)
    with pytest.raises(ScoringError) as error:
        followed.follow()
    assert str(error.value) == (
        "output_table must be empty before the first run of write_mode 'follow': got "
        f"{followed.output!r} with rows of other jobs; name another output_table, or pass "
        "rescore=True to remove these rows"
    )
    followed.follow(rescore=True)
    followed.assert_equal()
    followed.change("INSERT INTO t VALUES (3, 3, 3)")
    followed.follow()
    other = {
        "output_table": f"delta.`{tmp_path}/other`",
        "checkpoint_location": f"{tmp_path}/output_checkpoint",
    }
    for write_mode, key_columns in (("follow", "id"), ("incremental", None)):
        with pytest.raises(ScoringError, match="checkpoint_location must belong to the output"):
            followed.follow(**other, write_mode=write_mode, key_columns=key_columns)
    followed.create()
    followed.change("INSERT INTO t VALUES (1, 1, 1)")


@pytest.mark.nightly
def test_a_batch_may_be_a_single_commit_of_the_input(followed, monkeypatch):
    load = DataStreamReader.load
    monkeypatch.setattr(
        DataStreamReader,
        "load",
        lambda reader, path: load(reader.option("maxFilesPerTrigger", "1"), path),
    )
    followed.change("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)")
    followed.follow()
    followed.change(
        "UPDATE t SET x = 7 WHERE id = 1",
        "DELETE FROM t WHERE id = 1",
        "INSERT INTO t SELECT /*+ COALESCE(1) */ * FROM VALUES (1, 3, 3), (3, -3, 3)",
        "UPDATE t SET x = 3 WHERE id = 3",
    )
    result = followed.follow(max_quarantined_rows="100%")
    followed.assert_equal()
    assert (result.rows_read, result.rows_deleted) == (4, 1)
    assert batches(followed.output, followed.spark).count() == 5


@pytest.mark.nightly
def test_an_overwrite_of_more_files_than_a_micro_batch_has_by_default_is_one_batch(followed):
    for number, factor in enumerate((1, 2)):
        rows = followed.spark.range(0, 600, 1, 600)  # 600 files, and 600 that they replace
        rows.selectExpr("int(id) AS id", "double(id) AS x", f"double({factor}) AS y").write.format(
            "delta"
        ).mode("overwrite").save(followed.input.split("`")[1])
        assert followed.follow().rows_read == 600
        followed.assert_equal()
        assert batches(followed.output, followed.spark).count() == number + 1


@pytest.mark.parametrize(
    "kills", [1, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])]
)
def test_jobs_that_are_killed_while_the_input_changes_leave_the_rows_of_the_input(
    followed, tmp_path, kills
):
    """The writer goes on while a job runs, is killed at a random moment, and starts again."""
    seed = int(os.environ.get("DBX_AML_KILL_SEED", time.time_ns() % 10**6))
    chance = random.Random(seed)
    followed.change("INSERT INTO t SELECT id, id - 5, id FROM range(200)")
    # A change may be of failing rows alone.
    arguments = followed.arguments(max_quarantined_rows="100%")
    started = time.monotonic()
    with JobProcess(tmp_path / "job", {"job": arguments}) as process:
        process.wait_for("up")
        started = time.monotonic()
        assert process.wait_for_exit() == 0, process.output()
    seconds = time.monotonic() - started
    for number in range(kills):
        with JobProcess(tmp_path / "job", {"job": arguments}) as process:
            process.wait_for("up")
            end_time = time.monotonic() + 2 * seconds * chance.random()
            row_id = chance.randrange(200)
            followed.change(
                f"UPDATE t SET x = -x WHERE id % 7 = {row_id % 7}",
                f"DELETE FROM t WHERE id = {row_id}",
                f"INSERT INTO t VALUES ({1000 + number}, {chance.randrange(-5, 50)}, 0)",
            )
            time.sleep(max(end_time - time.monotonic(), 0))
            process.kill()
        log.warning("DBX_AML_KILL_SEED=%s, results: %s", seed, process.results())
    with JobProcess(tmp_path / "job", {"job": arguments}) as process:
        assert process.wait_for_exit() == 0, (seed, process.output())
    followed.assert_equal()
