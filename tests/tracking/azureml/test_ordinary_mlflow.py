"""Ordinary MLflow code reads back the same from Azure ML as from SQLite, with MLflow 3 and 2.19."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dbx_aml.testing.mlflow_store import empty_mlflow_database
from tests.support.azureml import AzureMl
from tests.support.child_process import clean_environment
from tests.support.node.wheel import own_wheel
from tests.tracking.azureml.test_foreign_runs import WRONG_ARTIFACTS, WRONG_TAGS, write_run

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


@pytest.fixture(scope="module")
def mlflow_2_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with MLflow 2.19, as Databricks Runtime 16 and 15.4 have it, and this package."""
    folder = tmp_path_factory.mktemp("mlflow-2")
    environment = folder / "environment"
    python = str(environment / "bin" / "python")
    uv = [sys.executable, "-m", "uv"]
    own = f"dbx-aml @ {own_wheel(folder).as_uri()}"
    # MLflow 2.19 allows newer releases of SQLAlchemy than it can use.
    packages = ["mlflow==2.19.0", "sqlalchemy<2.1", "lightgbm", "pip", own]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    return python


def start_program(
    tracking_uri: str, folder: Path, environment: dict[str, str], python: str = sys.executable
) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [python, "-c", START, str(PROGRAM), str(folder / "work")],
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


def assert_same_results(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name] == value, name


@pytest.mark.timeout(600)
def test_ordinary_code_reads_back_the_same_from_azure_ml_as_from_sqlite(
    azureml: AzureMl, tmp_path: Path
) -> None:
    database = shutil.copy(empty_mlflow_database(), tmp_path / "mlflow.db")
    on_sqlite = start_program(f"sqlite:///{database}", tmp_path / "sqlite", {})
    on_azureml = start_program(azureml.tracking_uri, tmp_path / "aml", azureml.environment())
    expected = read_results(on_sqlite, tmp_path / "sqlite")
    actual = read_results(on_azureml, tmp_path / "aml")

    assert_same_results(actual, expected)
    assert len(expected["parent"]["params"]) == 301
    assert len(expected["parent"]["tags"]["long"]) == 3000
    assert expected["aliases"] == {"champion": "2", "first": "1"}
    # No call failed on the server.
    assert [entry.path for entry in azureml.requests() if entry.status >= 500] == []


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ordinary_code_of_mlflow_2_reads_back_the_same_from_azure_ml_as_from_sqlite(
    azureml: AzureMl, mlflow_2_python: str, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    on_sqlite = start_program(database, tmp_path / "sqlite", {}, mlflow_2_python)
    on_azureml = start_program(
        azureml.tracking_uri, tmp_path / "aml", azureml.environment(), mlflow_2_python
    )
    expected = read_results(on_sqlite, tmp_path / "sqlite")
    actual = read_results(on_azureml, tmp_path / "aml")

    assert_same_results(actual, expected)
    assert len(expected["parent"]["params"]) == 301
    assert len(expected["parent"]["tags"]["long"]) == 3000
    assert "sklearn model" not in expected
    assert [entry.path for entry in azureml.requests() if entry.status >= 500] == []


SEARCH = """
import json, mlflow
assert mlflow.__version__ == "2.19.0"
found = mlflow.search_runs(experiment_names=["foreign"], output_format="list")
print(json.dumps({run.info.run_id: run.data.params for run in found}))
"""


@pytest.mark.nightly
def test_mlflow_2_finds_runs_that_somebody_else_wrote_to_with_one_warning_each(
    azureml: AzureMl, azureml_client: MlflowClient, mlflow_2_python: str, tmp_path: Path
) -> None:
    fine_id = write_run(azureml, tmp_path, {})
    azureml_client.log_param(fine_id, "long", "x" * 600)
    # The documents of logged models are none to MLflow 2.
    tags = [tags for tags in WRONG_TAGS if not any("logged_model" in key for key in tags)]
    wrong_ids = [write_run(azureml, tmp_path, wrong_tags) for wrong_tags in tags]
    wrong_ids += [
        write_run(azureml, tmp_path, {"dbx_aml.overflow": "1"}, content)
        for content in WRONG_ARTIFACTS
    ]

    program = subprocess.run(
        [mlflow_2_python, "-c", SEARCH],
        env={
            **clean_environment(),
            **azureml.environment(),
            "MLFLOW_TRACKING_URI": azureml.tracking_uri,
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert program.returncode == 0, program.stderr
    params = {run_id: {"alpha": "0.5"} for run_id in wrong_ids}
    params[fine_id] = {"alpha": "0.5", "long": "x" * 600}
    assert json.loads(program.stdout) == params
    lines = [line for line in program.stderr.splitlines() if "is shown as Azure ML has it" in line]
    assert sorted(line.split()[1] for line in lines) == sorted(wrong_ids)
