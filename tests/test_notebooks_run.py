"""Every notebook runs: alone with its defaults, in order, twice, on both kinds of session."""

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
NAMES = ["01_link", "02_track", "03_register", "04_score"]

# In a process of its own: one process has one kind of session, and a warehouse.
PROGRAM = """
import json, pathlib, sys
from dbx_aml.notebook import run_notebook
from dbx_aml.notebook.machine import machine

folder, own = map(pathlib.Path, sys.argv[1:])

def run(name, **widgets):
    path = folder / f"{name}.py"
    return json.loads(run_notebook(path, widgets, spark=spark).exit_value)

def in_order():
    link, trained = run("01_link"), run("02_track")
    registered = run("03_register", model_uri=trained["model_uri"])
    table = {"input_table": "dbx_aml_sample_flights", "output_table": "in_order"}
    scored = run("04_score", model_uri=registered["model_uri"], **table)
    return [link, trained, registered, scored]

with machine() as spark:
    alone = [[run(name) for name in NAMES] for _ in range(2)]
    ordered = [in_order() for _ in range(2)]
    mine = run_notebook(own, spark=spark).exit_value
    found = {"kind": type(spark).__module__, "alone": alone, "ordered": ordered, "mine": mine}
    print("FOUND:" + json.dumps(found))
""".replace("NAMES", repr(NAMES))


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


def test_each_notebook_runs_alone_with_its_defaults_twice(found) -> None:
    for turn, (link, tracked, registered, scored) in enumerate(found["alone"]):
        assert link["mode"] == "databricks"
        assert link["tracking_uri"] == link["registry_uri"]
        assert tracked["rows"] > 14_000
        assert tracked["last_month_mae_minutes"] < tracked["last_month_mae_minutes_of_guess"]
        # 03 trains one and registers it, and so does 04 by 03.
        assert registered["version"] == str(1 + 2 * turn)
        assert str(scored["model_version"]) == str(2 + 2 * turn)
        assert (scored["status"], scored["rows_read"]) == ("scored", 20_000)
        assert scored["rows_scored"] + scored["rows_quarantined"] == 20_000
        assert scored["rows_quarantined"] == 76


def test_the_notebooks_run_in_order_on_what_the_one_before_left_twice(found) -> None:
    for turn, (_, tracked, registered, scored) in enumerate(found["ordered"]):
        assert registered["run_id"] == tracked["run_id"] == scored["model_run_id"]
        assert registered["version"] == str(scored["model_version"]) == str(5 + turn)
        assert scored["output_version"] == turn + 1


def test_a_users_own_notebook_in_another_folder_uses_setup(found) -> None:
    assert found["mine"] == "12.5"
