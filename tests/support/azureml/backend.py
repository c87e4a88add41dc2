"""The MLflow server behind the stand-in: the one that `mlflow server --workers 1` starts.

It is started without the command's own process, which imports MLflow a second time, and on a copy
of an empty database, whose tables take as long to make as the rest.
"""

import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import urllib3

from dbx_aml.testing.mlflow_store import empty_mlflow_database
from tests.support.child_process import clean_environment, start_child, wait_for


class Backend:
    """An MLflow server on loopback with its store in SQLite.

    Attributes:
        port: Port of the server.
    """

    def __init__(self, folder: Path) -> None:
        self._database = folder / "mlflow.db"
        self._log = folder / "mlflow.log"
        shutil.copy(empty_mlflow_database(), self._database)
        store = f"sqlite:///{self._database}"
        settings = {
            "_MLFLOW_SERVER_FILE_STORE": store,
            "_MLFLOW_SERVER_REGISTRY_STORE": store,
            # Never used: the service says where artifacts are.
            "_MLFLOW_SERVER_ARTIFACT_ROOT": (folder / "unused").as_uri(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # As set, or MLflow would ask the management endpoint when it loads the plugin.
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
        }
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        # Inherited by each connection; uvicorn takes a socket that it is given for a local one, and
        # would leave 40 ms between the parts of an answer.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(listening.getsockname()[1])
        self._server_process: subprocess.Popen[bytes] = start_child(
            [
                *(sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"),
                *("--fd", str(listening.fileno()), "--no-access-log"),
            ],
            self._log,
            environment=clean_environment() | settings,
            folder=folder,
            pass_fds=(listening.fileno(),),
        )
        listening.close()

    def wait(self) -> None:
        """Wait until it answers, which takes some seconds of imports."""
        pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, timeout=30, retries=False)

        def is_answering() -> bool:
            if b"Application startup complete" not in self._log.read_bytes():
                return False
            # The store is made by the first call that needs it.
            response = pool.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
            return response.status == 200

        wait_for(self._server_process, self._log, is_answering)
        with closing(sqlite3.connect(self._database)) as connection:
            self._first_rows = _last_rows(connection)

    def clear(self) -> None:
        """Delete every row that a new server does not have."""
        with closing(sqlite3.connect(self._database, timeout=30)) as connection, connection:
            for table, last in _last_rows(connection).items():
                first_row = self._first_rows.get(table)
                if last is not None and last != first_row:
                    after = -1 if first_row is None else first_row
                    connection.execute(f'DELETE FROM "{table}" WHERE rowid > ?', (after,))


def _last_rows(connection: sqlite3.Connection) -> dict[str, int | None]:
    """Return the highest row number of each table; None for an empty table."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: connection.execute(f'SELECT max(rowid) FROM "{name}"').fetchone()[0]
        for (name,) in names
        if not name.startswith("sqlite_")
    }
