"""Each notebook that uses Spark runs alone with its defaults, on Spark Connect.

`tests/local/test_demo.py` runs all notebooks in order on a classic session, each with the result of
the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.local.notebook.workspace_stub import local_workspace
from dbx_aml.local.spark import SHORT_JOB_JAVA_OPTIONS, is_connect
from dbx_aml.testing.mlflow_store import empty_mlflow_database
from tests.support.notebook import write_notebook

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# Made-up flights, and how many were cancelled.
ROWS, CANCELLED_ROWS = 10_000, 37


def run_all(folder: Path) -> dict[str, Any]:
    """Run the notebooks of the project and one of a user; return their exit values.

    04_score runs 03_register for a model, and that runs 02_track, each as a separate notebook.
    """
    user_notebook = write_notebook(
        folder / "of a user" / "main.py",
        f'# MAGIC %run "{NOTEBOOKS}/_setup"',
        """
        with mlflow.start_run() as run:
            mlflow.log_metric("minutes", 12.5)
        logged = mlflow.MlflowClient(connection.tracking_uri).get_run(run.info.run_id)
        dbutils.notebook.exit(logged.data.metrics["minutes"])
        """,
    )
    paths = [NOTEBOOKS / "01_link.py", NOTEBOOKS / "04_score.py", user_notebook]
    with local_workspace() as spark:
        values = {path.stem: run_notebook(path, spark=spark).exit_value for path in paths}
        assert is_connect(spark)
        monitor = NOTEBOOKS / "06_monitor.py"
        widgets = {"output_table": "flights_scored", "page": str(folder / "drift.html")}
        values["06_monitor"] = run_notebook(monitor, widgets, spark=spark).exit_value
        clean = NOTEBOOKS / "07_clean.py"
        values["07_clean"] = run_notebook(clean, {"schemas": "default"}, spark=spark).exit_value
    return {name: json.loads(value or "null") for name, value in values.items()}


@pytest.fixture(scope="module")
def exit_values(tmp_path_factory) -> dict[str, Any]:
    """Call `run_all` in a new process: a process has either a classic session or Connect."""
    folder = tmp_path_factory.mktemp("connect")
    (folder / "local").mkdir()
    shutil.copy(empty_mlflow_database(), folder / "local" / "mlflow.db")
    program = (
        "import json, pathlib; from tests.test_notebooks_run import run_all; "
        "print(json.dumps(run_all(pathlib.Path.cwd())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        env={
            **{name: value for name, value in os.environ.items() if "MLFLOW" not in name},
            "DBX_AML_LOCAL_ROOT": str(folder / "local"),
            "SPARK_REMOTE": "local[2]",
            "JAVA_TOOL_OPTIONS": SHORT_JOB_JAVA_OPTIONS,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Exception ignored" not in done.stderr
    assert not (folder / "mlruns").exists(), "artifacts belong in the local root"
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_the_link_notebook_connects_to_the_local_store(exit_values) -> None:
    link = exit_values["01_link"]

    assert link["mode"] == "databricks"
    assert link["tracking_uri"] == link["registry_uri"]


def test_the_score_notebook_trains_registers_and_scores(exit_values) -> None:
    result = exit_values["04_score"]

    assert str(result["model_version"]) == "1"
    assert (result["status"], result["rows_read"]) == ("scored", ROWS)
    assert result["rows_scored"] == ROWS - CANCELLED_ROWS
    assert result["rows_quarantined"] == CANCELLED_ROWS


def test_the_monitor_notebook_compares_the_batch_with_the_training_rows(exit_values) -> None:
    result = exit_values["06_monitor"]

    assert (result["batches"], result["rows"]) == (1, ROWS - CANCELLED_ROWS)
    assert result["baseline"] == "flights_training at version 0"
    # The made-up flights have the same distributions in all months.
    assert result["drifted"] == []
    assert {"dep_delay", "arr_delay", "carrier"} <= set(result["psi"])
    assert "month" not in result["psi"]
    # The delay at arrival of the made-up flights follows the one at departure.
    assert 0 < result["quality"]["mean_average_error"] < 30
    assert result["quality"]["r2_score"] > 0.5


def test_the_clean_notebook_lists_the_tables_and_the_model_and_deletes_nothing(exit_values) -> None:
    result = exit_values["07_clean"]

    assert {"default.flights_scored", "default.flights_scored_quarantine"} <= set(result["names"])
    assert "arrival_delay:1" in result["in_use"]
    assert (result["problems"], result["deleted"]) == ([], 0)


def test_a_users_notebook_in_another_folder_uses_setup(exit_values) -> None:
    assert exit_values["main"] == 12.5
