"""Isolate a test from the settings of this machine."""

import os
from pathlib import Path

import pytest

from tests.support.child_process import clean_environment


def isolate_from_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove variables of Azure, MLflow, Databricks and this project, and change the folder.

    Args:
        monkeypatch: Fixture of the test; it restores variables and folder.
        folder: Current folder for the test, without settings; created if missing.
    """
    ours = {name for name in os.environ if name.startswith("DBX_AML_")} - {"DBX_AML_LOCAL_ROOT"}
    for name in ours | (set(os.environ) - set(clean_environment())):
        monkeypatch.delenv(name)
    # Requests to the endpoint of a managed identity fail: no server listens on this port.
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
