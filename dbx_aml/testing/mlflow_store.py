"""The store of the fixture `mlflow_store`: an empty MLflow database for each test.

Creating the tables takes seconds, so a database with empty tables is made once a machine and
copied for each test.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

from dbx_aml._common.errors import RunError
from dbx_aml._common.installed_packages import installed_version
from dbx_aml._common.programs import run_program
from dbx_aml._common.text import install_command
from dbx_aml.local.jars import cache_folder

EXPERIMENT = "tests"
_CREATION_TIMEOUT_S = 300.0
_CREATE_TABLES = """
import os, sys
# MLflow's default experiment keeps its artifacts below the current folder.
os.chdir(os.path.dirname(sys.argv[1]))
from mlflow import MlflowClient
uri = f"sqlite:///{sys.argv[1]}"
MlflowClient(uri, uri).search_registered_models()
"""


def empty_mlflow_database() -> Path:
    """Return an SQLite file with the tables of the installed MLflow, created once a machine.

    Raises:
        RunError: Only mlflow-skinny is installed, without the packages of the SQLite store.
        ProgramError: MLflow cannot create the tables.
    """
    if find_spec("sqlalchemy") is None:
        raise RunError(
            "a local MLflow store must have full MLflow: got mlflow-skinny only; "
            f"run: {install_command('test')}"
        )
    # A Databricks Runtime for ML has mlflow-skinny and the packages of the store.
    release = installed_version("mlflow") or installed_version("mlflow-skinny")
    file = cache_folder() / f"mlflow-tables-{release}.db"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Several pytest workers may create it at the same time.
        partial = file.with_suffix(f".{token_hex(4)}.partial")
        run_program([sys.executable, "-c", _CREATE_TABLES, str(partial)], _CREATION_TIMEOUT_S)
        os.replace(partial, file)
    return file


def use_new_store(folder: Path) -> tuple[str, Callable[[], None]]:
    """Let MLflow of this process track and register in a new store, in the experiment "tests".

    Args:
        folder: Folder for the database `mlflow.db` and for the folder `artifacts`.

    Returns:
        The URI of the store, and the function that restores MLflow's URIs and experiment.

    Raises:
        RunError: Only mlflow-skinny is installed, which has no SQLite store.
    """
    import mlflow

    from dbx_aml.tracking.connect import save_mlflow_state

    database = shutil.copy(empty_mlflow_database(), folder / "mlflow.db")
    uri = f"sqlite:///{database}"
    restore = save_mlflow_state()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with warnings.catch_warnings():
        # MLflow's own use of SQLAlchemy is no concern of the test.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy")
        mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment(EXPERIMENT)
    return uri, restore


def end_active_runs() -> list[str]:
    """End the active runs of this thread and return their ids, the innermost first."""
    import mlflow
    from mlflow.exceptions import MlflowException

    run_ids = []
    while run := mlflow.active_run():
        run_ids.append(run.info.run_id)
        # A test that changes the tracking URI leaves a run that the new server does not have.
        with suppress(MlflowException):
            mlflow.end_run()
    return run_ids
