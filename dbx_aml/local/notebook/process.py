"""The process of a notebook, seen from the process that starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from dbx_aml._common.log import get_logger
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.shared_spark import SparkAddress
from dbx_aml.local.spark import local_root

log = get_logger(__name__)

# At its end, a process sends the last metrics, with retries of two minutes.
_END_TIMEOUT_S = 150.0


@dataclass(frozen=True, kw_only=True)
class ShellSettings:
    """Settings of a notebook's process.

    Args:
        path: File of the notebook.
        parameters: Values by widget name.
        files: Map from paths of a cluster to folders of this machine.
        run_pip_cells: Whether to run `%pip`.
        spark: Address of the engine; None for a notebook without Spark.
        keep_namespace: Whether to send the variables at the end.
        widgets: Values of widgets of an earlier process of the same notebook.
    """

    path: Path
    parameters: Mapping[str, str]
    files: Files
    run_pip_cells: bool
    spark: SparkAddress | None
    keep_namespace: bool = False
    widgets: Mapping[str, str] = field(default_factory=dict)


class NotebookProcess:
    """A new process of `dbx_aml.local.notebook.shell`, which waits for the settings of a notebook.

    Args:
        libraries: Modules that it imports before the settings arrive, for example ["mlflow"]. So a
            process that starts while another notebook runs saves its notebook this time.
        search_path: Folders in which it finds modules; by default those of this process.
    """

    def __init__(
        self, libraries: Sequence[str] = (), search_path: Sequence[str] | None = None
    ) -> None:
        self._connection, theirs = Pipe()
        search_path = [
            os.path.abspath(entry) for entry in (sys.path if search_path is None else search_path)
        ]
        program = (
            f"import sys; sys.path[:] = {search_path!r}; "
            "from dbx_aml.local.notebook.shell import serve; "
            f"serve({theirs.fileno()}, {[*libraries]!r})"
        )
        # With -P, the working folder is not searched before the standard library.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def set_up(self, settings: ShellSettings) -> None:
        """Wait until the shell is ready; it has the environment variables of this moment.

        Raises:
            EOFError: The process has ended.
        """
        # The notebook's folder is the working folder; the folder of the tables stays.
        environment = {**os.environ, "DBX_AML_LOCAL_ROOT": str(local_root())}
        try:
            self.send((environment, settings))
            self.receive()
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def send(self, message: Any) -> None:
        """Send a message to the process."""
        self._connection.send(message)

    def receive(self, deadline: float | None = None) -> Any:
        """Return the next message of the process.

        Args:
            deadline: Time on the monotonic clock until which the message must arrive.

        Raises:
            EOFError: The process has ended.
            TimeoutError: The deadline is over.
        """
        if deadline and not self._connection.poll(max(0, deadline - time.monotonic())):
            raise TimeoutError
        return self._connection.recv()

    def stop(self, timeout_s: float | None = None) -> int:
        """Let the process end, or kill it after a time; return its exit status.

        Args:
            timeout_s: Seconds until it is killed; by default enough for all that Python does at
                the end of a process, but no thread or process of the notebook can keep it.
        """
        self._connection.close()
        try:
            return self._process.wait(_END_TIMEOUT_S if timeout_s is None else timeout_s)
        except subprocess.TimeoutExpired:
            if timeout_s is None:
                log.warning(
                    "killed the notebook's process: it did not end in %g s; "
                    "let the notebook end its threads and processes",
                    _END_TIMEOUT_S,
                )
            self._process.kill()
            return self._process.wait()
