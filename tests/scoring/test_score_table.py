"""What `score_table` promises, on real tables. Run again on Spark Connect by its own module."""

import contextlib
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from mlflow.models import infer_signature
from pyspark.sql import functions as F

from dbx_aml import score_table
from dbx_aml._common.errors import ArgumentError, ScoringError
from tests.support.models import XY, choosy_sum, save_model, weighted_sum

pytestmark = pytest.mark.spark


@pytest.fixture
def name(request, spark):
    """Makes table names of this test's own."""
    prefix = f"t{abs(hash(request.node.nodeid)) % 10**10}"
    made = []

    def table(suffix):
        made.append(f"{prefix}_{suffix}")
        return made[-1]

    yield table
    for one in made:
        for suffix in ("", "_quarantine"):
            spark.sql(f"DROP TABLE IF EXISTS {one}{suffix}")


@pytest.fixture
def xy_model(tmp_path):
    return save_model(tmp_path, weighted_sum, XY)


@pytest.fixture
def choosy_model(tmp_path):
    return save_model(tmp_path, choosy_sum, XY)


def write(frame, table, **options):
    frame.write.format("delta").options(**options).saveAsTable(table)
    return table


def rows_of(spark, table, *columns):
    return sorted(tuple(row) for row in spark.table(table).select(*columns).collect())


def plan_of(frame):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        frame.explain()
    return text.getvalue()


def test_scoring_matches_columns_by_name_not_by_position(spark, name, xy_model):
    table = write(
        spark.createDataFrame([(1.0, "a", 2.0)], "y double, note string, x double"), name("i")
    )
    result = score_table(model_uri=xy_model, input_table=table, output_table=name("o"), spark=spark)
    actual = spark.table(result.output_table).drop("_scoring")
    expected = spark.createDataFrame(
        [(1.0, "a", 2.0, 21.0)], "y double, note string, x double, prediction double"
    )
    assert_df_equality(actual, expected)
    assert (result.status, result.rows_read, result.rows_scored) == ("scored", 1, 1)


def test_a_row_says_where_it_came_from_and_so_does_the_commit(spark, name, mlflow_store):
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
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("sum", "champion", "1")
    table = write(spark.createDataFrame([(1.0, 2.0), (2.0, 3.0)], "x double, y double"), name("i"))
    spark.sql(f"INSERT INTO {table} VALUES (3.0, 4.0)")
    before = datetime.now(UTC).replace(tzinfo=None)
    result = score_table(
        model_uri="models:/sum@champion", input_table=table, output_table=name("o"), spark=spark
    )
    about = spark.table(result.output_table).select("_scoring.*").distinct().collect()
    assert len(about) == 1
    row = about[0].asDict()
    assert before <= row.pop("scored_at") <= datetime.now(UTC).replace(tzinfo=None)
    expected = {
        "model_uri": "models:/sum/1",
        "model_name": "sum",
        "model_version": "1",
        "model_run_id": run.info.run_id,
        "batch_id": result.batch_id,
        "input_version": 1,
    }
    assert row == expected
    history = spark.sql(f"DESCRIBE HISTORY {result.output_table} LIMIT 1").collect()[0]
    commit = json.loads(history["userMetadata"])["dbx_aml"]
    assert {key: commit[key] for key in expected} == expected
    assert result.output_version == history["version"]
    assert result.model_uri == "models:/sum/1"


def test_missing_and_lossy_columns_are_said_before_any_work(spark, name, xy_model):
    table = write(spark.createDataFrame([(1,)], "x bigint"), name("i"))
    with pytest.raises(ScoringError) as err:
        score_table(model_uri=xy_model, input_table=table, output_table=name("o"), spark=spark)
    assert str(err.value) == (
        "input table must have the model's columns: missing 'y' (double); also 'x' is bigint, the "
        "model takes double; got ['x']"
    )
    assert not spark.catalog.tableExists(f"{table[:-1]}o")


def test_a_model_whose_signature_names_no_columns_is_refused_with_what_to_do(spark, name, tmp_path):
    table = write(spark.createDataFrame([(1.0,)], "x double"), name("i"))
    arguments = {"input_table": table, "output_table": name("o"), "spark": spark}
    tensor = infer_signature(np.zeros((2, 2)), np.zeros(2))
    for inputs, outputs, message in (
        (None, None, "model must have a signature: got none"),
        (tensor.inputs, tensor.outputs, "model signature must name its input columns"),
        (infer_signature(XY).inputs, None, "model signature must have outputs"),
    ):
        model = save_model(tmp_path, weighted_sum, XY, inputs=inputs, outputs=outputs)
        with pytest.raises(ScoringError, match=message) as err:
            score_table(model_uri=model, **arguments)
        assert "infer_signature" in str(err.value)


def test_the_plan_reads_only_the_columns_it_needs_and_asks_the_model_once(spark, name, xy_model):
    from dbx_aml.scoring.model_udf import Scorer
    from dbx_aml.scoring.plan import tolerance
    from dbx_aml.scoring.resolved_request import Batch, Recipe

    columns = ", ".join(f"{i} AS c{i}" for i in range(20))
    table = write(spark.sql(f"SELECT 1.0D AS x, 2.0D AS y, {columns}"), name("i"))
    recipe = Recipe(
        model_uri=xy_model,
        tracking_uri="sqlite://",
        registry_uri="sqlite://",
        input_table=table,
        output_table=name("o"),
        quarantine_table=name("q"),
        row_filter=None,
        output_columns=("c3",),
        key_columns=(),
        write_mode="append",
        replace_where=None,
        max_quarantined_rows=tolerance(0),
        env_manager="local",
    )
    scorer = Scorer(spark, recipe)
    batch = Batch(id="b", app_id="a", app_version=1, input_version=0)
    good, _ = scorer.good(spark.table(table), batch)
    plan = plan_of(good)
    assert plan.count("ArrowEvalPython") == 1
    assert "ReadSchema: struct<x:double,y:double,c3:int>" in plan
    bad = plan_of(scorer.bad(spark.table(table), batch))
    assert bad.count("ArrowEvalPython") == 1


def test_bad_rows_are_set_aside_as_they_were_and_every_row_is_in_one_table(
    spark, name, choosy_model
):
    rows = [(i, float(i), 1.0, Decimal("1.10")) for i in range(200)]
    rows[7] = (7, None, 1.0, None)
    rows[150] = (150, -2.0, None, Decimal("2.20"))
    schema = "id int, x double, y double, `a note.of` decimal(5,2)"
    table = write(
        spark.createDataFrame(rows, schema).repartition(4),
        name("i"),
        **{"delta.columnMapping.mode": "name"},
    )
    result = score_table(
        model_uri=choosy_model, input_table=table, output_table=name("o"), spark=spark
    )
    assert (result.rows_read, result.rows_scored, result.rows_quarantined) == (200, 198, 2)
    quarantine = spark.table(result.quarantine_table)
    # Sorted by one column: chispa would sort by the dotted one, which it does not quote.
    assert_df_equality(
        quarantine.drop("_quarantine").orderBy("id"),
        spark.createDataFrame([rows[7], rows[150]], schema),
    )
    reasons = rows_of(spark, result.quarantine_table, "id", "_quarantine.reason")
    assert reasons == [(7, "ValueError: x contains NaN"), (150, "ValueError: x is negative")]
    about = quarantine.select("_quarantine.*").drop("reason", "quarantined_at").distinct().collect()
    assert [row.asDict() for row in about] == [
        {"batch_id": result.batch_id, "model_uri": choosy_model, "input_version": 0}
    ]
    scored = rows_of(spark, result.output_table, "id", "prediction")
    assert scored == [(i, 10.0 * i + 1) for i in range(200) if i not in (7, 150)]


def test_a_model_that_fails_on_every_row_publishes_nothing(spark, name, choosy_model):
    table = write(spark.createDataFrame([(-1.0, 1.0)] * 100, "x double, y double"), name("i"))
    arguments = {"model_uri": choosy_model, "input_table": table, "output_table": name("o")}
    with pytest.raises(ScoringError) as err:
        score_table(**arguments, spark=spark)
    assert str(err.value) == (
        "model must score at least one row: got an error on every row, ValueError: x is negative; "
        "correct the model or the rows, or pass max_quarantined_rows '100%' to quarantine all rows"
    )
    assert not spark.catalog.tableExists(arguments["output_table"])
    assert not spark.catalog.tableExists(arguments["output_table"] + "_quarantine")
    result = score_table(**arguments, max_quarantined_rows="100%", spark=spark)
    assert (result.rows_scored, result.rows_quarantined) == (0, 100)


def test_good_rows_behind_many_bad_ones_are_found(spark, name, choosy_model):
    rows = [(-1.0, 1.0)] * 500 + [(5.0, 1.0)]
    table = write(spark.createDataFrame(rows, "x double, y double").coalesce(1), name("i"))
    result = score_table(
        model_uri=choosy_model,
        input_table=table,
        output_table=name("o"),
        max_quarantined_rows=500,
        spark=spark,
    )
    assert (result.rows_scored, result.rows_quarantined) == (1, 500)


def test_too_many_bad_rows_end_the_job_after_both_tables_are_written(spark, name, choosy_model):
    rows = [(float(i), 1.0) for i in range(98)] + [(-1.0, 1.0)] * 2
    table = write(spark.createDataFrame(rows, "x double, y double"), name("i"))
    out = name("o")
    with pytest.raises(ScoringError) as err:
        score_table(model_uri=choosy_model, input_table=table, output_table=out, spark=spark)
    assert str(err.value) == (
        f"quarantined rows must be at most 1%: got 2 of 100, now in {out}_quarantine, the other "
        f"98 are in {out}; look at the reasons, or raise max_quarantined_rows"
    )
    assert spark.table(out).count() == 98
    assert spark.table(f"{out}_quarantine").count() == 2


def test_the_same_batch_a_second_time_writes_nothing_and_says_so(spark, name, choosy_model):
    table = write(spark.createDataFrame([(1.0, 2.0), (-1.0, 2.0)], "x double, y double"), name("i"))
    arguments = {
        "model_uri": choosy_model,
        "input_table": table,
        "output_table": name("o"),
        "max_quarantined_rows": "50%",
    }
    first = score_table(**arguments, spark=spark)
    tables = (first.output_table, first.quarantine_table)
    versions = [spark.sql(f"DESCRIBE HISTORY {t}").count() for t in tables]
    again = score_table(**arguments, spark=spark)
    assert (first.status, again.status) == ("scored", "already_scored")
    assert [spark.sql(f"DESCRIBE HISTORY {t}").count() for t in tables] == versions
    assert (again.batch_id, again.output_version) == (first.batch_id, first.output_version)
    assert (again.rows_scored, again.rows_quarantined) == (1, 1)
    spark.sql(f"INSERT INTO {table} VALUES (3.0, 3.0)")
    third = score_table(**arguments, spark=spark)
    assert third.status == "scored"
    assert third.batch_id != first.batch_id


def test_a_view_needs_a_batch_id_and_keeps_to_it(spark, name, xy_model):
    table = write(spark.createDataFrame([(1.0, 2.0)], "x double, y double"), name("i"))
    view = f"{table}_view"
    spark.sql(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT x, y FROM {table}")
    arguments = {"model_uri": xy_model, "input_table": view, "output_table": name("o")}
    with pytest.raises(ScoringError, match="batch_id must be given for an input without versions"):
        score_table(**arguments, spark=spark)
    assert score_table(**arguments, batch_id="monday", spark=spark).status == "scored"
    assert score_table(**arguments, batch_id="monday", spark=spark).status == "already_scored"
    assert score_table(**arguments, batch_id="tuesday", spark=spark).status == "scored"
    assert spark.table(arguments["output_table"]).count() == 2
    with pytest.raises(ScoringError, match="batch_id must name one set of rows: got 'monday'"):
        score_table(**arguments, batch_id="monday", row_filter="x > 0", spark=spark)
    spark.catalog.dropTempView(view)


def test_a_filter_that_changes_by_itself_needs_a_batch_id(spark, name, xy_model):
    table = write(spark.sql("SELECT 1.0D x, 2.0D y, current_date() AS day"), name("i"))
    with pytest.raises(ScoringError, match=r"where row_filter changes by itself.*current_date"):
        score_table(
            model_uri=xy_model,
            input_table=table,
            output_table=name("o"),
            row_filter="day = current_date()",
            spark=spark,
        )


def test_merge_updates_and_inserts_by_key_null_keys_included(spark, name, xy_model):
    schema = "id int, x double, y double"
    table = write(spark.createDataFrame([(1, 1.0, 1.0), (None, 2.0, 2.0)], schema), name("i"))
    arguments = {
        "model_uri": xy_model,
        "input_table": table,
        "output_table": name("o"),
        "write_mode": "merge",
        "key_columns": "id",
    }
    score_table(**arguments, spark=spark)
    spark.sql(f"UPDATE {table} SET x = 5 WHERE id IS NULL")
    spark.sql(f"INSERT INTO {table} VALUES (3, 3.0, 3.0)")
    result = score_table(**arguments, spark=spark)
    assert result.rows_scored == 3
    rows = spark.table(result.output_table).select("id", "prediction").collect()
    assert {row[0]: row[1] for row in rows} == {None: 52.0, 1: 11.0, 3: 33.0}
    assert len(rows) == 3
    assert score_table(**arguments, spark=spark).status == "already_scored"


def test_merge_refuses_a_key_that_two_rows_share_and_shows_it(spark, name, xy_model):
    rows = [(1, 1.0, 1.0), (2, 2.0, 2.0), (2, 3.0, 3.0)]
    table = write(spark.createDataFrame(rows, "id int, x double, y double"), name("i"))
    with pytest.raises(ScoringError) as err:
        score_table(
            model_uri=xy_model,
            input_table=table,
            output_table=name("o"),
            write_mode="merge",
            key_columns=["id"],
            spark=spark,
        )
    assert str(err.value) == (
        'key_columns must name each input row once: got 2 rows with {"id":2}; add a column to the '
        "key or remove the duplicates"
    )


def test_replace_where_replaces_just_those_rows(spark, name, choosy_model):
    table = write(
        spark.createDataFrame(
            [(10, 1.0, 1.0), (11, 2.0, 2.0), (11, -1.0, 1.0)], "month int, x double, y double"
        ),
        name("i"),
    )
    arguments = {"model_uri": choosy_model, "input_table": table, "output_table": name("o")}
    score_table(**arguments, max_quarantined_rows="50%", spark=spark)
    spark.sql(f"UPDATE {table} SET y = 9")
    november = {
        "write_mode": "replace",
        "replace_where": "month = 11",
        "row_filter": "month = 11",
        "max_quarantined_rows": "50%",
    }
    result = score_table(**arguments, **november, spark=spark)
    assert (result.rows_scored, result.rows_quarantined) == (1, 1)
    assert rows_of(spark, result.output_table, "month", "prediction") == [(10, 11.0), (11, 29.0)]
    with pytest.raises(ScoringError, match="replace_where must hold for every scored row"):
        score_table(
            **arguments, **{**november, "row_filter": "month > 0", "batch_id": "x"}, spark=spark
        )
    assert rows_of(spark, result.output_table, "month", "prediction") == [(10, 11.0), (11, 29.0)]


def test_replace_with_a_model_that_fails_on_every_row_keeps_the_old_rows(spark, name, choosy_model):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    arguments = {"model_uri": choosy_model, "input_table": table, "output_table": name("o")}
    score_table(**arguments, spark=spark)
    spark.sql(f"UPDATE {table} SET x = -1")
    with pytest.raises(ScoringError, match="at least one row"):
        score_table(**arguments, write_mode="replace", spark=spark)
    assert rows_of(spark, arguments["output_table"], "prediction") == [(11.0,)]


def test_bad_rows_alone_in_a_partition_are_set_aside_where_the_output_is_there(
    spark, name, choosy_model
):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    arguments = {"model_uri": choosy_model, "input_table": table, "output_table": name("o")}
    score_table(**arguments, spark=spark)
    rows = [(-1.0, 1.0)] * 3 + [(5.0, 1.0)]
    frame = spark.createDataFrame(rows, "x double, y double").coalesce(1)
    other = write(frame, name("i2"))
    result = score_table(**{**arguments, "input_table": other}, max_quarantined_rows=3, spark=spark)
    assert (result.rows_scored, result.rows_quarantined) == (1, 3)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "2")
    try:
        result = score_table(
            **{**arguments, "input_table": other},
            max_quarantined_rows=3,
            batch_id="again",
            spark=spark,
        )
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert (result.rows_scored, result.rows_quarantined) == (1, 3)


def test_a_night_of_bad_rows_only_ends_the_job_and_is_scored_once_the_model_is_mended(
    spark, name, choosy_model, tmp_path
):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    arguments = {
        "model_uri": choosy_model,
        "input_table": table,
        "output_table": f"delta.`{tmp_path}/out`",
        "write_mode": "incremental",
    }
    score_table(**arguments, spark=spark)
    spark.sql(f"INSERT INTO {table} VALUES (-1, 1), (-2, 1)")
    for _ in range(2):
        with pytest.raises(ScoringError, match="error on every row, ValueError: x is negative"):
            score_table(**arguments, spark=spark)
    assert rows_of(spark, arguments["output_table"], "prediction") == [(11.0,)]
    result = score_table(**arguments, max_quarantined_rows="100%", spark=spark)
    assert (result.rows_scored, result.rows_quarantined) == (0, 2)


def test_incremental_scores_what_is_new_and_only_that(spark, name, choosy_model, tmp_path):
    schema = "id int, x double, y double"
    table = write(spark.createDataFrame([(1, 1.0, 1.0), (2, -1.0, 2.0)], schema), name("i"))
    out = f"delta.`{tmp_path}/out`"
    arguments = {
        "model_uri": choosy_model,
        "input_table": table,
        "output_table": out,
        "write_mode": "incremental",
        "row_filter": "id <> 5",
        "max_quarantined_rows": "60%",
    }
    first = score_table(**arguments, spark=spark)
    assert (first.rows_scored, first.rows_quarantined, first.input_version) == (1, 1, 0)
    assert score_table(**arguments, spark=spark).status == "no_new_rows"
    spark.sql(f"INSERT INTO {table} VALUES (3, 3.0, 3.0), (5, 5.0, 5.0)")
    spark.sql(f"INSERT INTO {table} VALUES (4, 4.0, 4.0)")
    spark.sql(f"OPTIMIZE {table}")
    second = score_table(**arguments, spark=spark)
    assert (second.rows_scored, second.rows_quarantined) == (2, 0)
    assert second.batch_id == first.batch_id[:-1] + "1"
    rows = spark.sql(f"SELECT id, prediction, _scoring.batch_id FROM {out} ORDER BY id").collect()
    assert [tuple(row) for row in rows] == [
        (1, 11.0, first.batch_id),
        (3, 33.0, second.batch_id),
        (4, 44.0, second.batch_id),
    ]
    assert (
        score_table(**arguments, dry_run=True, spark=spark).plan["input_versions_to_read"] == "none"
    )
    spark.sql(f"DELETE FROM {table} WHERE id = 1")
    with pytest.raises(ScoringError, match="input table must only be appended to"):
        score_table(**arguments, spark=spark)


@pytest.mark.parametrize("kind", ["a view", "a temporary view", "a parquet table", "parquet files"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_incremental_refuses_what_has_no_versions_and_leaves_nothing(
    spark, name, xy_model, tmp_path, kind, dry_run
):
    rows = spark.createDataFrame([(1.0, 1.0)], "x double, y double")
    table = f"delta_{kind.split()[-1]}"
    if kind == "a view":
        spark.sql(f"CREATE OR REPLACE VIEW {table} AS SELECT * FROM {write(rows, name('i'))}")
    elif kind == "a temporary view":
        rows.createOrReplaceTempView(table)
    elif kind == "a parquet table":
        rows.write.format("parquet").mode("overwrite").saveAsTable(table)
    else:
        table = f"parquet.`{tmp_path}/rows`"
        rows.write.parquet(f"{tmp_path}/rows")
    with pytest.raises(ScoringError, match="input table must be a Delta table for write_mode"):
        score_table(
            model_uri=xy_model,
            input_table=table,
            output_table=f"delta.`{tmp_path}/made/out`",
            write_mode="incremental",
            dry_run=dry_run,
            spark=spark,
        )
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_whose_output_is_gone_is_not_taken_for_nothing_new(
    spark, name, xy_model, tmp_path
):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    arguments = {
        "model_uri": xy_model,
        "input_table": table,
        "write_mode": "incremental",
        "checkpoint_location": str(tmp_path / "checkpoint"),
    }
    score_table(**arguments, output_table=name("a"), spark=spark)
    with pytest.raises(ScoringError, match="checkpoint_location must belong to the output table"):
        score_table(**arguments, output_table=name("b"), spark=spark)


def test_a_dry_run_says_everything_and_writes_nothing(spark, name, xy_model):
    table = write(
        spark.createDataFrame([(1, 1.0, 2.0)] * 3, "id int, y double, x double").coalesce(1),
        name("i"),
    )
    result = score_table(
        model_uri=xy_model,
        input_table=table,
        output_table=name("o"),
        output_columns="id",
        dry_run=True,
        spark=spark,
    )
    assert result.status == "planned"
    assert result.plan["columns"] == {"x": "x double -> double", "y": "y double -> double"}
    assert (result.plan["rows_to_read"], result.plan["files_to_read"]) == (3, 1)
    assert result.plan["output_columns"] == ["id", "prediction", "_scoring"]
    assert not spark.catalog.tableExists(result.output_table)


def test_an_empty_table_makes_an_empty_output_of_the_right_columns(spark, name, xy_model):
    table = write(spark.createDataFrame([], "x double, y double"), name("i"))
    result = score_table(model_uri=xy_model, input_table=table, output_table=name("o"), spark=spark)
    assert (result.status, result.rows_read) == ("scored", 0)
    assert spark.table(result.output_table).columns == ["x", "y", "prediction", "_scoring"]


def test_odd_column_names_reach_the_model_and_the_output_unchanged(spark, name, tmp_path):
    names = ["a.b", "with space", "größe", "x`y", "select", "温度"]
    example = pd.DataFrame([[float(i) for i in range(6)]] * 2, columns=names)
    model = save_model(
        tmp_path, lambda rows: rows["a.b"] + 10 * rows["温度"] + rows["x`y"], example
    )
    frame = spark.createDataFrame(example[names[::-1]])
    table = write(frame, name("i"), **{"delta.columnMapping.mode": "name"})
    result = score_table(model_uri=model, input_table=table, output_table=name("o"), spark=spark)
    assert spark.table(result.output_table).columns == [*names[::-1], "prediction", "_scoring"]
    assert rows_of(spark, result.output_table, "prediction") == [(53.0,), (53.0,)]


def test_five_hundred_columns_are_scored(spark, name, tmp_path):
    names = [f"c{i}" for i in range(500)]
    example = pd.DataFrame([np.arange(500.0), np.arange(500.0) * 2], columns=names)
    weights = np.arange(500.0)
    model = save_model(tmp_path, lambda rows: rows.to_numpy() @ weights, example)
    table = write(spark.createDataFrame(example[names[::-1]]), name("i"))
    result = score_table(model_uri=model, input_table=table, output_table=name("o"), spark=spark)
    expected = float(weights @ weights)
    assert rows_of(spark, result.output_table, "prediction") == [(expected,), (2 * expected,)]


def test_large_integers_stay_exact_beside_a_null(spark, name, tmp_path):
    example = pd.DataFrame({"n": pd.Series([1, 2], dtype="int64")})
    model = save_model(tmp_path, lambda rows: rows["n"], example)
    big = 2**53 + 1
    table = write(
        spark.createDataFrame([(big,), (None,), (-big,)], "n bigint").coalesce(1), name("i")
    )
    result = score_table(
        model_uri=model,
        input_table=table,
        output_table=name("o"),
        max_quarantined_rows=1,
        spark=spark,
    )
    assert rows_of(spark, result.output_table, "prediction") == [(-big,), (big,)]
    assert rows_of(spark, result.quarantine_table, "n", "_quarantine.reason") == [
        (None, "column 'n' must not be null: the model takes a long")
    ]


def test_every_kind_of_prediction_keeps_its_values_and_its_nulls(spark, name, tmp_path):
    example = pd.DataFrame({"x": [1.0, 2.0]})
    frame = spark.createDataFrame([(1.0,), (2.0,)], "x double").coalesce(1)
    table = write(frame, name("i"))
    text = pd.DataFrame({"x": ["a", "b"]})

    def one(predict, outputs):
        model = save_model(
            tmp_path, predict, example, outputs=infer_signature(example, outputs).outputs
        )
        result = score_table(
            model_uri=model,
            input_table=table,
            output_table=f"delta.`{tmp_path}/o{model[-1]}`",
            spark=spark,
        )
        rows = spark.sql(f"SELECT x, prediction FROM {result.output_table} ORDER BY x").collect()
        return [row[1] for row in rows], spark.sql(
            f"SELECT prediction FROM {result.output_table}"
        ).schema[0].dataType.simpleString()

    strings = one(lambda rows: [None if x == 1 else "größe" for x in rows["x"]], text["x"])
    assert strings == ([None, "größe"], "string")
    both = pd.DataFrame({"value": [1.5, 2.5], "label": ["a", "b"]})
    values, kind = one(lambda rows: both.iloc[: len(rows)][["label", "value"]], both)
    assert [tuple(value) for value in values] == [(1.5, "a"), (2.5, "b")]
    assert kind == "struct<value:double,label:string>"
    matrix = np.array([[1.0, np.nan], [3.0, 4.0]])
    values, kind = one(lambda rows: matrix[: len(rows)], matrix)
    assert (str(values), kind) == ("[[1.0, nan], [3.0, 4.0]]", "array<double>")
    values, kind = one(lambda rows: np.array([np.nan, np.inf])[: len(rows)], np.array([1.0, 2.0]))
    assert (str(values), kind) == ("[nan, inf]", "double")
    values, kind = one(lambda rows: np.array([2**53 + 1, -1])[: len(rows)], np.array([1, 2]))
    assert (values, kind) == ([2**53 + 1, -1], "bigint")
    values, kind = one(lambda rows: rows["x"] > 1, np.array([True, False]))
    assert (values, kind) == ([False, True], "boolean")


def test_dates_times_and_decimals_reach_the_model_as_they_are(spark, name, tmp_path):
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

    def show(rows):
        return [
            f"{row.day:%Y-%m-%d} {row.at:%H:%M} {row.wall:%H:%M} {row.price} {row.flag}"
            for row in rows.itertuples()
        ]

    model = save_model(tmp_path, show, example)
    frame = spark.sql(
        "SELECT DATE'2013-10-27' AS day, TIMESTAMP'2013-10-27 02:30:00' AS at, "
        "TIMESTAMP_NTZ'2013-10-27 02:30:00' AS wall, CAST('19.99' AS DECIMAL(10,2)) AS price, "
        "true AS flag UNION ALL SELECT DATE'9999-12-31', TIMESTAMP'2013-10-27 02:30:00', "
        "TIMESTAMP_NTZ'2013-10-27 02:30:00', 1.00, false"
    )
    table = write(frame, name("i"))
    result = score_table(
        model_uri=model,
        input_table=table,
        output_table=name("o"),
        max_quarantined_rows=1,
        spark=spark,
    )
    assert rows_of(spark, result.output_table, "prediction") == [
        ("2013-10-27 02:30 02:30 19.99 True",)
    ]
    assert rows_of(spark, result.quarantine_table, "_quarantine.reason") == [
        ("column 'day' must lie between 1677-09-22 00:00:00 and 2262-04-11 00:00:00",)
    ]


def test_a_timestamp_is_the_wall_time_of_the_session_whatever_its_zone(spark, name, tmp_path):
    example = pd.DataFrame({"at": [pd.Timestamp("2013-10-27")] * 2})
    model = save_model(tmp_path, lambda rows: rows["at"].dt.strftime("%H:%M"), example)
    table = write(spark.sql("SELECT TIMESTAMP'2013-07-01 12:00:00 UTC' AS at"), name("i"))
    before = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        result = score_table(
            model_uri=model, input_table=table, output_table=name("o"), spark=spark
        )
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)
    assert rows_of(spark, result.output_table, "prediction") == [("08:00",)]


def test_an_output_whose_column_would_change_its_type_is_refused_before_work(spark, name, xy_model):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    out = write(spark.createDataFrame([("a", 1.0)], "x string, prediction double"), name("o"))
    with pytest.raises(ScoringError, match="'x' is string, not double"):
        score_table(model_uri=xy_model, input_table=table, output_table=out, spark=spark)


def test_a_column_that_the_input_gained_is_gained_by_the_output(spark, name, xy_model):
    table = write(spark.createDataFrame([(1.0, 1.0)], "x double, y double"), name("i"))
    arguments = {"model_uri": xy_model, "input_table": table, "output_table": name("o")}
    score_table(**arguments, spark=spark)
    spark.sql(f"ALTER TABLE {table} ADD COLUMN note string")
    spark.sql(f"INSERT INTO {table} VALUES (2.0, 2.0, 'new')")
    score_table(**arguments, row_filter="note IS NOT NULL", spark=spark)
    rows = spark.table(arguments["output_table"]).select("x", "note").orderBy("x").collect()
    assert [tuple(row) for row in rows] == [(1.0, None), (2.0, "new")]


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
        ({"output_table": "i"}, "output_table must not be the input table"),
        ({"output_table": "/data/o"}, "use delta.`/data/o`"),
        ({"output_table": ""}, "output_table must be given"),
        ({"model_uri": "models:/iris"}, "model URI must name a version or an alias"),
    ],
)
def test_arguments_that_do_not_go_together_are_said_before_spark_is_asked(arguments, message):
    given = {"model_uri": "models:/m/1", "input_table": "i", "output_table": "o", **arguments}
    with pytest.raises((ArgumentError, ValueError)) as err:
        score_table(**given)
    assert message in str(err.value)


def test_many_tiny_partitions_are_merged_without_a_shuffle(spark, name, xy_model):
    view = name("v")
    many = spark.range(0, 1000, numPartitions=64).select(
        F.col("id"), F.col("id").cast("double").alias("x"), F.lit(1.0).alias("y")
    )
    many.createOrReplaceTempView(view)
    result = score_table(
        model_uri=xy_model, input_table=view, output_table=name("o"), batch_id="b", spark=spark
    )
    assert result.rows_scored == 1000
    files = spark.sql(f"DESCRIBE DETAIL {result.output_table}").collect()[0]["numFiles"]
    assert files <= 2
    spark.catalog.dropTempView(view)
