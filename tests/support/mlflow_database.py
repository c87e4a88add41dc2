"""An empty MLflow database, to be copied: creating the tables takes about as long as a test."""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex

from dbx_aml.local.jars import cache_folder
from tests.support.child_process import clean_environment

_CREATE_TABLES = """
import sys
from mlflow import MlflowClient
MlflowClient(f"sqlite:///{sys.argv[1]}").search_registered_models()
"""


def empty_mlflow_database() -> Path:
    """Return an SQLite file with the tables of the installed MLflow, created once a machine."""
    file = cache_folder() / f"mlflow-tables-{version('mlflow')}.db"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Several pytest workers may create it at the same time.
        partial = file.with_suffix(f".{token_hex(4)}.partial")
        command = [sys.executable, "-c", _CREATE_TABLES, str(partial)]
        # MLflow's default experiment keeps its artifacts below the current folder.
        folder = tempfile.gettempdir()
        subprocess.run(
            command, cwd=folder, env=clean_environment(), check=True, capture_output=True
        )
        os.replace(partial, file)
    return file
