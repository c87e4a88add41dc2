"""`replay_batch`: a batch scored again from the ledger's facts, and compared with the output."""

import re
from pathlib import Path

import pytest

from dbx_aml import replay_batch
from dbx_aml._common.errors import ModelNotFoundError, ScoringError, TableNotFoundError
from tests.support.models import XY, save_model, weighted_sum

pytestmark = [pytest.mark.spark, pytest.mark.slow]

# Values that no sum keeps: a missing one, and one between two doubles.
ROWS = [(1, 0.1, 0.2), (2, float("nan"), 1.0), (3, 1e308, -1e308), (4, -1.0, 0.0), (5, 0.5, 0.5)]


@pytest.fixture
def numbers(spark, delta_table):
    """Return a Delta table of (id, x, y) with a map, a column that Spark cannot compare."""

    def write(rows=ROWS, **options):
        frame = spark.createDataFrame(list(rows), "id int, x double, y double")
        frame = frame.selectExpr("*", "map('id', id) AS attributes", "NULL AS nothing")
        frame = frame.withColumn("nothing", frame.nothing.cast("string"))
        return delta_table(frame.coalesce(1), **options)

    return write


@pytest.fixture
def replay(spark):
    def call(result, **arguments):
        batch = {"output_table": result.output_table, "batch": result.batch}
        return replay_batch(spark=spark, **{**batch, **arguments})

    return call


def counts(replayed):
    return (
        replayed.rows_equal, replayed.rows_different, replayed.rows_missing, replayed.rows_more,
    )  # fmt: skip


def insert(spark, table, *ids):
    rows = ", ".join(f"({i}, 1.0, 1.0, map('id', {i}), NULL)" for i in ids)
    spark.sql(f"INSERT INTO {table} VALUES {rows}")


def test_a_batch_is_equal_after_later_appends_merges_and_a_vacuum_that_keeps_its_files(
    spark, numbers, score, choosy_model, replay
):
    table = numbers()
    filtered = {"row_filter": "id < 5", "output_columns": "id, attributes, nothing"}
    result = score(choosy_model, table, max_quarantined_rows="50%", **filtered)
    insert(spark, table, 1, 7)
    spark.sql(f"MERGE INTO {table} t USING (SELECT 1 AS id) s ON t.id = s.id "
              "WHEN MATCHED THEN UPDATE SET x = 99")  # fmt: skip
    spark.sql(f"VACUUM {table}")
    score(choosy_model, table, max_quarantined_rows="50%", **filtered)
    replayed = replay(result)
    assert counts(replayed) == (2, 0, 0, 0)
    assert (replayed.rows_quarantined, replayed.rows_quarantined_before) == (2, 2)
    assert replayed.is_equal
    assert (replayed.input_version, replayed.environment_differences) == (0, [])
    assert replay(result, batch=result.batch_id).batch == result.batch
    assert not spark.sql("SHOW TABLES LIKE 'dbx_aml_staging*'").collect()


def test_each_micro_batch_is_equal_also_where_optimize_moved_its_rows(
    spark, numbers, score, xy_model, replay
):
    table = numbers([(1, 1.0, 1.0)])
    results = [score(xy_model, table, write_mode="incremental")]
    insert(spark, table, 2, 3)
    results.append(score(xy_model, table, write_mode="incremental"))
    insert(spark, table, 4)
    spark.sql(f"OPTIMIZE {table}")
    insert(spark, table, 4)
    results.append(score(xy_model, table, write_mode="incremental"))
    assert [result.rows_read for result in results] == [1, 2, 2]
    assert [counts(replay(result)) for result in results] == [(1, 0, 0, 0)] + [(2, 0, 0, 0)] * 2


def test_each_batch_of_follow_is_compared_with_the_output_as_it_left_it(
    spark, numbers, score, choosy_model, replay, vacuum
):
    table = numbers([(1, 1.0, 1.0), (2, -2.0, 2.0), (3, 3.0, 3.0)])
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    arguments = {"write_mode": "follow", "key_columns": "id", "row_filter": "id < 9"}

    def follow():
        return score(choosy_model, table, max_quarantined_rows="90%", **arguments)

    first = follow()
    spark.sql(f"UPDATE {table} SET x = 0 - x WHERE id <= 2")
    spark.sql(f"DELETE FROM {table} WHERE id = 3")
    insert(spark, table, 4, 9)
    second = follow()
    replayed = [replay(result) for result in (first, second)]
    assert [counts(each) for each in replayed] == [(2, 0, 0, 0), (2, 0, 0, 0)]
    assert [(each.rows_quarantined, each.is_equal) for each in replayed] == [(1, True), (1, True)]
    vacuum(first.output_table)
    with pytest.raises(ScoringError, match=r"got version 1 of .*output.*FILE_NOT_EXIST"):
        replay(first)


def test_other_predictions_and_rows_are_counted_with_examples(
    spark, numbers, score, xy_model, replay
):
    rows = [(1, 1.0, 1.0), (2, 2.0, 2.0), (3, 3.0, 3.0), (3, 3.0, 3.0)]
    result = score(xy_model, numbers(rows))
    output = result.output_table
    spark.sql(f"UPDATE {output} SET prediction = prediction + 0.5 WHERE id = 1")
    spark.sql(f"DELETE FROM {output} WHERE id = 2")
    spark.sql(f"INSERT INTO {output} SELECT * FROM {output} WHERE id = 3 LIMIT 1")
    replayed = replay(result)
    assert counts(replayed) == (2, 1, 1, 1)
    assert not replayed.is_equal
    assert replayed.largest_difference == 0.5
    examples = {row["id"]: (row["stored"], row["replayed"]) for row in replayed.examples}
    assert examples == {1: ([11.5], [11.0]), 2: ([], [22.0]), 3: ([33.0], [])}


def test_a_file_of_the_model_that_has_changed_is_found(
    spark, numbers, score, replay, mlflow_store, tmp_path
):
    import mlflow

    path = save_model(tmp_path, weighted_sum, XY)
    table = numbers()
    by_path = score(path, table)
    client = mlflow.MlflowClient()
    client.create_registered_model("sum")
    client.create_model_version("sum", path)
    by_version = score("models:/sum/1", table)
    assert replay(by_path).is_equal
    assert replay(by_version).is_equal
    (Path(path) / "requirements.txt").write_text("pandas")
    for result in (by_path, by_version):
        with pytest.raises(ScoringError, match="model must have the files that scored the batch"):
            replay(result)
    client.delete_model_version("sum", "1")
    with pytest.raises(ModelNotFoundError, match="models:/sum/1"):
        replay(by_version)
    with pytest.raises(ScoringError, match=r"registry_uri must be the one of the batch: got 'sql"):
        replay(by_version, registry_uri=f"sqlite:///{tmp_path}/other.db")


def test_a_version_that_is_gone_is_named_with_the_property_that_keeps_it(
    spark, numbers, score, xy_model, replay, vacuum
):
    table = numbers()
    result = score(xy_model, table)
    spark.sql(f"DELETE FROM {table} WHERE id = 1")
    vacuum(table)
    with pytest.raises(ScoringError, match=r"VACUUM has removed, at last on \d{4}-.*deletedFileR"):
        replay(result)
    folder = Path(table.split("`")[1])
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '2')")
    for _ in range(2):
        insert(spark, table, 9)
    assert list(folder.glob("_delta_log/*.checkpoint.parquet"))
    for file in folder.glob("_delta_log/0000000000000000000[0-3].json"):
        file.unlink()
    with pytest.raises(ScoringError, match=r"history begins with version \d+ .*logRetentionDur"):
        replay(result)


def test_rows_that_another_batch_has_replaced_or_merged_over_are_not_replayed(
    spark, numbers, score, xy_model, replay, tmp_path
):
    for write_mode, columns in (("replace", None), ("merge", "id")):
        table = numbers([(1, 1.0, 1.0), (2, 2.0, 2.0)])
        output = f"delta.`{tmp_path}/{write_mode}`"
        arguments = {"output_table": output, "write_mode": write_mode, "key_columns": columns}
        first = score(xy_model, table, **arguments)
        insert(spark, table, 3)
        second = score(xy_model, table, **arguments)
        with pytest.raises(ScoringError, match=r"got 0 of \d in .* wrote others in their place"):
            replay(first)
        assert replay(second).is_equal


def test_what_cannot_be_scored_again_is_one_line(
    spark, numbers, score, xy_model, replay, view, tmp_path
):
    result = score(xy_model, numbers(), output_columns="id")
    with pytest.raises(ScoringError, match="batch must be in the ledger of the output table"):
        replay(result, batch=7)
    with pytest.raises(TableNotFoundError, match="output table must exist"):
        replay(result, output_table=f"delta.`{tmp_path}/nothing`")
    rows = spark.createDataFrame([(1.0, 1.0)], "x double, y double")
    of_view = score(xy_model, view(rows), output_table=f"delta.`{tmp_path}/of_view`")
    with pytest.raises(ScoringError, match="input of the batch must be a Delta table"):
        replay(of_view)
    path = re.sub("`|delta.", "", result.input_table)
    spark.range(1).write.format("delta").mode("overwrite").save(f"{path}_new")
    Path(path).rename(f"{path}_old")
    Path(f"{path}_new").rename(path)
    with pytest.raises(ScoringError, match="the table was dropped and made again"):
        replay(result)
