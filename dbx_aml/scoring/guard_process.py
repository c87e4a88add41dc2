"""Guarded models in a process of their own Python, and its end in Spark's Python worker.

Rows and answers are Arrow tables on a pair of sockets that no name on disk leads to. The process
ends with the worker: the worker's end is then closed.

This file travels with the model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

import fcntl
import io
import operator
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa

from .guard import QUARANTINED, REASON, Limits, first_object

# The package that the guard travels as; its modules import each other relatively.
GUARD_PACKAGE = "dbx_aml_guard"
# Start of the error of a process that gave no answer; the cause follows on the same line.
NO_ANSWER = "dbx_aml: the model's own Python "
_BUFFER_BYTES = 1 << 20
# Before each table: its bytes.
_LENGTH = struct.Struct("<Q")
# Metadata of a table, with what is no column of Arrow.
_HEADER = b"dbx_aml"
# The newest one of every Python that a model may have.
_PICKLE_PROTOCOL = 5
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
    """A process of the model's own Python that runs guarded models, as a worker talks to it.

    It loads a model when it gets the first rows of it.

    Args:
        folder: Folder of guarded models; the code beside it runs in the process.
        environment: Environment and its place: `hash`, `folder` on the driver, `packages` below
            it, `archive` (name of the unpacked archive on a node, or None), and `timeout_s` for
            one batch.
    """

    def __init__(self, folder: str, environment: dict[str, Any]) -> None:
        self._timeout_s = environment["timeout_s"]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        # The process goes on at the end of the log after it was emptied.
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._channel, other_end = socket.socketpair()
        for end in (self._channel, other_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._channel.settimeout(self._timeout_s)
        code = os.path.join(os.path.dirname(os.path.abspath(folder)), "code")
        arguments = [code, str(other_end.fileno()), environment["hash"]]
        with other_end:
            self._process = subprocess.Popen(
                [*_interpreter_and_packages(environment), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[other_end.fileno()],
            )

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process can get rows."""
        return self._process.poll() is None

    def predict(self, rows: pd.DataFrame, folder: str, position: int) -> pd.DataFrame:
        """Return what the guard of a model returns for these rows in the model's own Python.

        Args:
            rows: Rows.
            folder: Folder of the guarded models.
            position: Position of the model among them.

        Raises:
            RuntimeError: The process ended, did not answer in time or answered something else.
        """
        if os.fstat(self._log.fileno()).st_size > _LOG_BYTES:
            self._log.truncate(0)
        try:
            _send(self._channel, rows, {"folder": os.path.abspath(folder), "position": position})
            result, _ = _receive(self._channel)
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
    """The guard of one model in one task, which runs in another process.

    Args:
        process: Process.
        folder: Folder of the guarded models.
        position: Position of the model among them.
        limits: When the guard ends its query; by default never.
    """

    def __init__(
        self, process: GuardProcess, folder: str, position: int, limits: Limits | None = None
    ) -> None:
        self._process = process
        self._folder = folder
        self._position = position
        self._limits = limits or Limits()

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the result of `Guard.predict`."""
        result = self._process.predict(rows, self._folder, self._position)
        self._limits.check(result[QUARANTINED].to_numpy(np.bool_), result[REASON].to_numpy())
        return result


def serve(number: int, environment: str) -> None:
    """Answer batches of rows until the worker closes its end.

    Args:
        number: File descriptor of the socket.
        environment: Hash of the environment of this process.
    """
    from .guard_loader import ModelCache

    channel = socket.socket(fileno=number)
    threading.Thread(target=_end_with_worker, args=(number,), daemon=True).start()
    models = ModelCache(environment)
    # Most of loading a model, while the worker waits for its first rows.
    import mlflow.pyfunc  # noqa: F401

    while True:
        try:
            rows, model = _receive(channel)
        except EOFError:
            return
        _send(channel, models.load_one(model["folder"], model["position"]).predict(rows))


def _end_with_worker(number: int) -> None:
    """End this process when the other end is closed, also in the middle of a long prediction."""
    poll = select.poll()
    poll.register(number, 0)
    poll.poll()
    os._exit(0)


def _send(channel: socket.socket, rows: pd.DataFrame, model: dict[str, Any] | None = None) -> None:
    """Send rows as an Arrow table, and the model that they are for."""
    nested = [
        (position, name, list(rows[name]))
        for position, name in enumerate(rows.columns)
        if _needs_pickle(rows[name])
    ]
    flat = rows.drop(columns=[name for _, name, _ in nested]) if nested else rows
    # A batch is small: threads would take longer than its conversion.
    table = pa.Table.from_pandas(flat, preserve_index=False, nthreads=1)
    table = table.replace_schema_metadata({_HEADER: _pickle({"model": model, "nested": nested})})
    # A stream for each table: a column without any value has another type than the same column
    # with values.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    message = sink.getvalue()
    channel.sendall(_LENGTH.pack(message.size))
    channel.sendall(message)


def _receive(channel: socket.socket) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Receive rows, and the model that they are for.

    The other process is no stranger: it runs the same models.

    Raises:
        EOFError: The other end is closed, perhaps in the middle of a table.
    """
    (length,) = _LENGTH.unpack(_receive_bytes(channel, _LENGTH.size))
    with pa.ipc.open_stream(pa.py_buffer(_receive_bytes(channel, length))) as stream:
        table = stream.read_all()
    header = pickle.loads(table.schema.metadata[_HEADER])
    rows: pd.DataFrame = table.to_pandas(use_threads=False)
    for position, name, values in header["nested"]:
        rows.insert(position, name, pd.Series(values, dtype=object))
    return rows, header["model"]


def _receive_bytes(channel: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    rest = memoryview(content)
    while rest:
        size = channel.recv_into(rest)
        if not size:
            raise EOFError
        rest = rest[size:]
    return content


def _needs_pickle(column: pd.Series) -> bool:
    """Return whether Arrow would change the values: dictionaries, lists, and arrays of objects."""
    value = first_object(column)
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "bif"
    return isinstance(value, (dict, list, tuple))


def _pickle(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, _PICKLE_PROTOCOL).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickle values so that each version of NumPy and of pandas reads them.

    NumPy and pandas pickle their values as calls of private functions, which other versions have
    in other modules.
    """

    def reducer_override(self, value: Any) -> Any:
        """Return a value as a call of a public function, and its arguments."""
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                # Elements one by one: NumPy would make lists of one length a second dimension.
                return np.empty, (value.shape, "O"), None, None, iter(enumerate(value))
            return np.array, (value.tolist(), value.dtype.str)
        if isinstance(value, np.generic):
            return operator.getitem, (value.reshape(1), 0)
        if isinstance(value, pd.Timestamp):
            return pd.Timestamp, (value.to_pydatetime(),)
        return NotImplemented


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
