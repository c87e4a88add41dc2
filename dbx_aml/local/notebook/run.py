"""Run a whole notebook with widget values, and write its outputs as a page and as an .ipynb."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.redact import environment_secrets
from dbx_aml.local.notebook.cells import CellRun, redact_secrets
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.namespace import Namespace, PackedValue
from dbx_aml.local.notebook.page import check_page, write_outputs
from dbx_aml.local.notebook.process import NotebookProcess, ShellSettings
from dbx_aml.local.notebook.shared_spark import borrow_spark
from dbx_aml.local.notebook.source import Cell, read_notebook

_FAILED = "notebook must run to its end: "
# After an error, a process may still be in a cell.
_KILL_AFTER_S = 0.5


@dataclass(frozen=True, kw_only=True)
class NotebookResult:
    """The result of a notebook run.

    Args:
        notebook: File of the notebook.
        exit_value: Argument of `dbutils.notebook.exit`, with secrets redacted; None without a call.
        runs: Cells with their outputs.
        seconds: Wall clock.
        namespace: Variables at the end; empty without `keep_namespace`.
        error: Error of the cell that failed, without `check`; else None.
    """

    notebook: Path
    exit_value: str | None
    runs: tuple[CellRun, ...]
    seconds: float
    namespace: Namespace = field(default_factory=Namespace)
    error: NotebookError | None = None


def run_notebook(
    path: str | Path,
    widgets: Mapping[str, str] | None = None,
    *,
    spark: Any,
    files: Files | None = None,
    html: str | Path | None = None,
    run_pip_cells: bool = False,
    keep_namespace: bool = False,
    check: bool = True,
    on_cell: Callable[[CellRun], None] | None = None,
    process: NotebookProcess | None = None,
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
        keep_namespace: Whether the result has the variables of the notebook.
        check: Whether an error of a cell raises; False for a result with this error.
        on_cell: Callback for each executed cell, when it starts and when it has ended.
        process: Process that was started before; by default a new one.

    Raises:
        ArgumentError: The file cannot be read as a notebook, or the page would replace one.
        NotebookError: The notebook has an unknown magic, or a cell raised an error, whose traceback
            is a note of the NotebookError.
    """
    start = time.monotonic()
    started_at = datetime.now(UTC)
    path, files = Path(path).absolute(), files or Files()
    cells = read_notebook(path, files)
    if html is not None:
        check_page(Path(html))
    parameters = dict(widgets or {})
    run = NotebookRun(cells, write=_write_text, on_cell=on_cell or (lambda run: None))
    exit_value = error = None
    try:
        with borrow_spark(spark) as address:
            settings = ShellSettings(
                path=path,
                parameters=parameters,
                files=files,
                run_pip_cells=run_pip_cells,
                keep_namespace=keep_namespace,
                spark=address,
            )
            exit_value = run.redact(run.execute(settings, process=process))
    except NotebookError as err:
        if check:
            raise
        error = err
    finally:
        if html is not None:
            write_outputs(
                Path(html),
                path,
                cells,
                run.runs,
                started_at=started_at,
                seconds=time.monotonic() - start,
                widgets=run.redact(parameters),
                exit_value=exit_value,
            )
    return NotebookResult(
        notebook=path,
        exit_value=exit_value,
        runs=tuple(run.runs),
        seconds=time.monotonic() - start,
        namespace=Namespace(run.variables, spark),
        error=error,
    )


def _write_text(stream: str, text: str) -> None:
    (sys.stderr if stream == "stderr" else sys.stdout).write(text)


class NotebookRun:
    """Runs the cells of one notebook in a new process.

    Args:
        cells: Cells of the notebook.
        write: Function that passes text on to the terminal, given the stream's name and the text.
        on_cell: Callback for each executed cell, when it starts and when it has ended.
        secrets: Secrets to redact from the start.
        search_path: Folders in which the new process finds modules; by default this process's.

    Attributes:
        runs: Runs of the cells so far.
        secrets: Also the secrets that the notebook has read, and the environment's.
        variables: Variables at the end, if the settings keep them.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        write: Callable[[str, str], None],
        on_cell: Callable[[CellRun], None],
        secrets: Iterable[str] = (),
        search_path: Sequence[str] | None = None,
    ) -> None:
        self.runs: list[CellRun] = []
        self.secrets = {*secrets, *environment_secrets()}
        self.variables: dict[str, PackedValue] = {}
        self._cells = cells
        self._search_path = search_path
        self._write = write
        self._on_cell = on_cell
        self._exit_value: str | None = None
        self._deadline: float | None = None

    def redact(self, value: Any) -> Any:
        """Return a text, or texts in lists and dictionaries, without the secrets."""
        return redact_secrets(value, self.secrets)

    def execute(
        self,
        settings: ShellSettings,
        timeout_s: float = 0,
        process: NotebookProcess | None = None,
    ) -> str | None:
        """Run the cells and return the exit value, with secrets; None without a call of exit.

        Args:
            settings: Settings of the process.
            timeout_s: Seconds after which the notebook's process is killed; 0 for no limit.
            process: Process that waits for settings; by default a new one.

        Raises:
            NotebookError: A cell raised an error, or the time is over.
        """
        self._process = process or NotebookProcess(search_path=self._search_path)
        try:
            # The shell is ready: the first cell's time is its own.
            self._process.set_up(settings)
            if timeout_s > 0:
                self._deadline = time.monotonic() + timeout_s
            self._run_cells(self._cells, self.runs, {})
            if settings.keep_namespace:
                self.variables = self._receive_variables()
            self._process.stop()
        except EOFError:
            raise NotebookError(
                "notebook's process must start: "
                f"it ended with status {self._process.stop()}; read its error above"
            ) from None
        except TimeoutError:
            name = settings.path.name
            raise NotebookError(f"notebook {name} must end within its timeout") from None
        finally:
            self._process.stop(_KILL_AFTER_S)
        return self._exit_value

    def _run_cells(
        self, cells: Sequence[Cell], runs: list[CellRun], overrides: Mapping[str, str]
    ) -> None:
        for cell in cells:
            if self._exit_value is not None:
                return
            run = CellRun(cell=cell, cell_count=len(cells))
            runs.append(run)
            if cell.kind == "markdown":
                continue
            self._on_cell(run)
            start = time.monotonic()
            try:
                if cell.kind == "run":
                    values = {**overrides, **cell.arguments}
                    self._run_cells(cell.included_cells, run.inner, values)
                else:
                    self._run_cell(run, overrides)
            finally:
                run.seconds = time.monotonic() - start
            self._on_cell(run)

    def _receive_variables(self) -> dict[str, PackedValue]:
        """Request the variables; what a thread of the notebook still prints is left out."""
        self._process.send(None)
        while True:
            kind, *values = self._process.receive(self._deadline)
            if kind == "variables":
                variables: dict[str, PackedValue] = values[0]
                return variables

    def _run_cell(self, run: CellRun, overrides: Mapping[str, str]) -> None:
        try:
            self._process.send((run.cell, overrides))
            end, value = self._receive(run)
        except TimeoutError:
            raise
        except (EOFError, OSError):
            message = (
                "the notebook's process must not end in a cell: "
                f"it ended with status {self._process.stop()}"
            )
            end = "failure"
            value = {"ename": "ProcessError", "evalue": message, "line": None, "traceback": []}
        finally:
            run.outputs = self.redact(run.outputs)
        if end == "exit":
            self._exit_value = value
        elif end == "restart":
            self._process.stop()
            self._process = NotebookProcess(search_path=self._search_path)
            self._process.set_up(value)
        elif end == "failure":
            run.failure = failure = self.redact(value)
            kind = "" if failure["ename"] == NotebookError.__name__ else f"{failure['ename']}: "
            reason = failure["evalue"].partition("\n")[0].removeprefix(_FAILED)
            error = NotebookError(f"{_FAILED}{run.cell.location(failure['line'])}: {kind}{reason}")
            error.add_note("\n".join(failure["traceback"]))
            raise error

    def _receive(self, run: CellRun) -> Any:
        """Receive what a running cell sends; return how it ended."""
        while True:
            kind, *values = self._process.receive(self._deadline)
            if kind == "end":
                return values
            if kind == "secret":
                self.secrets.update(values)
            elif kind == "text":
                run.add_text(*values)
                self._write(values[0], self.redact(values[1]))
            elif kind == "terminal":
                self._write(values[0], self.redact(values[1]))
            elif kind == "output":
                run.outputs += values
                text = values[0]["data"].get("text/plain", "")
                self._write("stdout", self.redact(text) + "\n")
            elif kind == "started_cell":
                self._on_cell(*values)
            elif kind == "started_notebook":
                run.inner += values[0]
