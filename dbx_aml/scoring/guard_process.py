"""The guard in a process of the model's own Python, and its end in Spark's Python worker.

Rows and answers are Arrow tables on a pair of sockets that no name on disk leads to. The process
ends with the worker: the worker's end is then closed.

This file travels with the model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa

from .guard import QUARANTINED, REASON, Limits

# The package that the guard travels as; its modules import each other relatively.
GUARD_PACKAGE = "dbx_aml_guard"
# Start of the error of a process that gave no answer; the cause follows on the same line.
NO_ANSWER = "dbx_aml: the model's own Python "
_BUFFER_BYTES = 1 << 20
# Size of the log beyond which it is emptied before the next batch: a model may print for weeks.
_LOG_BYTES = 1 << 20
_SHOWN_BYTES = 2000
# Longest time between the end of a connection and the end of the process.
_END_S = 10.0
# Python starts without "site", which would add the packages of the interpreter.
_PROGRAM = f"""
import site, sys
site.addsitedir(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from {GUARD_PACKAGE}.guard_process import serve
serve(int(sys.argv[3]), sys.argv[4])
"""


class GuardProcess:
    """A process of the model's own Python that runs the guard, as a worker talks to it.

    Args:
        folder: Folder of the guarded models.
        environment: Place of the environment: `folder` on the driver, `packages`
            below it, `archive` (name of the unpacked archive on a node, or None), and `timeout_s`
            for one batch.
    """

    def __init__(self, folder: str, environment: dict[str, Any]) -> None:
        self._timeout_s = environment["timeout_s"]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        # The process goes on at the end of the log after it was emptied.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._channel, other_end = socket.socketpair()
        self._channel.settimeout(self._timeout_s)
        code = os.path.join(os.path.dirname(os.path.abspath(folder)), "code")
        number = str(other_end.fileno())
        with other_end:
            self._process = subprocess.Popen(
                [*_interpreter_and_packages(environment), code, number, folder],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[other_end.fileno()],
            )
        self._sink: Any = self._channel.makefile("wb", _BUFFER_BYTES)
        self._source: Any = self._channel.makefile("rb", _BUFFER_BYTES)

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process can get rows."""
        return self._process.poll() is None

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return what the guard returns for these rows in the model's own Python.

        Raises:
            RuntimeError: The process ended, did not answer in time or answered something else.
        """
        if os.fstat(self._log.fileno()).st_size > _LOG_BYTES:
            self._log.truncate(0)
        try:
            _send(self._sink, rows)
            result = _receive(self._source)
        except TimeoutError:
            self._fail(f"did not answer a batch of {len(rows)} rows in {self._timeout_s:g} s")
        except (BrokenPipeError, ConnectionResetError, EOFError):
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._fail("closed its connection")
            self._fail(f"ended with status {self._process.returncode}")
        if len(result) != len(rows):
            self._fail(f"answered {len(result)} rows for {len(rows)}")
        return result

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._log.close()

    def _fail(self, reason: str) -> NoReturn:
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - _SHOWN_BYTES))
        text = self._log.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.close()
        raise RuntimeError(f"{NO_ANSWER}{reason}: {' | '.join(lines[-3:]) or 'it wrote nothing'}")


class ProcessGuard:
    """The guard of one task, which runs in another process.

    Args:
        process: Process.
        limits: When the guard ends its query.
    """

    def __init__(self, process: GuardProcess, limits: Limits) -> None:
        self.process = process
        self._limits = limits

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the result of `Guard.predict`."""
        result = self.process.predict(rows)
        self._limits.check(result[QUARANTINED].to_numpy(np.bool_), result[REASON].to_numpy())
        return result


def serve(number: int, folder: str) -> None:
    """Answer batches of rows until the worker closes its end.

    Args:
        number: File descriptor of the socket.
        folder: Folder of the guarded models.
    """
    from .guard_loader import load_guard

    channel = socket.socket(fileno=number)
    threading.Thread(target=_end_with_worker, args=(number,), daemon=True).start()
    sink, source = channel.makefile("wb", _BUFFER_BYTES), channel.makefile("rb", _BUFFER_BYTES)
    guard = load_guard(folder)
    while True:
        try:
            rows = _receive(source)
        except EOFError:
            return
        _send(sink, guard.predict(rows))


def _end_with_worker(number: int) -> None:
    """End this process when the other end is closed, also in the middle of a long prediction."""
    poll = select.poll()
    poll.register(number, 0)
    poll.poll()
    os._exit(0)


def _send(sink: Any, rows: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    # A stream for each table: a column without any value has another type than the same column
    # with values.
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    sink.flush()


def _receive(source: Any) -> pd.DataFrame:
    if not source.peek(1):
        raise EOFError
    try:
        with pa.ipc.open_stream(source) as stream:
            rows: pd.DataFrame = stream.read_all().to_pandas()
            return rows
    except (pa.ArrowInvalid, OSError) as err:
        if isinstance(err, TimeoutError) or source.peek(1):
            raise
        # The other process ended in the middle of a table.
        raise EOFError from err


def _interpreter_and_packages(environment: dict[str, Any]) -> list[str]:
    """Return the start of the command: interpreter, options, program, folder of the packages.

    On a node of a cluster both are in the unpacked archive; without an interpreter in it, the one
    of Spark's worker has the version.
    """
    options = ["-I", "-S", "-c", _PROGRAM]
    folder = _unpacked(environment["archive"])
    if folder is None:
        folder = environment["folder"]
        packages = os.path.join(folder, environment["packages"])
        return [os.path.join(folder, "bin", "python"), *options, packages]
    packed_python = os.path.join(folder, "python", "bin", "python3")
    interpreter = packed_python if os.path.isfile(packed_python) else sys.executable
    return [interpreter, *options, os.path.join(folder, "packages")]


def _unpacked(archive: str | None) -> str | None:
    """Return the folder that Spark unpacked an archive into; None on the driver."""
    from pyspark import SparkFiles, TaskContext

    task = TaskContext.get()
    if archive is None or task is None:
        return None
    # Databricks: the sandbox of a function on serverless and standard clusters.
    artifacts = task.artifactDir() if hasattr(task, "artifactDir") else ""
    parents = [os.getcwd(), os.path.join(artifacts, "archives"), SparkFiles.getRootDirectory()]
    for parent in parents:
        if os.path.isdir(os.path.join(parent, archive)):
            return os.path.join(parent, archive)
    raise RuntimeError(f"{NO_ANSWER}did not start: Spark unpacked no {archive} in {parents}")
