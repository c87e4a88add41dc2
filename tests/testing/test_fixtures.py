"""The fixtures of the plugin, as tests of jobs and notebooks use them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd
import pytest

from dbx_aml._common.errors import (
    ArgumentError,
    LocalSparkError,
    NotebookError,
    ProgramError,
    RunError,
)
from dbx_aml.testing import mlflow_store as store
from dbx_aml.testing.mlflow_store import use_new_store
from dbx_aml.testing.spark_session import new_database, start_spark
from tests.support.notebook import write_notebook

XY = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})


def weighted_sum(rows: pd.DataFrame) -> pd.Series:
    return rows["x"] * 10 + rows["y"]


class RefusesNegative(mlflow.pyfunc.PythonModel):
    """A model of the test's module, which Spark's workers cannot import."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.Series:
        if (model_input["x"] < 0).any():
            raise ValueError("x is negative")
        return weighted_sum(model_input)


@pytest.mark.spark
def test_a_schema_is_the_current_one_until_it_is_dropped_with_its_tables(spark: Any) -> None:
    with new_database(spark) as first:
        spark.range(3).write.saveAsTable("flights")
        with new_database(spark) as second:
            assert first != second
            assert not spark.catalog.tableExists("flights")
        assert spark.table(f"{first}.flights").count() == 3
    assert spark.catalog.currentDatabase() == "default"
    assert not spark.catalog.databaseExists(first)


@pytest.mark.spark
def test_a_session_that_other_code_has_started_is_refused_and_the_time_zone_stays(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with pytest.raises(LocalSparkError, match=r"while .* is in use; call spark\.stop\(\)"):
        start_spark(tmp_path, connect=False, kafka=False, conf=[])
    assert os.environ["TZ"] == "Asia/Tokyo"
    monkeypatch.undo()
    time.tzset()


def test_after_a_test_mlflow_has_the_servers_and_the_experiment_of_before(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/before.db")
    mlflow.set_registry_uri("databricks-uc")

    uri, restore = use_new_store(tmp_path)

    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (uri, uri)
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
    assert mlflow.get_experiment(run.info.experiment_id).name == "tests"
    assert run.info.artifact_uri.startswith((tmp_path / "artifacts").as_uri())
    restore()
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/before.db"
    assert mlflow.get_registry_uri() == "databricks-uc"


def test_mlflow_skinny_is_refused_with_the_command_to_install_full_mlflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"got mlflow-skinny only; run: pip install .*\[test\]"):
        store.empty_mlflow_database()


def test_the_tables_are_made_once_for_a_release_of_mlflow_skinny_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(store, "installed_version", {"mlflow-skinny": "3.0.1"}.get)

    file = store.empty_mlflow_database()

    assert file == tmp_path / "dbx-aml" / "mlflow-tables-3.0.1.db"
    assert [path.name for path in tmp_path.rglob("*")] == ["dbx-aml", file.name]
    file.unlink()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(ProgramError, match=r"python.* must succeed: it ended with status 1"):
        store.empty_mlflow_database()


def test_a_function_is_registered_as_a_version_with_a_signature(registered_model: Any) -> None:
    assert registered_model(weighted_sum, "sums", XY) == "models:/sums/1"
    assert registered_model(weighted_sum, "sums", XY) == "models:/sums/2"
    model = mlflow.pyfunc.load_model("models:/sums/2")
    assert model.predict(XY).tolist() == [13.0, 24.0]
    assert model.metadata.signature.inputs.input_names() == ["x", "y"]


def test_a_model_of_a_library_is_registered_with_the_flavor_of_its_library(
    registered_model: Any,
) -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    class Halved(LinearRegression):
        def predict(self, X: Any) -> Any:
            return super().predict(X) / 2

    for model in (Halved(), make_pipeline(FunctionTransformer(abs), LinearRegression())):
        model_uri = registered_model(model.fit(XY, [1.0, 2.0]), "line", XY)

        assert "sklearn" in mlflow.models.get_model_info(model_uri).flavors
        loaded = mlflow.pyfunc.load_model(model_uri)
        assert loaded.predict(XY).tolist() == pytest.approx(model.predict(XY).tolist())


def test_a_model_without_a_flavor_is_refused(registered_model: Any) -> None:
    with pytest.raises(ArgumentError, match="PythonModel or a function: got 'dict' of 'builtins'"):
        registered_model({"a": 1})


@pytest.mark.spark
def test_scored_rows_and_quarantined_rows_are_frames(score: Any, registered_model: Any) -> None:
    model_uri = registered_model(RefusesNegative(), "sums", XY)
    rows = pd.DataFrame({"id (key)": [1, 2, 3], "x": [1.0, -1.0, 3.0], "y": [0.0, 0.0, 5.0]})

    scored = score(model_uri, rows, max_quarantined_rows="100%")

    predictions = {row["id (key)"]: row.prediction for row in scored.output.collect()}
    assert predictions == {1: 10.0, 3: 35.0}
    (quarantined,) = scored.quarantine.collect()
    assert quarantined["id (key)"] == 2
    assert "x is negative" in str(quarantined._quarantine)
    assert scored.result.rows_quarantined == 1


@pytest.mark.slow
@pytest.mark.spark
def test_without_bad_rows_the_quarantine_is_an_empty_frame(
    score: Any, registered_model: Any, spark: Any
) -> None:
    scored = score(registered_model(weighted_sum, "sums", XY), spark.createDataFrame(XY))

    assert sorted(row.prediction for row in scored.output.collect()) == [13.0, 24.0]
    assert scored.quarantine.count() == 0


@pytest.mark.spark
def test_a_notebook_gives_value_variables_displays_and_page(
    run_notebook: Any, spark: Any, mlflow_store: str, tmp_path: Path
) -> None:
    write_notebook(tmp_path / "_names.py", "import mlflow\nfactor = 10")
    notebook = write_notebook(
        tmp_path / "report.py",
        "# MAGIC %run ./_names",
        """
        from pyspark.sql import functions as F
        dbutils.widgets.text("month", "1")
        month = int(dbutils.widgets.get("month"))
        plus_one = F.udf(lambda value: value + 1, "long")
        late = spark.range(3).select((F.col("id") * factor).alias("minutes"))
        later = late.select(plus_one("minutes").alias("minutes"))
        double = lambda value: value * 2
        lock = __import__("threading").Lock()
        with mlflow.start_run() as run:
            mlflow.log_metric("month", month)
        """,
        "display(late)",
        'dbutils.notebook.exit(f"{month}: {late.count()}")',
    )

    outcome = run_notebook(notebook, parameters={"month": "7"})

    assert (outcome.exit_code, outcome.value, outcome.error) == (0, "7: 3", None)
    assert outcome.namespace["factor"] == 10
    assert outcome.namespace["double"](4) == 8
    assert [row.minutes for row in outcome.namespace["late"].collect()] == [0, 10, 20]
    assert [row.minutes for row in outcome.namespace["later"].collect()] == [1, 11, 21]
    assert {"spark", "dbutils", "mlflow", "In"}.isdisjoint(outcome.namespace)
    with pytest.raises(NotebookError, match="must be picklable: got 'lock', a lock: "):
        outcome.namespace["lock"]
    (displayed,) = outcome.displayed
    assert displayed["text/plain"].split() == ["minutes", "0", "10", "20"]
    assert "<th" in displayed["text/html"]
    assert "report.py" in outcome.html
    assert mlflow.get_run(outcome.namespace["run"].info.run_id).data.metrics == {"month": 7.0}


@pytest.mark.spark
def test_a_failing_cell_raises_or_is_the_outcome(run_notebook: Any, tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "broken.py", "display('before')", "value = dbutils.widgets.get('month')"
    )

    with pytest.raises(NotebookError, match=r"cell 2 of broken.py, line 6: widget must be defined"):
        run_notebook(notebook)
    outcome = run_notebook(notebook, check=False)

    assert (outcome.exit_code, outcome.value, dict(outcome.namespace)) == (1, None, {})
    assert "widget must be defined before it is read: got 'month'" in str(outcome.error)
    assert outcome.displayed == [{"text/plain": "'before'"}]
    assert "before" in outcome.html


def test_on_databricks_a_test_that_runs_a_notebook_fails_with_one_line(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    with pytest.raises(pytest.fail.Exception, match=r"outside of Databricks: got runtime 17\.3; "):
        request.getfixturevalue("run_notebook")


@pytest.mark.spark
def test_a_file_that_is_no_notebook_is_refused_before_it_runs(
    run_notebook: Any, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text("print(1)\n")
    with pytest.raises(ArgumentError, match="begin it with the line '# Databricks"):
        run_notebook(tmp_path / "script.py", check=False)


@pytest.mark.spark
def test_a_notebook_that_connects_uses_the_store_of_the_test_and_no_workspace_of_the_project(
    run_notebook: Any, mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = {
        "subscription_id": "00000000-0000-0000-0000-000000000000",
        "resource_group": "rg",
        "workspace_name": "production",
    }
    settings = {"mode": "dual", "registry": "aml", "experiment": "/Users/ana@contoso.com/iris"}
    (tmp_path / "config.json").write_text(json.dumps({**workspace, "dbx_aml": settings}))
    monkeypatch.setenv("DBX_AML_CONFIG", str(tmp_path))
    notebook = write_notebook(
        tmp_path / "report.py",
        """
        import dbx_aml, mlflow
        dbx_aml.connect()
        with mlflow.start_run() as run: pass
        dbutils.notebook.exit(f"{mlflow.get_tracking_uri()} {mlflow.get_registry_uri()}")
        """,
    )

    outcome = run_notebook(notebook)

    assert outcome.value == f"{mlflow_store} {mlflow_store}"
    run = mlflow.get_run(outcome.namespace["run"].info.run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == "tests"
    assert "dbx_aml.mirror" not in run.data.tags
