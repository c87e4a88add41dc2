"""Ordinary MLflow 3 code reads back the same from Azure ML as from SQLite."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.child_process import clean_environment

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_PROGRAM = Path(__file__).with_name("ordinary_mlflow.py")


def _found(tracking_uri: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), str(folder / "work")],
        env={
            **clean_environment(),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **environment,
            "MLFLOW_TRACKING_URI": tracking_uri,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND:")[2])
    return found


def test_ordinary_code_knows_nothing_of_this_package() -> None:
    text = _PROGRAM.read_text()
    assert "import mlflow" in text
    assert "dbx_aml" not in text
    assert "azureml" not in text


@pytest.mark.timeout(600)
def test_ordinary_code_reads_back_the_same_from_azure_ml_as_from_sqlite(
    azureml: AzureMl, tmp_path: Path
) -> None:
    expected = _found(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "sqlite", {})
    actual = _found(azureml.tracking_uri, tmp_path / "azureml", azureml.environment())

    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name] == value, name
    assert len(expected["parent"]["params"]) == 301
    assert len(expected["parent"]["tags"]["long"]) == 3000
    assert expected["aliases"] == {"champion": "2", "first": "1"}
    # Nothing was tried and refused, but for limits that only the service knows.
    refused = [entry.path for entry in azureml.requests() if entry.status >= 500]
    assert refused == []
