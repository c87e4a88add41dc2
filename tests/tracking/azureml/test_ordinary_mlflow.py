"""Ordinary MLflow 3 code reads back the same from Azure ML as from SQLite."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.child_process import clean_environment
from tests.support.mlflow_database import empty_mlflow_database

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("ordinary_mlflow.py")
# MLflow finds out a model's requirements in another process that imports everything again.
START = """
import runpy, sys
import mlflow.models
mlflow.models.infer_pip_requirements = lambda *args, **options: ["mlflow"]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_program(
    tracking_uri: str, folder: Path, environment: dict[str, str]
) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", START, str(PROGRAM), str(folder / "work")],
        env={
            **clean_environment(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **environment,
            "MLFLOW_TRACKING_URI": tracking_uri,
        },
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("w"),
        text=True,
    )


def read_results(program: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    output, _ = program.communicate(timeout=280)
    assert program.returncode == 0, (folder / "stderr.txt").read_text()
    results: dict[str, Any] = json.loads(output.rpartition("RESULTS:")[2])
    return results


def test_ordinary_code_knows_nothing_of_this_package() -> None:
    text = PROGRAM.read_text()
    assert "import mlflow" in text
    assert "dbx_aml" not in text
    assert "azureml" not in text


@pytest.mark.timeout(600)
def test_ordinary_code_reads_back_the_same_from_azure_ml_as_from_sqlite(
    azureml: AzureMl, tmp_path: Path
) -> None:
    database = shutil.copy(empty_mlflow_database(), tmp_path / "mlflow.db")
    on_sqlite = start_program(f"sqlite:///{database}", tmp_path / "sqlite", {})
    on_azureml = start_program(azureml.tracking_uri, tmp_path / "aml", azureml.environment())
    expected = read_results(on_sqlite, tmp_path / "sqlite")
    actual = read_results(on_azureml, tmp_path / "aml")

    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name] == value, name
    assert len(expected["parent"]["params"]) == 301
    assert len(expected["parent"]["tags"]["long"]) == 3000
    assert expected["aliases"] == {"champion": "2", "first": "1"}
    # No call failed on the server.
    assert [entry.path for entry in azureml.requests() if entry.status >= 500] == []
