"""Tables that scoring has made go with their ledger and their checkpoint; others stay."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dbx_aml import Link, score_table
from dbx_aml.serving.clean import delete_resources, find_marked_resources
from tests.support.models import XY, choosy_sum, save_model, weighted_sum

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_marked_tables_are_dropped_with_ledger_and_checkpoint_and_inputs_are_in_use(
    spark: SparkSession, tmp_path: Path
) -> None:
    spark.sql("CREATE SCHEMA clean_test")
    try:
        spark.createDataFrame(XY).write.format("delta").saveAsTable("clean_test.theirs")
        checkpoint = tmp_path / "checkpoint"
        model = save_model(tmp_path, weighted_sum, XY)
        score_table(
            model_uri=model,
            input_table="clean_test.theirs",
            output_table="clean_test.scored",
            write_mode="incremental",
            checkpoint_location=str(checkpoint),
            spark=spark,
        )
        score_table(
            model_uri=model,
            input_table="clean_test.scored",
            output_table="clean_test.second",
            output_columns="x",
            spark=spark,
        )
        assert checkpoint.is_dir()
        link = Link(databricks_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
        plan = find_marked_resources(
            only=["tables"], schemas=["clean_test"], link=link, spark=spark
        )
        assert [resource.name for resource in plan.resources] == ["clean_test.second"]
        assert [(resource.name, resource.usage) for resource in plan.used_resources] == [
            ("clean_test.scored", "is the input of clean_test.second")
        ]
        for _ in range(2):
            plan = find_marked_resources(
                only=["tables"], schemas=["clean_test"], link=link, spark=spark
            )
            assert [item.state for item in delete_resources(plan.resources)] == ["deleted"]
        rows = spark.sql("SHOW TABLES IN clean_test").collect()
        assert [row["tableName"] for row in rows] == ["theirs"]
        assert not checkpoint.exists()
    finally:
        spark.sql("DROP SCHEMA clean_test CASCADE")


def test_a_scored_table_by_path_goes_with_its_quarantine_and_its_ledger(
    spark: SparkSession, tmp_path: Path
) -> None:
    spark.createDataFrame(XY.assign(x=[-1.0, 2.0])).write.format("delta").save(
        f"{tmp_path}/data/theirs"
    )
    score_table(
        model_uri=save_model(tmp_path, choosy_sum, XY),
        input_table=f"delta.`{tmp_path}/data/theirs`",
        output_table=f"delta.`{tmp_path}/data/scored`",
        max_quarantined_rows="50%",
        spark=spark,
    )
    folders = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert folders == ["scored", "scored_batches", "scored_quarantine", "theirs"]
    paths = [f"{tmp_path}/data/scored", f"{tmp_path}/data/theirs", f"{tmp_path}/data/gone"]
    link = Link(databricks_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    plan = find_marked_resources(only=["tables"], paths=paths, link=link, spark=spark)
    assert [resource.name for resource in plan.resources] == [
        f"{tmp_path}/data/scored",
        f"{tmp_path}/data/scored_quarantine",
    ]
    assert [item.state for item in delete_resources(plan.resources)] == ["deleted"] * 2
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["theirs"]
    plan = find_marked_resources(only=["tables"], paths=paths, link=link, spark=spark)
    assert (plan.resources, plan.problems) == ((), ())
