"""A test that is alone: nothing of Azure, MLflow or Databricks is set up around it."""

import os
from pathlib import Path

import pytest

from tests.support.child_process import clean_environment


def leave_alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take away what the machine has set up, and work in a folder.

    Args:
        monkeypatch: Of the test.
        folder: Where no settings are; made if it does not exist.
    """
    ours = {name for name in os.environ if name.startswith("DBX_AML_")} - {"DBX_AML_LOCAL_ROOT"}
    for name in ours | (set(os.environ) - set(clean_environment())):
        monkeypatch.delenv(name)
    # Where a managed identity would be asked; nobody answers there.
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", os.devnull)
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
