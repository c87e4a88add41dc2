"""Every notebook runs, alone with its defaults and in order, on both kinds of session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.notebook import write_notebook

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# Of the made-up flights.
ROWS, BAD_ROWS = 10_000, 37

# In a process of its own: one process has one kind of session, and a warehouse.
PROGRAM = """
import json, pathlib, sys
from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.local.notebook.workspace_stub import local_workspace

folder, own = map(pathlib.Path, sys.argv[1:])

def run(name, **widgets):
    path = folder / f"{name}.py"
    return json.loads(run_notebook(path, widgets, spark=spark).exit_value)

with local_workspace() as spark:
    # 04 runs 03 for a model to score with, and that runs 02, each as a notebook of its own.
    alone = [run("01_link"), run("04_score")]
    link, trained = run("01_link"), run("02_track")
    registered = run("03_register", model_uri=trained["model_uri"])
    table = {"input_table": "dbx_aml_sample_flights", "output_table": "in_order"}
    scored = run("04_score", model_uri=registered["model_uri"], **table)
    mine = run_notebook(own, spark=spark).exit_value
    ordered = [link, trained, registered, scored]
    found = {"kind": type(spark).__module__, "alone": alone, "ordered": ordered, "mine": mine}
    print("FOUND:" + json.dumps(found))
"""


@pytest.fixture(scope="module", params=["classic", "connect"])
def found(request, tmp_path_factory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp(request.param)
    own = write_notebook(
        root / "of a user" / "own.py",
        f'# MAGIC %run "{NOTEBOOKS}/_setup"',
        """
        with mlflow.start_run() as run:
            mlflow.log_metric("minutes", 12.5)
        logged = mlflow.MlflowClient(connection.tracking_uri).get_run(run.info.run_id)
        dbutils.notebook.exit(logged.data.metrics["minutes"])
        """,
    )
    kept = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    remote = {"SPARK_REMOTE": "local[2]"} if request.param == "connect" else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NOTEBOOKS), str(own)],
        capture_output=True,
        text=True,
        cwd=root,
        env={
            **kept,
            **remote,
            "DBX_AML_LOCAL_ROOT": str(root / "local"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Exception ignored" not in done.stderr
    value: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND:")[2])
    assert ("connect" in value["kind"]) == (request.param == "connect")
    assert not (root / "mlruns").exists(), "artifacts belong in the local root"
    return value


def test_each_notebook_runs_alone_with_its_defaults(found) -> None:
    link, scored = found["alone"]

    assert link["mode"] == "databricks"
    assert link["tracking_uri"] == link["registry_uri"]
    assert str(scored["model_version"]) == "1"
    assert (scored["status"], scored["rows_read"]) == ("scored", ROWS)
    assert (scored["rows_scored"], scored["rows_quarantined"]) == (ROWS - BAD_ROWS, BAD_ROWS)


def test_the_notebooks_run_again_in_order_each_on_what_the_one_before_left(found) -> None:
    link, tracked, registered, scored = found["ordered"]

    assert link == found["alone"][0]
    assert tracked["last_month_mae_minutes"] < tracked["last_month_mae_minutes_of_baseline"]
    assert registered["run_id"] == tracked["run_id"] == scored["model_run_id"]
    assert registered["run_id"] != found["alone"][1]["model_run_id"]
    assert registered["model_version"] == str(scored["model_version"]) == "2"
    assert (scored["rows_scored"], scored["output_table"]) == (ROWS - BAD_ROWS, "in_order")


def test_a_users_own_notebook_in_another_folder_uses_setup(found) -> None:
    assert found["mine"] == "12.5"
