"""`score_table` on real tables. The marker `connect` runs a test on Spark Connect too."""

import json
import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from mlflow.models import infer_signature
from pyspark.sql import functions as F

from dbx_aml import batches, score_table
from dbx_aml._common.errors import (
    ArgumentError,
    ModelUriError,
    NoScorableRowError,
    SchemaMismatchError,
    ScoringError,
    TooManyQuarantinedRowsError,
)
from tests.support.models import XY, save_model, weighted_sum

pytestmark = pytest.mark.spark


def rows_of(spark, table, *columns):
    rows = spark.sql(f"SELECT {', '.join(columns)} FROM {table}").collect()
    return sorted(tuple(row) for row in rows)


def xy_rows(spark, *rows):
    return spark.createDataFrame(list(rows), "x double, y double")


def exists(table):
    from pathlib import Path

    return Path(table.split("`")[1]).exists()


def test_scoring_matches_columns_by_name_not_by_position(spark, view, score, xy_model):
    frame = spark.createDataFrame([(1.0, "a", 2.0)], "y double, note string, x double")
    result = score(xy_model, view(frame))
    expected = spark.createDataFrame(
        [(1.0, "a", 2.0, 21.0)], "y double, note string, x double, prediction double"
    )
    actual = spark.sql(f"SELECT * FROM {result.output_table}").drop("_scoring")
    assert_df_equality(actual, expected)
    assert (result.status, result.rows_read, result.rows_scored) == ("scored", 1, 1)


@pytest.mark.slow
def test_a_row_names_its_batch_whose_model_run_and_versions_are_in_the_ledger(
    spark, delta_table, score, mlflow_store
):
    import mlflow
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(XY, weighted_sum(XY))
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(XY, model.predict(XY)),
            registered_model_name="sum",
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    mlflow.MlflowClient().set_registered_model_alias("sum", "champion", "1")
    table = delta_table(xy_rows(spark, (1.0, 2.0), (2.0, 3.0)))
    spark.sql(f"INSERT INTO {table} VALUES (3.0, 4.0)")
    start = datetime.now(UTC).replace(tzinfo=None)
    result = score("models:/sum@champion", table)
    (row,) = spark.sql(f"SELECT DISTINCT _scoring.* FROM {result.output_table}").collect()
    assert row.asDict() == {"batch": result.batch, "model_version": 1}
    (entry,) = batches(result.output_table, spark).collect()
    assert start <= entry.started_at <= datetime.now(UTC).replace(tzinfo=None)
    history = spark.sql(f"DESCRIBE HISTORY {result.output_table} LIMIT 1").collect()[0]
    expected = {
        "batch": result.batch,
        "batch_id": result.batch_id,
        "state": "scored",
        "rows_read": 3,
        "rows_scored": 3,
        "rows_quarantined": 0,
        "model_uri": "models:/sum/1",
        "model_name": "sum",
        "model_version": "1",
        "model_run_id": run.info.run_id,
        "input_table": table,
        "input_version_from": 1,
        "input_version_to": 1,
        "write_mode": "append",
        "output_version": history["version"],
        "quarantine_version": None,
    }
    assert {name: entry[name] for name in expected} == expected
    assert result.output_version == history["version"]
    assert result.model_uri == "models:/sum/1"


def test_missing_and_lossy_columns_are_refused_before_anything_is_written(
    spark, view, score, xy_model, output_table
):
    with pytest.raises(SchemaMismatchError, match=r"missing 'y' \(double\); also 'x' is bigint"):
        score(xy_model, view(spark.createDataFrame([(1,)], "x bigint")))
    assert not exists(output_table)


def test_a_model_whose_signature_names_no_columns_is_refused_with_the_fix(
    spark, view, score, tmp_path
):
    table = view(spark.createDataFrame([(1.0,)], "x double"))
    tensor = infer_signature(np.zeros((2, 2)), np.zeros(2))
    for inputs, outputs, message in (
        (None, None, "model must have a signature: got none"),
        (tensor.inputs, tensor.outputs, "model signature must name its input columns"),
        (infer_signature(XY).inputs, None, "model signature must have outputs"),
    ):
        model = save_model(tmp_path, weighted_sum, XY, inputs=inputs, outputs=outputs)
        with pytest.raises(SchemaMismatchError, match=message) as error:
            score(model, table)
        assert "infer_signature" in str(error.value)


@pytest.mark.connect
def test_rows_that_fail_are_quarantined_unchanged_and_every_row_is_in_one_table(
    spark, delta_table, score, choosy_model
):
    rows = [(i, float(i), 1.0, Decimal("1.10")) for i in range(200)]
    rows[7] = (7, None, 1.0, None)
    rows[150] = (150, -2.0, None, Decimal("2.20"))
    schema = "id int, x double, y double, `a note.of` decimal(5,2)"
    frame = spark.createDataFrame(rows, schema).repartition(4)
    frame_table = delta_table(frame, **{"delta.columnMapping.mode": "name"})
    result = score(choosy_model, frame_table)
    assert (result.rows_read, result.rows_scored, result.rows_quarantined) == (200, 198, 2)
    quarantine = spark.sql(f"SELECT * FROM {result.quarantine_table}")
    # Sorted by one column: chispa would sort by the dotted one, which it does not quote.
    assert_df_equality(
        quarantine.drop("_quarantine").orderBy("id"),
        spark.createDataFrame([rows[7], rows[150]], schema),
    )
    reasons = rows_of(spark, result.quarantine_table, "id", "_quarantine.reason")
    assert reasons == [(7, "ValueError: x contains NaN"), (150, "ValueError: x is negative")]
    (row,) = (
        quarantine.select("_quarantine.*").drop("reason", "quarantined_at").distinct().collect()
    )
    assert row.asDict() == {
        "batch": result.batch,
        "batch_id": result.batch_id,
        "model_uri": choosy_model,
        "input_table": frame_table,
        "input_version": 0,
    }
    scored = rows_of(spark, result.output_table, "id", "prediction")
    assert scored == [(i, 10.0 * i + 1) for i in range(200) if i not in (7, 150)]


@pytest.mark.slow
def test_a_model_that_fails_on_every_row_writes_nothing_unless_all_rows_may_be_quarantined(
    spark, view, score, choosy_model, output_table
):
    table = view(xy_rows(spark, *[(-1.0, 1.0)] * 100))
    with pytest.raises(
        NoScorableRowError, match="on every row, ValueError: x is negative; "
    ) as error:
        score(choosy_model, table)
    assert "max_quarantined_rows '100%'" in str(error.value)
    assert not exists(output_table)
    result = score(choosy_model, table, max_quarantined_rows="100%")
    assert (result.rows_scored, result.rows_quarantined) == (0, 100)


@pytest.mark.slow
def test_one_scorable_row_behind_many_others_is_enough(spark, view, score, choosy_model):
    table = view(xy_rows(spark, *[(-1.0, 1.0)] * 500, (5.0, 1.0)).coalesce(1))
    result = score(choosy_model, table, max_quarantined_rows=500)
    assert (result.rows_scored, result.rows_quarantined) == (1, 500)


@pytest.mark.slow
def test_too_many_quarantined_rows_end_the_job_after_both_tables_are_written(
    spark, view, score, choosy_model, output_table
):
    """A retry, which writes nothing, fails again."""
    table = view(xy_rows(spark, *((float(i), 1.0) for i in range(98)), *[(-1.0, 1.0)] * 2))
    quarantine_table = f"{output_table[:-1]}_quarantine`"
    for _ in range(2):
        with pytest.raises(TooManyQuarantinedRowsError, match="at most 1%: got 2 of 100") as error:
            score(choosy_model, table)
        assert quarantine_table in str(error.value)
        assert "raise max_quarantined_rows" in str(error.value)
    assert rows_of(spark, output_table, "count(*)") == [(98,)]
    assert rows_of(spark, quarantine_table, "count(*)") == [(2,)]


@pytest.mark.connect
def test_the_same_batch_a_second_time_writes_nothing(spark, delta_table, score, choosy_model):
    table = delta_table(xy_rows(spark, (1.0, 2.0), (-1.0, 2.0)))
    first = score(choosy_model, table, max_quarantined_rows="50%")
    tables = (first.output_table, first.quarantine_table)
    versions = [spark.sql(f"DESCRIBE HISTORY {name}").count() for name in tables]
    second = score(choosy_model, table, max_quarantined_rows="50%")
    assert (first.status, second.status) == ("scored", "already_scored")
    assert [spark.sql(f"DESCRIBE HISTORY {name}").count() for name in tables] == versions
    assert (second.batch_id, second.output_version) == (first.batch_id, first.output_version)
    assert (second.rows_scored, second.rows_quarantined) == (1, 1)
    spark.sql(f"INSERT INTO {table} VALUES (3.0, 3.0)")
    third = score(choosy_model, table, max_quarantined_rows="50%")
    assert third.status == "scored"
    assert third.batch_id != first.batch_id


@pytest.mark.slow
def test_a_view_needs_a_batch_id_that_names_one_set_of_rows(spark, view, score, xy_model):
    table = view(xy_rows(spark, (1.0, 2.0)))
    with pytest.raises(ScoringError, match="batch_id must be given for an input without versions"):
        score(xy_model, table, batch_id=None)
    statuses = [
        score(xy_model, table, batch_id=batch_id).status
        for batch_id in ("monday", "monday", "tuesday")
    ]
    assert statuses == ["scored", "already_scored", "scored"]
    with pytest.raises(ScoringError, match="batch_id must name one set of rows: got 'monday'"):
        score(xy_model, table, batch_id="monday", row_filter="x > 0")


def test_a_filter_that_changes_by_itself_needs_a_batch_id(spark, delta_table, score, xy_model):
    table = delta_table(spark.sql("SELECT 1.0D x, 2.0D y, current_date() AS day"))
    with pytest.raises(ScoringError, match=r"where row_filter may select other rows.*current_date"):
        score(xy_model, table, row_filter="day = current_date()")


@pytest.mark.connect
@pytest.mark.slow
def test_merge_updates_and_inserts_by_key_null_keys_included(spark, delta_table, score, xy_model):
    table = delta_table(
        spark.createDataFrame([(1, 1.0, 1.0), (None, 2.0, 2.0)], "id int, x double, y double")
    )
    merge = {"write_mode": "merge", "key_columns": "id"}
    score(xy_model, table, **merge)
    spark.sql(f"UPDATE {table} SET x = 5 WHERE id IS NULL")
    spark.sql(f"INSERT INTO {table} VALUES (3, 3.0, 3.0)")
    result = score(xy_model, table, **merge)
    assert result.rows_scored == 3
    rows = spark.sql(f"SELECT id, prediction FROM {result.output_table}").collect()
    assert {row[0]: row[1] for row in rows} == {None: 52.0, 1: 11.0, 3: 33.0}
    assert len(rows) == 3
    assert score(xy_model, table, **merge).status == "already_scored"


def test_merge_refuses_a_key_that_two_rows_share_and_shows_it(spark, view, score, xy_model):
    rows = [(1, 1.0, 1.0), (2, 2.0, 2.0), (2, 3.0, 3.0)]
    table = view(spark.createDataFrame(rows, "id int, x double, y double"))
    with pytest.raises(ScoringError, match="key_columns must name each input row once") as error:
        score(xy_model, table, write_mode="merge", key_columns=["id"])
    assert '2 rows with {"id":2}' in str(error.value)


@pytest.mark.slow
def test_replace_where_replaces_just_those_rows(spark, delta_table, score, choosy_model):
    rows = [(10, 1.0, 1.0), (11, 2.0, 2.0), (11, -1.0, 1.0)]
    table = delta_table(spark.createDataFrame(rows, "month int, x double, y double"))
    score(choosy_model, table, max_quarantined_rows="50%")
    spark.sql(f"UPDATE {table} SET y = 9")
    november = {
        "write_mode": "replace",
        "replace_where": "month = 11",
        "row_filter": "month = 11",
        "max_quarantined_rows": "50%",
    }
    result = score(choosy_model, table, **november)
    assert (result.rows_scored, result.rows_quarantined) == (1, 1)
    expected = [(10, 11.0), (11, 29.0)]
    assert rows_of(spark, result.output_table, "month", "prediction") == expected
    with pytest.raises(ScoringError, match="replace_where must hold for every scored row"):
        score(choosy_model, table, **{**november, "row_filter": "month > 0", "batch_id": "x"})
    assert rows_of(spark, result.output_table, "month", "prediction") == expected


@pytest.mark.slow
def test_replace_with_a_model_that_fails_on_every_row_keeps_the_old_rows(
    spark, view, score, choosy_model
):
    result = score(choosy_model, view(xy_rows(spark, (1.0, 1.0))))
    with pytest.raises(NoScorableRowError):
        score(
            choosy_model, view(xy_rows(spark, (-1.0, 1.0))), write_mode="replace", batch_id="second"
        )
    assert rows_of(spark, result.output_table, "prediction") == [(11.0,)]


@pytest.mark.slow
def test_a_partition_of_failing_rows_only_is_quarantined_where_the_output_exists(
    spark, view, score, choosy_model
):
    """There the guard is strict: it ends the write, and the write is repeated without it."""
    score(choosy_model, view(xy_rows(spark, (1.0, 1.0))))
    table = view(xy_rows(spark, *[(-1.0, 1.0)] * 3, (5.0, 1.0)).coalesce(1))
    result = score(choosy_model, table, max_quarantined_rows=3, batch_id="one arrow batch")
    assert (result.rows_scored, result.rows_quarantined) == (1, 3)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "2")
    try:
        result = score(choosy_model, table, max_quarantined_rows=3, batch_id="two arrow batches")
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert (result.rows_scored, result.rows_quarantined) == (1, 3)


@pytest.mark.slow
def test_a_stream_of_failing_rows_only_ends_the_job_each_time_until_they_may_be_quarantined(
    spark, delta_table, score, choosy_model
):
    table = delta_table(xy_rows(spark, (1.0, 1.0)))
    first = score(choosy_model, table, write_mode="incremental")
    spark.sql(f"INSERT INTO {table} VALUES (-1, 1), (-2, 1)")
    for _ in range(2):
        with pytest.raises(NoScorableRowError, match="every row, ValueError: x is negative"):
            score(choosy_model, table, write_mode="incremental")
    assert rows_of(spark, first.output_table, "prediction") == [(11.0,)]
    result = score(choosy_model, table, write_mode="incremental", max_quarantined_rows="100%")
    assert (result.rows_scored, result.rows_quarantined) == (0, 2)


@pytest.mark.connect
@pytest.mark.slow
def test_incremental_scores_the_new_rows_and_no_others(spark, delta_table, score, choosy_model):
    schema = "id int, x double, y double"
    table = delta_table(spark.createDataFrame([(1, 1.0, 1.0), (2, -1.0, 2.0)], schema))
    incremental = {
        "write_mode": "incremental",
        "row_filter": "id <> 5",
        "max_quarantined_rows": "60%",
    }
    first = score(choosy_model, table, **incremental)
    assert (first.rows_scored, first.rows_quarantined, first.input_version) == (1, 1, 0)
    assert score(choosy_model, table, **incremental).status == "no_new_rows"
    spark.sql(f"INSERT INTO {table} VALUES (3, 3.0, 3.0), (5, 5.0, 5.0)")
    spark.sql(f"INSERT INTO {table} VALUES (4, 4.0, 4.0)")
    spark.sql(f"OPTIMIZE {table}")
    second = score(choosy_model, table, **incremental)
    assert (second.rows_scored, second.rows_quarantined) == (2, 0)
    assert second.batch_id == first.batch_id[:-1] + "1"
    assert rows_of(spark, first.output_table, "id", "prediction", "_scoring.batch") == [
        (1, 11.0, first.batch),
        (3, 33.0, second.batch),
        (4, 44.0, second.batch),
    ]
    dry_run = score(choosy_model, table, **incremental, dry_run=True)
    assert dry_run.plan["input_versions_to_read"] == "none"
    spark.sql(f"DELETE FROM {table} WHERE id = 1")
    with pytest.raises(ScoringError, match="must only be appended to"):
        score(choosy_model, table, **incremental)


@pytest.mark.parametrize("kind", ["view", "temporary view", "parquet table", "parquet files"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_incremental_refuses_an_input_without_versions_and_leaves_nothing(
    spark, score, xy_model, tmp_path, kind, dry_run
):
    rows = xy_rows(spark, (1.0, 1.0))
    table = f"input_{kind.replace(' ', '_')}"
    if kind == "view":
        spark.sql(f"CREATE OR REPLACE VIEW {table} AS SELECT 1.0D AS x, 1.0D AS y")
    elif kind == "temporary view":
        rows.createOrReplaceTempView(table)
    elif kind == "parquet table":
        rows.write.format("parquet").mode("overwrite").saveAsTable(table)
    else:
        table = f"parquet.`{tmp_path}/rows`"
        rows.write.parquet(f"{tmp_path}/rows")
    with pytest.raises(ScoringError, match="input table must be a Delta table for write_mode"):
        score(
            xy_model,
            table,
            output_table=f"delta.`{tmp_path}/folder/output`",
            write_mode="incremental",
            dry_run=dry_run,
        )
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
def test_a_checkpoint_whose_output_is_gone_is_refused(
    spark, delta_table, score, xy_model, tmp_path
):
    """Otherwise the job would report that there are no new rows."""
    table = delta_table(xy_rows(spark, (1.0, 1.0)))
    incremental = {
        "write_mode": "incremental",
        "checkpoint_location": str(tmp_path / "checkpoint"),
    }
    score(xy_model, table, **incremental)
    with pytest.raises(ScoringError, match="checkpoint_location must belong to the output table"):
        score(xy_model, table, **incremental, output_table=f"delta.`{tmp_path}/other`")


@pytest.mark.slow
def test_the_ledger_has_the_expected_time_and_the_next_run_starts_from_the_last(
    spark, delta_table, score, xy_model, monkeypatch
):
    from dbx_aml.scoring import estimate, plan

    monkeypatch.setattr(plan, "_LARGE_INPUT", 1)
    monkeypatch.setattr(plan, "_BYTES_PER_TASK", 1)
    monkeypatch.setattr(estimate, "_MIN_ROWS", 1)
    table, steps = delta_table(xy_rows(spark, (1.0, 2.0), (3.0, 4.0))), []
    results = []
    for values in ("(5.0, 6.0)", "(7.0, 8.0)"):
        spark.sql(f"INSERT INTO {table} VALUES {values}")
        results.append(score(xy_model, table, progress=lambda step, *_: steps.append(step)))
    # A step that takes long reports its line again.
    lines = dict.fromkeys(step for step in steps if step.startswith("plan: "))
    assert [re.search(r"(\d) rows", line)[1] for line in lines] == ["3", "4"]
    entries = batches(results[0].output_table, spark).orderBy("batch").collect()
    estimates = [json.loads(entry.plan)["estimate"] for entry in entries]
    assert [e["rows"] for e in estimates] == [3, 4]
    assert estimates[0]["seconds_per_row"] > 0
    last_s = plan._FIXED_S + 4 / 3 * max(entries[0].seconds - plan._FIXED_S, 0)
    assert estimates[1]["seconds"] == pytest.approx(last_s)
    assert results[1].expected_seconds == round(last_s, 1)


@pytest.mark.connect
def test_a_dry_run_returns_the_plan_and_writes_nothing(
    spark, delta_table, score, xy_model, output_table
):
    rows = [(1, 1.0, 2.0, "a")] * 3
    frame = spark.createDataFrame(rows, "id int, y double, x double, note string").coalesce(1)
    table = delta_table(frame)
    result = score(xy_model, table, output_columns="id", dry_run=True, price_per_core_hour="1000")
    assert result.status == "planned"
    assert len(spark.sql(f"DESCRIBE HISTORY {table}").collect()) == 1
    assert result.plan["columns_to_read"] == "3 of 4"
    assert result.plan["partitions"].startswith(f"{result.plan['cores']}: about 0.0 MiB")
    assert result.plan["microseconds_per_row"] > 0
    assert result.plan["memory_per_worker_mib"] >= 0
    hours = result.plan["expected_seconds"] * result.plan["cores"] / 3600
    assert result.plan["expected_core_hours"] == pytest.approx(hours, rel=0.01)
    assert result.plan["expected_cost"] == pytest.approx(1000 * hours, rel=0.01)
    assert result.plan["columns"] == {"x": "x double -> double", "y": "y double -> double"}
    assert result.plan["columns_left_unread"] == ["note"]
    assert (result.plan["rows_to_read"], result.plan["files_to_read"]) == (3, 1)
    assert result.plan["output_columns"] == ["id", "prediction", "_scoring"]
    assert not exists(output_table)


@pytest.mark.slow
def test_an_empty_table_makes_an_empty_output_of_the_right_columns(spark, view, score, xy_model):
    result = score(xy_model, view(xy_rows(spark)))
    assert (result.status, result.rows_read) == ("scored", 0)
    columns = spark.sql(f"SELECT * FROM {result.output_table}").columns
    assert columns == ["x", "y", "prediction", "_scoring"]


@pytest.mark.slow
def test_unusual_column_names_reach_the_model_and_the_output_unchanged(
    spark, view, score, tmp_path
):
    names = ["a.b", "with space", "größe", "x`y", "select", "温度"]
    example = pd.DataFrame([[float(i) for i in range(6)]] * 2, columns=names)
    model = save_model(
        tmp_path, lambda rows: rows["a.b"] + 10 * rows["温度"] + rows["x`y"], example
    )
    result = score(model, view(spark.createDataFrame(example[names[::-1]])))
    output = spark.sql(f"SELECT * FROM {result.output_table}")
    assert output.columns == [*names[::-1], "prediction", "_scoring"]
    assert [row.prediction for row in output.collect()] == [53.0, 53.0]


@pytest.mark.slow
def test_five_hundred_columns_are_scored(spark, view, score, tmp_path):
    names = [f"c{i}" for i in range(500)]
    example = pd.DataFrame([np.arange(500.0), np.arange(500.0) * 2], columns=names)
    weights = np.arange(500.0)
    model = save_model(tmp_path, lambda rows: rows.to_numpy() @ weights, example)
    result = score(model, view(spark.createDataFrame(example[names[::-1]])))
    expected = float(weights @ weights)
    assert rows_of(spark, result.output_table, "prediction") == [(expected,), (2 * expected,)]


@pytest.mark.slow
def test_large_integers_stay_exact_beside_a_null(spark, view, score, tmp_path):
    example = pd.DataFrame({"n": pd.Series([1, 2], dtype="int64")})
    model = save_model(tmp_path, lambda rows: rows["n"], example)
    big = 2**53 + 1
    frame = spark.createDataFrame([(big,), (None,), (-big,)], "n bigint").coalesce(1)
    result = score(model, view(frame), max_quarantined_rows=1)
    assert rows_of(spark, result.output_table, "prediction") == [(-big,), (big,)]
    assert rows_of(spark, result.quarantine_table, "n", "_quarantine.reason") == [
        (None, "column 'n' must not be null: the model takes a long")
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "struct",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("string", "array", "double", "bigint", "boolean")
        ),
    ],
)
def test_every_type_of_prediction_keeps_its_values_and_its_nulls(
    spark, view, score, tmp_path, kind
):
    def values_for(rows, values):
        """Return the value of each row, in whatever batches the rows come."""
        return values[rows["x"].to_numpy().astype(int) - 1]

    two_outputs = pd.DataFrame({"value": [1.5, 2.5], "label": ["a", "b"]})
    matrix = np.array([[1.0, np.nan], [3.0, 4.0]])
    predict, example, predictions, spark_type = {
        "string": (
            lambda rows: [None if x == 1 else "größe" for x in rows["x"]],
            pd.Series(["a", "b"]),
            "[None, 'größe']",
            "string",
        ),
        "struct": (
            lambda rows: values_for(rows, two_outputs.iloc)[["label", "value"]].reset_index(
                drop=True
            ),
            two_outputs,
            "[Row(value=1.5, label='a'), Row(value=2.5, label='b')]",
            "struct<value:double,label:string>",
        ),
        "array": (
            lambda rows: values_for(rows, matrix),
            matrix,
            "[[1.0, nan], [3.0, 4.0]]",
            "array<double>",
        ),
        "double": (
            lambda rows: values_for(rows, np.array([np.nan, np.inf])),
            np.array([1.0, 2.0]),
            "[nan, inf]",
            "double",
        ),
        "bigint": (
            lambda rows: values_for(rows, np.array([2**53 + 1, -1])),
            np.array([1, 2]),
            "[9007199254740993, -1]",
            "bigint",
        ),
        "boolean": (
            lambda rows: rows["x"] > 1,
            np.array([True, False]),
            "[False, True]",
            "boolean",
        ),
    }[kind]
    x = pd.DataFrame({"x": [1.0, 2.0]})
    model = save_model(tmp_path, predict, x, outputs=infer_signature(x, example).outputs)
    result = score(model, view(spark.createDataFrame(x)))
    output = spark.sql(f"SELECT prediction FROM {result.output_table} ORDER BY x")
    assert str([row.prediction for row in output.collect()]) == predictions
    assert output.schema["prediction"].dataType.simpleString() == spark_type


@pytest.mark.slow
def test_dates_times_and_decimals_reach_the_model_as_they_are(spark, view, score, tmp_path):
    moment = pd.Timestamp("2013-10-27 02:30:00")
    example = pd.DataFrame(
        {
            "day": pd.Series([moment, moment]).dt.normalize(),
            "at": [moment, moment],
            "wall": [moment, moment],
            "price": [1.5, 2.5],
            "flag": [True, False],
        }
    )

    def describe(rows):
        return [
            f"{row.day:%Y-%m-%d} {row.at:%H:%M} {row.wall:%H:%M} {row.price} {row.flag}"
            for row in rows.itertuples()
        ]

    model = save_model(tmp_path, describe, example)
    frame = spark.sql(
        "SELECT DATE'2013-10-27' AS day, TIMESTAMP'2013-10-27 02:30:00' AS at, "
        "TIMESTAMP_NTZ'2013-10-27 02:30:00' AS wall, CAST('19.99' AS DECIMAL(10,2)) AS price, "
        "true AS flag UNION ALL SELECT DATE'9999-12-31', TIMESTAMP'2013-10-27 02:30:00', "
        "TIMESTAMP_NTZ'2013-10-27 02:30:00', 1.00, false UNION ALL "
        "SELECT DATE'2013-10-27', TIMESTAMP'+10000-01-01 00:00:00', "
        "TIMESTAMP_NTZ'2013-10-27 02:30:00', 1.00, false"
    )
    result = score(model, view(frame), max_quarantined_rows=2)
    assert rows_of(spark, result.output_table, "prediction") == [
        ("2013-10-27 02:30 02:30 19.99 True",)
    ]
    assert rows_of(spark, result.quarantine_table, "_quarantine.reason") == [
        (f"column '{name}' must lie between 1677-09-22 00:00:00 and 2262-04-11 00:00:00",)
        for name in ("at", "day")
    ]


@pytest.mark.slow
def test_a_timestamp_is_the_wall_time_of_the_session_in_every_zone(spark, view, score, tmp_path):
    example = pd.DataFrame({"at": [pd.Timestamp("2013-10-27")] * 2})
    model = save_model(tmp_path, lambda rows: rows["at"].dt.strftime("%H:%M"), example)
    table = view(spark.sql("SELECT TIMESTAMP'2013-07-01 12:00:00 UTC' AS at"))
    zone = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        result = score(model, table)
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    assert rows_of(spark, result.output_table, "prediction") == [("08:00",)]


@pytest.mark.parametrize(("zone", "warnings"), [("UTC", 0), ("Asia/Tokyo", 1)])
def test_the_time_zone_is_in_the_plan_and_one_warning_says_what_the_model_sees(
    spark, view, score, tmp_path, caplog, zone, warnings
):
    example = pd.DataFrame({"at": [pd.Timestamp("2013-10-27")] * 2})
    model = save_model(tmp_path, lambda rows: rows["at"].dt.strftime("%H:%M"), example)
    table = view(spark.sql("SELECT TIMESTAMP'2013-07-01 12:00:00 UTC' AS at"))
    old_zone = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", zone)
        result = score(model, table, dry_run=True)
    finally:
        spark.conf.set("spark.sql.session.timeZone", old_zone)
    assert result.plan["time_zone"] == zone
    text = "model sees timestamps as wall time in time_zone=Asia/Tokyo, not in UTC: columns=['at']"
    assert caplog.text.count(text) == warnings


def test_columns_that_differ_only_in_case_are_refused_in_a_session_that_ignores_case(
    spark, view, score, xy_model
):
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        schema = "id int, x double, X double, y double"
        table = view(spark.createDataFrame([(1, 2.0, 3.0, 4.0)], schema))
    finally:
        spark.conf.unset("spark.sql.caseSensitive")
    with pytest.raises(SchemaMismatchError, match=r"got \['x'\] more than once"):
        score(xy_model, table, output_columns="id")


def test_an_output_column_of_another_type_is_refused_before_any_work(
    spark, view, delta_table, score, xy_model
):
    output = delta_table(spark.createDataFrame([("a", 1.0)], "x string, prediction double"))
    with pytest.raises(SchemaMismatchError, match="'x' is string, not double"):
        score(xy_model, view(xy_rows(spark, (1.0, 1.0))), output_table=output)


@pytest.mark.slow
def test_the_output_gains_a_new_column_of_the_input(spark, view, score, xy_model):
    score(xy_model, view(xy_rows(spark, (1.0, 1.0))))
    wider = spark.createDataFrame([(2.0, 2.0, "new")], "x double, y double, note string")
    result = score(xy_model, view(wider), batch_id="second")
    rows = spark.sql(f"SELECT x, note FROM {result.output_table} ORDER BY x").collect()
    assert [tuple(row) for row in rows] == [(1.0, None), (2.0, "new")]


@pytest.mark.slow
def test_tables_of_the_catalog_are_scored_by_their_names(spark, xy_model):
    """Twice: the second job finds both tables."""
    spark.sql("DROP TABLE IF EXISTS scored_by_name")
    xy_rows(spark, (1.0, 2.0)).write.format("delta").mode("overwrite").saveAsTable("rows_by_name")
    for status in ("scored", "already_scored"):
        result = score_table(
            model_uri=xy_model,
            input_table="rows_by_name",
            output_table="scored_by_name",
            spark=spark,
        )
        assert result.status == status
    assert rows_of(spark, "scored_by_name", "x", "y", "prediction") == [(1.0, 2.0, 12.0)]
    assert result.quarantine_table == "scored_by_name_quarantine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"write_mode": "upsert"}, "write_mode must be one of append, incremental, merge, replace"),
        ({"write_mode": "merge"}, "write_mode 'merge' must have key_columns: got none"),
        ({"key_columns": "id"}, "key_columns must go with write_mode 'merge'"),
        ({"replace_where": "x > 1"}, "replace_where must go with write_mode 'replace'"),
        ({"checkpoint_location": "/c"}, "must go with write_mode 'incremental'"),
        ({"write_mode": "incremental"}, "into a named table must have checkpoint_location"),
        (
            {"write_mode": "incremental", "checkpoint_location": "/c", "batch_id": "b"},
            "batch_id must not go with write_mode 'incremental'",
        ),
        ({"output_table": "a-b"}, "output_table must be a name that SQL can read: got 'a-b'"),
        ({"output_table": "/data/o"}, "use delta.`/data/o`"),
        ({"output_table": ""}, "output_table must be given"),
        ({"model_uri": "models:/iris"}, "model URI must name a version or an alias"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused_before_spark_starts(arguments, message):
    defaults = {"model_uri": "models:/m/1", "input_table": "i", "output_table": "o"}
    with pytest.raises((ArgumentError, ModelUriError)) as error:
        score_table(**{**defaults, **arguments})
    assert message in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("is_view", [True, False])
def test_many_tiny_partitions_are_merged_without_a_shuffle(
    spark, view, delta_table, score, tmp_path, is_view
):
    """A partition is one call of the model."""
    calls = tmp_path / "calls"
    calls.mkdir()

    def predict(rows):
        (calls / uuid.uuid4().hex).touch()
        return weighted_sum(rows)

    frame = spark.range(0, 1000, numPartitions=64).select(
        "id", F.col("id").cast("double").alias("x"), F.lit(1.0).alias("y")
    )
    model = save_model(tmp_path, predict, XY)
    earlier_calls = len(list(calls.iterdir()))
    result = score(model, view(frame) if is_view else delta_table(frame))
    assert result.rows_scored == 1000
    assert 1 <= len(list(calls.iterdir())) - earlier_calls <= 2


@pytest.mark.slow
def test_replace_replaces_all_partitions_where_the_session_overwrites_them_dynamically(
    spark, delta_table, score, xy_model, output_table
):
    spark.sql(
        f"CREATE TABLE {output_table} (x DOUBLE, day STRING, prediction DOUBLE) "
        "USING delta PARTITIONED BY (day)"
    )
    spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
    try:
        for number, day in ((1.0, "mon"), (2.0, "tue")):
            rows = spark.createDataFrame([(number, 0.0, day)], "x double, y double, day string")
            score(xy_model, delta_table(rows), write_mode="replace", output_columns="x,day")
    finally:
        spark.conf.unset("spark.sql.sources.partitionOverwriteMode")
    assert [row.x for row in spark.sql(f"SELECT x FROM {output_table}").collect()] == [2.0]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ck [1]", "ck{a,b}", "ck*", "ck?#%20", "ck`a"])
def test_a_checkpoint_folder_may_have_any_name(
    spark, delta_table, score, xy_model, tmp_path, folder
):
    table = delta_table(xy_rows(spark, (1.0, 2.0)))
    arguments = {"write_mode": "incremental", "checkpoint_location": f"{tmp_path}/{folder}"}
    statuses = [score(xy_model, table, **arguments).status for _ in range(2)]
    assert statuses == ["scored", "no_new_rows"]


@pytest.mark.slow
def test_a_merge_goes_back_to_a_model_whose_quarantined_row_another_one_has_scored(
    spark, score, delta_table, xy_model, choosy_model
):
    table = delta_table(spark.sql("SELECT id, id * 2.0D - 1 AS x, 1.0D AS y FROM range(3)"))
    arguments = {"write_mode": "merge", "key_columns": "id", "max_quarantined_rows": "100%"}
    first = score(choosy_model, table, **arguments)
    assert (first.rows_scored, first.rows_quarantined) == (2, 1)
    score(xy_model, table, **arguments, row_filter="id = 0")
    assert ids_of(spark, first.output_table) == [0, 1, 2]
    assert score(choosy_model, table, **arguments).status == "scored"
    assert ids_of(spark, first.output_table) == [1, 2]
    spark.sql(f"DELETE FROM {first.quarantine_table} WHERE true")
    assert score(choosy_model, table, **arguments).status == "scored"
    assert ids_of(spark, first.quarantine_table) == [0]


def test_a_second_run_takes_a_comment_in_replace_where_and_a_quarantine_that_an_administrator_made(
    spark, score, delta_table, xy_model, output_table
):
    table = delta_table(spark.sql("SELECT 1 AS id, 1.0D AS x, 1.0D AS y"))
    quarantine = output_table.replace("output", "made")
    spark.sql(f"CREATE TABLE {quarantine} (id INT, x DOUBLE, y DOUBLE) USING delta")
    arguments = {
        "write_mode": "replace", "replace_where": "id < 9 -- all", "quarantine_table": quarantine,
        "max_quarantined_rows": "",
    }  # fmt: skip
    assert score(xy_model, table, **arguments).status == "scored"
    assert score(xy_model, table, **arguments).status == "already_scored"


@pytest.mark.slow
def test_a_merge_without_a_challenger_leaves_no_answer_of_an_earlier_challenger(
    spark, score, delta_table, tmp_path, xy_model, choosy_model
):
    table = delta_table(spark.sql("SELECT 1 AS id, 1.0D AS x, 1.0D AS y"))
    arguments = {"write_mode": "merge", "key_columns": "id"}
    score(xy_model, table, **arguments, challenger_uri=choosy_model)
    result = score(choosy_model, table, **arguments)
    rows = spark.sql(f"SELECT prediction, _challenger FROM {result.output_table}").collect()
    assert [tuple(row) for row in rows] == [(11.0, None)]


def ids_of(spark, table):
    return sorted(row_id for (row_id,) in spark.sql(f"SELECT id FROM {table}").collect())
