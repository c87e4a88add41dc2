"""Requests that cannot be resolved: an error of one line, and nothing is written."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import (
    ModelNotFoundError,
    SchemaMismatchError,
    ScoringError,
    TableNotFoundError,
)

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    ("model_uri", "arguments", "error_class", "message"),
    [
        (None, {"input_table": "no_such"}, TableNotFoundError,
         "input table must exist and be readable: got 'no_such'"),
        (None, {"row_filter": "x >>> 'a"}, ScoringError, "row_filter must be an SQL predicate"),
        (None, {"row_filter": "nope > 1"}, ScoringError, "row_filter must be an SQL predicate"),
        (None, {"output_columns": "z"}, SchemaMismatchError,
         "output_columns must be input columns: got ['z']"),
        (None, {"key_columns": "x", "write_mode": "merge", "output_columns": "y"},
         SchemaMismatchError, "output_columns must hold the key_columns: missing ['x']"),
        (None, {"output_table": "delta.`/proc/dbx/out`"}, ScoringError, "table must be writable"),
        (None, {"output_table": "no_schema.out"}, ScoringError, "table must be writable"),
        ("models:/no_such/1", {}, ModelNotFoundError, "registered model and version must exist"),
        ("models:/no_such@a", {}, ModelNotFoundError, "registered model and alias must exist"),
        ("runs:/0123456789abcdef0123456789abcdef/m", {}, ModelNotFoundError,
         "must exist: got 'runs:/"),
        ("/no/such/model", {}, ModelNotFoundError, "'/no/such/model'"),
        ("models:/m/1", {"tracking_uri": "http://ana:secret@127.0.0.1:9"}, ScoringError,
         "MLflow server must answer: got 'http://127.0.0.1:9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_resolved_is_one_line(
    spark, view, score, xy_model, mlflow_store, output_table, model_uri, arguments, error_class,
    message,
):  # fmt: skip
    table = view(spark.createDataFrame([(1.0, 2.0)], "x double, y double"))
    arguments = {"input_table": table, "batch_id": "batch", **arguments}
    with pytest.raises(error_class) as error:
        score(model_uri or xy_model, **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path(output_table.split("`")[1]).exists()


def test_a_model_whose_package_is_missing_is_refused_with_the_command_to_install_it(
    spark, view, score, xy_model
):
    mlmodel = Path(xy_model) / "MLmodel"
    text = mlmodel.read_text().replace("mlflow.pyfunc.model", "mlflow.catboost")
    mlmodel.write_text(text.replace("flavors:", "flavors:\n  catboost: {}"))
    table = view(spark.createDataFrame([(1.0, 2.0)], "x double, y double"))
    with pytest.raises(ScoringError, match="model flavor must be installed") as error:
        score(xy_model, table)
    assert "pip install catboost" in str(error.value)


def test_requirements_that_this_machine_does_not_meet_are_logged_once(
    spark, view, score, xy_model, caplog
):
    (Path(xy_model) / "requirements.txt").write_text("pandas==0.1\nnosuch==3\n")
    score(xy_model, view(spark.createDataFrame([(1.0, 2.0)], "x double, y double")), dry_run=True)
    messages = [record.getMessage() for record in caplog.records]
    (message,) = [text for text in messages if "requirements differ" in text]
    assert "pandas==0.1: " in message
    assert "nosuch==3: not installed here" in message
