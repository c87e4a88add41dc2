"""Run a whole notebook with widget values, and write its outputs as a page and as an .ipynb."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook.cells import CellRun, Failure, Redaction
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.shared_spark import SparkAddress, borrow_spark
from dbx_aml.local.notebook.source import Cell, read_notebook
from dbx_aml.local.spark import local_root

_FAILED = "notebook must run to its end: "


@dataclass(frozen=True, kw_only=True)
class NotebookResult:
    """The result of a notebook run.

    Args:
        notebook: File of the notebook.
        exit_value: Argument of `dbutils.notebook.exit`, with secrets redacted; None without a call.
        runs: Cells with their outputs.
        seconds: Wall clock.
    """

    notebook: Path
    exit_value: str | None
    runs: tuple[CellRun, ...]
    seconds: float


def run_notebook(
    path: str | Path,
    widgets: Mapping[str, str] | None = None,
    *,
    spark: Any,
    files: Files | None = None,
    html: str | Path | None = None,
    run_pip_cells: bool = False,
    on_cell: Callable[[CellRun], None] | None = None,
) -> NotebookResult:
    """Run a notebook in a new process; return its exit value and outputs.

    As on a cluster, the process has IPython's shell, the notebook's folder is its working folder,
    and its Spark session shares tables, but no temporary view and no setting, with `spark`.
    Prints also go to standard output. Tracebacks show the lines of the notebook's file.

    Args:
        path: File of the notebook, for example "notebooks/04_score.py".
        widgets: Parameters by name, as a job passes them, for example
            {"input_table": "flights"}; they override the defaults of the notebook's widgets.
        spark: Session of the engine that the notebook uses; None for a notebook without Spark.
        files: Map from paths of a cluster to folders of this machine.
        html: Page to write with all cells and outputs, also when a cell fails. Beside it, the same
            outputs are written as a Jupyter notebook with the ending .ipynb.
        run_pip_cells: Whether to run `%pip`; by default its command is only printed.
        on_cell: Callback for each executed cell, when it starts and when it has ended.

    Raises:
        ArgumentError: The file cannot be read as a notebook.
        NotebookError: The notebook has an unknown magic, or a cell raised an error, whose traceback
            is a note of the NotebookError.
    """
    start = time.monotonic()
    started_at = datetime.now(UTC)
    path, files = Path(path).absolute(), files or Files()
    cells = read_notebook(path, files)
    run = NotebookRun(
        path,
        cells,
        parameters=widgets or {},
        files=files,
        run_pip_cells=run_pip_cells,
        write=_write,
        on_cell=on_cell or (lambda run: None),
    )
    exit_value = None
    try:
        with borrow_spark(spark) as address:
            exit_value = run.redaction.redact(run.execute(address))
        return NotebookResult(
            notebook=path,
            exit_value=exit_value,
            runs=tuple(run.runs),
            seconds=time.monotonic() - start,
        )
    finally:
        if html is not None:
            from dbx_aml.local.notebook.page import write_outputs

            write_outputs(
                Path(html),
                path,
                cells,
                run.runs,
                started_at=started_at,
                seconds=time.monotonic() - start,
                widgets=run.redaction.redact(dict(widgets or {})),
                exit_value=exit_value,
            )


def _write(stream: str, text: str) -> None:
    (sys.stderr if stream == "stderr" else sys.stdout).write(text)


class NotebookRun:
    """Runs the cells of one notebook in a new process.

    Args:
        path: File of the notebook.
        cells: Cells of the notebook.
        parameters: Values by widget name.
        files: Map from paths of a cluster to folders of this machine.
        run_pip_cells: Whether to run `%pip`.
        write: Function that passes text on to the terminal, given the stream's name and the text.
        on_cell: Callback for each executed cell, when it starts and when it has ended.
        secrets: Secrets to redact from the start.

    Attributes:
        runs: Runs of the cells so far.
        redaction: Secrets that the notebook has read.
    """

    def __init__(
        self,
        path: Path,
        cells: Sequence[Cell],
        *,
        parameters: Mapping[str, str],
        files: Files,
        run_pip_cells: bool,
        write: Callable[[str, str], None],
        on_cell: Callable[[CellRun], None],
        secrets: Sequence[str] = (),
    ) -> None:
        self.runs: list[CellRun] = []
        self.redaction = Redaction(secrets)
        self._path = path
        self._cells = cells
        self._write = write
        self._on_cell = on_cell
        self._start = {
            "path": path,
            "parameters": dict(parameters),
            "files": files,
            "run_pip_cells": run_pip_cells,
        }
        self._exit: list[str] = []
        self._timed_out = False

    def execute(self, spark: SparkAddress | None, timeout_s: float = 0) -> str | None:
        """Run the cells and return the exit value, with secrets; None without a call of exit.

        Args:
            spark: Address of the engine.
            timeout_s: Seconds after which the notebook's process is killed; 0 for no limit.

        Raises:
            NotebookError: A cell raised an error, or the time is over.
        """
        self._start["spark"] = spark
        self._process = _Process(self._path.parent, self._start)
        timer = threading.Timer(timeout_s, self._kill)
        try:
            self._process.receive()  # the shell is ready: the first cell's time is its own
            if timeout_s > 0:
                timer.start()
            self._run_cells(self._cells, self.runs, {})
        except EOFError:
            raise NotebookError(
                "notebook's process must start: "
                f"it ended with status {self._process.kill()}; read its error above"
            ) from None
        except BaseException:
            self._process.kill()
            raise
        finally:
            timer.cancel()
            self._process.close()
        return self._exit[0] if self._exit else None

    def _kill(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _run_cells(
        self, cells: Sequence[Cell], runs: list[CellRun], overrides: Mapping[str, str]
    ) -> None:
        for cell in cells:
            if self._exit:
                return
            run = CellRun(cell=cell, cell_count=len(cells))
            runs.append(run)
            if cell.kind == "markdown":
                continue
            self._on_cell(run)
            with _seconds_of(run):
                if cell.kind == "run":
                    values = {**overrides, **cell.arguments}
                    self._run_cells(cell.included_cells, run.inner, values)
                else:
                    self._run_cell(run, overrides)
            self._on_cell(run)

    def _run_cell(self, run: CellRun, overrides: Mapping[str, str]) -> None:
        try:
            self._process.send((run.cell, overrides))
            reply = self._receive(run)
        except (EOFError, OSError):
            if self._timed_out:
                name = self._path.name
                raise NotebookError(f"notebook {name} must end within its timeout") from None
            reply = {
                "failure": Failure(
                    kind="ProcessError",
                    message="the notebook's process must not end in a cell: "
                    f"it ended with status {self._process.kill()}",
                )
            }
        run.outputs = self.redaction.redact(run.outputs)
        if "exit" in reply:
            self._exit.append(reply["exit"])
        if "restart" in reply:
            self._process.close()
            self._process = _Process(self._path.parent, {**self._start, **reply["restart"]})
            self._process.receive()
        if "failure" in reply:
            run.failure = Failure(
                **{
                    name: self.redaction.redact(value)
                    for name, value in vars(reply["failure"]).items()
                }
            )
            self._raise(run.cell, run.failure)

    def _receive(self, run: CellRun) -> dict[str, Any]:
        """Receive what a running cell sends, until its end."""
        while True:
            kind, *values = self._process.receive()
            if kind == "end":
                return dict(*values)
            if kind == "secret":
                self.redaction.secrets.update(values)
            elif kind == "text":
                run.add_text(*values)
                self._write(values[0], self.redaction.redact(values[1]))
            elif kind == "terminal":
                self._write(values[0], self.redaction.redact(values[1]))
            elif kind == "output":
                run.outputs += values
                text = values[0]["data"].get("text/plain", "")
                self._write("stdout", self.redaction.redact(text) + "\n")
            elif kind == "started_cell":
                self._on_cell(*values)
            elif kind == "started_notebook":
                run.inner += values[0]

    def _raise(self, cell: Cell, failure: Failure) -> None:
        kind = "" if failure.kind == NotebookError.__name__ else f"{failure.kind}: "
        reason = failure.message.partition("\n")[0].removeprefix(_FAILED)
        error = NotebookError(f"{_FAILED}{cell.location(failure.line)}: {kind}{reason}")
        error.add_note(failure.trace)
        raise error


@contextmanager
def _seconds_of(run: CellRun) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        run.seconds = time.monotonic() - start


def without_outputs(run: CellRun) -> CellRun:
    """Return a run for a callback of progress, which is sent between processes."""
    return replace(run, outputs=[], inner=[], cell=replace(run.cell, included_cells=()))


class _Process:
    """A process of `dbx_aml.local.notebook.shell`.

    Args:
        folder: Working folder of the process.
        start: First message, which sets up the shell.
    """

    def __init__(self, folder: Path, start: Mapping[str, Any]) -> None:
        self._connection, theirs = Pipe()
        search_path = [os.path.abspath(entry) for entry in sys.path]
        program = (
            f"import sys; sys.path[:] = {search_path!r}; "
            f"from dbx_aml.local.notebook.shell import serve; serve({theirs.fileno()})"
        )
        # With -P, the working folder is not searched before the standard library.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # The notebook's folder is the working folder; the folder of the tables stays.
            env={**os.environ, "DBX_AML_LOCAL_ROOT": str(local_root())},
        )
        theirs.close()
        self.send(start)

    def send(self, message: Any) -> None:
        self._connection.send(message)

    def receive(self) -> Any:
        return self._connection.recv()

    def close(self) -> None:
        """Let the process end, and wait for its exit."""
        self._connection.close()
        self._process.wait()

    def kill(self) -> int:
        """Kill the process unless it has ended; return its exit status."""
        try:
            return self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
