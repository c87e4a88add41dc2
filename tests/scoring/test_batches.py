"""Each row of a batch is in one table, and a batch is done where its rows are."""

import json
import shutil

import pytest

from dbx_aml import batches
from dbx_aml._common.errors import NoScorableRowError, ScoringError, TooManyQuarantinedRowsError
from tests.support.models import XY, save_model, weighted_sum

pytestmark = [pytest.mark.spark, pytest.mark.slow]

HALF = {"max_quarantined_rows": "50%"}


class DeadJobError(Exception):
    """The job ends here, as far as the package can tell."""


def die_at(step):
    """Return a progress function that ends the job at a step."""

    def progress(name, _done, _total):
        if name == step:
            raise DeadJobError(step)

    return progress


def rows_of(spark, table, *columns):
    return sorted(
        tuple(r) for r in spark.sql(f"SELECT {', '.join(columns)} FROM {table}").collect()
    )


@pytest.fixture
def numbers(spark, delta_table):
    """Return a Delta table of (id, x) with y = 1; the choosy model fails where x is negative."""

    def write(*rows):
        frame = spark.createDataFrame([(*row, 1.0) for row in rows], "id int, x double, y double")
        return delta_table(frame.coalesce(1))

    return write


def test_replace_with_a_model_with_another_and_with_the_first_leaves_the_rows_of_the_first(
    spark, numbers, score, tmp_path
):
    models = [
        save_model(tmp_path, predict, XY)
        for predict in (weighted_sum, lambda rows: rows["x"] * 100)
    ]
    table = numbers((1, 1.0))
    for model in (models[0], models[1], models[0]):
        result = score(model, table, write_mode="replace")
        assert result.status == "scored"
    assert rows_of(spark, result.output_table, "prediction") == [(11.0,)]
    assert score(models[0], table, write_mode="replace").status == "already_scored"
    spark.sql(f"INSERT INTO {result.output_table} SELECT * FROM {result.output_table}")
    assert score(models[0], table, write_mode="replace").status == "scored"
    assert rows_of(spark, result.output_table, "prediction") == [(11.0,)]


def test_a_batch_that_restore_removed_is_refused_until_it_is_to_be_scored_again(
    spark, numbers, score, xy_model
):
    first, second = numbers((1, 1.0)), numbers((2, 2.0))
    result = score(xy_model, first)
    score(xy_model, second)
    spark.sql(f"RESTORE TABLE {result.output_table} TO VERSION AS OF {result.output_version}")
    with pytest.raises(ScoringError, match=r"1 row version \d \(RESTORE\) of .* removed"):
        score(xy_model, second)
    again = score(xy_model, second, rescore=True)
    assert (again.status, again.rows_scored) == ("scored", 1)
    assert rows_of(spark, result.output_table, "id", "prediction") == [(1, 11.0), (2, 21.0)]
    assert score(xy_model, second).status == "already_scored"


def test_rows_that_were_deleted_are_counted_with_the_commit_that_deleted_them(
    spark, numbers, score, xy_model
):
    table = numbers((1, 1.0), (2, 2.0))
    result = score(xy_model, table)
    spark.sql(f"DELETE FROM {result.output_table} WHERE id = 2")
    again = score(xy_model, table)
    assert (again.status, again.rows_removed) == ("already_scored", 1)
    assert again.removed_by == f"version 2 (DELETE) of {result.output_table}"


def test_a_row_that_the_model_refuses_once_is_in_one_table(spark, numbers, score, tmp_path):
    marks = str(tmp_path)

    def predict(rows):
        import os

        mark = os.path.join(marks, "asked")
        if (rows["x"] == 5).any() and not os.path.exists(mark):
            if len(rows) == 1:
                open(mark, "w").close()
            raise ConnectionError("no answer")
        return rows["x"]

    model = save_model(tmp_path, predict, XY)
    # An input that the model is tried on before would be asked there.
    score(model, numbers((100, 1.0)))
    result = score(model, numbers(*[(i, float(i)) for i in range(10)]), **HALF)
    assert (result.rows_read, result.rows_scored, result.rows_quarantined) == (10, 9, 1)
    assert rows_of(spark, result.quarantine_table, "id") == [(5,)]
    ids = [row_id for (row_id,) in rows_of(spark, result.output_table, "id")]
    assert ids == [0, 1, 2, 3, 4, 6, 7, 8, 9, 100]


def test_equal_rows_with_different_verdicts_are_each_in_one_table(spark, numbers, score, tmp_path):
    def predict(rows):
        import builtins

        if len(rows) > 1:
            raise ValueError("one by one")
        builtins.asked = getattr(builtins, "asked", 0) + 1
        if builtins.asked % 3 == 0:
            raise ValueError("every third")
        return rows["x"]

    model = save_model(tmp_path, predict, XY.head(1))
    result = score(model, numbers(*[(1, 1.0)] * 8), max_quarantined_rows="90%")
    tables = (result.output_table, result.quarantine_table)
    counts = [len(rows_of(spark, table, "id")) for table in tables]
    assert counts == [result.rows_scored, result.rows_quarantined]
    assert sum(counts) == result.rows_read == 8
    assert counts[1] > 0


@pytest.mark.parametrize(("reasons", "passes"), [(2, 1), (1200, 2)])
def test_more_reasons_than_the_driver_takes_go_through_a_staging_table(
    spark, numbers, score, tmp_path, reasons, passes
):
    def predict(rows):
        negative = rows["x"][rows["x"] < 0]
        if len(negative):
            raise ValueError(f"x must not be {negative.iloc[0]:.0f}")
        return rows["x"]

    model = save_model(tmp_path, predict, XY.head(1))
    rows = [(i, -1.0 - i % reasons if i < 1200 else 1.0) for i in range(2400)]
    result = score(model, numbers(*rows), **HALF)
    assert (result.rows_read, result.rows_scored, result.rows_quarantined) == (2400, 1200, 1200)
    quarantined = rows_of(spark, result.quarantine_table, "id", "_quarantine.reason")
    texts = [f"ValueError: x must not be {-1 - i % reasons}" for i in range(1200)]
    assert sorted(quarantined) == list(enumerate(texts))
    (entry,) = batches(result.output_table, spark=spark).collect()
    assert json.loads(entry.plan)["passes"] == passes
    tables = [row.tableName for row in spark.sql("SHOW TABLES").collect()]
    assert not [name for name in tables if "staging" in name]


def test_a_merge_removes_the_old_prediction_of_a_row_that_is_quarantined(
    spark, numbers, score, choosy_model
):
    merge = {"write_mode": "merge", "key_columns": "id", "max_quarantined_rows": 1}
    score(choosy_model, numbers((1, 1.0), (2, 2.0)), **merge)
    result = score(choosy_model, numbers((1, 3.0), (2, -1.0)), **merge)
    assert rows_of(spark, result.output_table, "id", "prediction") == [(1, 31.0)]
    assert rows_of(spark, result.quarantine_table, "id") == [(2,)]


def test_two_outputs_that_share_a_quarantine_and_a_batch_id_keep_their_own_rows(
    spark, numbers, score, choosy_model, tmp_path
):
    shared = {"quarantine_table": f"delta.`{tmp_path}/shared`", "batch_id": "monday", **HALF}
    for number in (1, 3):
        table = numbers((number, 1.0), (number + 1, -1.0))
        score(choosy_model, table, output_table=f"delta.`{tmp_path}/output{number}`", **shared)
    assert rows_of(spark, shared["quarantine_table"], "id") == [(2,), (4,)]


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_a_job_that_dies_before_the_quarantine_is_finished_with_its_own_verdicts(
    spark, numbers, score, choosy_model, mode
):
    table = numbers((1, 1.0), (2, -1.0))
    keys = {"key_columns": "id"} if mode == "merge" else {}
    with pytest.raises(DeadJobError):
        score(choosy_model, table, write_mode=mode, progress=die_at("writing the quarantine"),
              **keys, **HALF)  # fmt: skip
    result = score(choosy_model, table, write_mode=mode, **keys, **HALF)
    assert (result.status, result.rows_scored, result.rows_quarantined) == ("scored", 1, 1)
    assert rows_of(spark, result.output_table, "id", "_scoring.batch") == [(1, result.batch)]
    assert rows_of(spark, result.quarantine_table, "id", "_quarantine.batch") == [(2, result.batch)]
    (entry,) = batches(result.output_table, spark).collect()
    assert (entry.batch, entry.rows_read, entry.state) == (result.batch, 2, "scored")


def test_the_ledger_shows_an_interrupted_batch_with_its_facts_and_without_counts(
    spark, numbers, score, choosy_model
):
    result = score(choosy_model, numbers((1, 1.0)))
    table = numbers((2, 2.0), (3, -1.0))
    with pytest.raises(DeadJobError):
        score(choosy_model, table, progress=die_at("writing the quarantine"), **HALF)
    interrupted, first = batches(result.output_table, spark).collect()
    assert (first.batch, first.state) == (result.batch, "scored")
    assert (interrupted.state, interrupted.input_table) == ("interrupted", table)
    assert (interrupted.rows_read, interrupted.scored_by) == (None, None)
    assert interrupted.started_at > first.started_at


def test_a_batch_whose_ledger_is_lost_is_not_written_again(spark, numbers, score, xy_model):
    table = numbers((1, 1.0))
    result = score(xy_model, table)
    path = result.output_table.split("`")[1]
    shutil.rmtree(f"{path}_batches")
    again = score(xy_model, table)
    assert (again.status, again.batch) == ("already_scored", result.batch)
    (entry,) = batches(result.output_table, spark).collect()
    assert (entry.batch, entry.state, entry.rows_scored) == (result.batch, "rebuilt", 1)


def test_a_named_output_is_not_left_behind_by_a_model_that_fails_on_every_row(
    spark, numbers, score, choosy_model
):
    with pytest.raises(NoScorableRowError):
        score(choosy_model, numbers((1, -1.0)), output_table="left_behind")
    assert not spark.catalog.tableExists("left_behind")


def test_a_folder_with_other_files_outlives_a_model_that_fails_on_every_row(
    numbers, score, choosy_model, tmp_path
):
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(NoScorableRowError):
        score(choosy_model, numbers((1, -1.0)), output_table=f"delta.`{folder}`")
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("notes.txt", "keep")]


def test_a_checkpoint_belongs_to_one_output_and_one_filter(
    spark, numbers, score, xy_model, tmp_path
):
    table = numbers((1, 1.0))
    stream = {"write_mode": "incremental", "checkpoint_location": f"{tmp_path}/checkpoint"}
    score(xy_model, table, **stream)
    score(xy_model, numbers((9, 9.0)), output_table=f"delta.`{tmp_path}/other`")
    with pytest.raises(ScoringError, match="checkpoint_location must belong to the output table"):
        score(xy_model, table, **stream, output_table=f"delta.`{tmp_path}/other`")
    with pytest.raises(ScoringError, match="row_filter was None, is 'id > 0'"):
        score(xy_model, table, **stream, row_filter="id > 0")


def test_a_lost_checkpoint_goes_on_after_the_versions_that_the_ledger_has(
    spark, numbers, score, xy_model, tmp_path
):
    table = numbers((1, 1.0))
    stream = {"write_mode": "incremental", "checkpoint_location": f"{tmp_path}/checkpoint"}
    result = score(xy_model, table, **stream)
    shutil.rmtree(tmp_path / "checkpoint")
    assert score(xy_model, table, **stream).status == "no_new_rows"
    spark.sql(f"INSERT INTO {table} VALUES (2, 2.0, 1.0)")
    assert score(xy_model, table, **stream).rows_scored == 1
    assert rows_of(spark, result.output_table, "id") == [(1,), (2,)]


def test_a_stream_with_too_many_quarantined_rows_fails_until_the_limit_allows_them(
    spark, numbers, score, choosy_model
):
    table = numbers((1, 1.0), (2, -1.0))
    for _ in range(2):
        with pytest.raises(TooManyQuarantinedRowsError, match="at most 1%: got 1 of 2"):
            score(choosy_model, table, write_mode="incremental")
    stream = {"write_mode": "incremental"}
    assert score(choosy_model, table, **stream, **HALF).status == "no_new_rows"
    assert score(choosy_model, table, **stream).status == "no_new_rows"
