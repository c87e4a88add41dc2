"""Run the cells of a notebook in order, in one namespace."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook import figures
from dbx_aml.local.notebook.cell_output import Html, to_output
from dbx_aml.local.notebook.cell_run import CellRun, Failure, Record
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.dbutils_stub import (
    NoSparkContext,
    Notebook,
    NotebookExit,
    PythonRestart,
    Secrets,
    make_dbutils,
)
from dbx_aml.local.notebook.execute import CellContext, execute
from dbx_aml.local.notebook.source import Cell, read_notebook
from dbx_aml.local.notebook.widgets import Widgets
from dbx_aml.local.spark import is_connect

_FAILED = "notebook must run to its end: "


class Session:
    """Runs a notebook, and the notebooks that it starts, with one record of outputs.

    Args:
        record: Record for all outputs.
        files: Map from paths of a cluster to folders of this machine.
        spark: Session that the notebooks see as `spark`.
        run_pip_cells: Whether to run `%pip` cells.
        on_cell: Callback for each cell that starts or ends.
    """

    def __init__(
        self,
        record: Record,
        files: Files,
        spark: Any,
        run_pip_cells: bool,
        on_cell: Callable[[CellRun], None],
    ) -> None:
        self._record = record
        self._files = files
        self._spark = spark
        self._run_pip_cells = run_pip_cells
        self._on_cell = on_cell

    def run(
        self, path: Path, cells: Sequence[Cell], values: Mapping[str, str]
    ) -> tuple[str | None, set[str]]:
        """Run cells in a new namespace; return the exit value and the names of all widgets."""
        widgets = Widgets(values)
        dbutils = make_dbutils(
            fs=self._files,
            notebook=Notebook(lambda *call: self._start(path, *call)),
            secrets=Secrets(self._record.redact_value),
            widgets=widgets,
        )
        names = {
            # As on a cluster; it also makes pickle ship a notebook's functions by value.
            "__name__": "__main__",
            "__file__": str(path),
            "spark": self._spark,
            "dbutils": dbutils,
            "display": self.display,
            "displayHTML": self._display_html,
            "getArgument": widgets.getArgument,
        }
        if self._spark is not None:
            names["sc"] = NoSparkContext() if is_connect(self._spark) else self._spark.sparkContext
        context = CellContext(
            names=dict(names),
            widgets=widgets,
            show=self._record.show,
            run_pip_cells=self._run_pip_cells,
        )
        with _importable(path.parent, dbutils):
            try:
                self._run_cells(cells, context, names)
            except NotebookExit as stop:
                return stop.value, widgets.defined
        return None, widgets.defined

    def display(self, value: Any, *args: Any, **kwargs: Any) -> None:
        """Show a data frame, a figure or any other value."""
        self._record.show(to_output(value))
        if hasattr(value, "savefig"):
            figures.close(value)

    def _display_html(self, html: str) -> None:
        self._record.show(Html(html=html, text="(HTML, which a page shows)"))

    def _run_cells(
        self, cells: Sequence[Cell], context: CellContext, names: Mapping[str, Any]
    ) -> None:
        for cell in cells:
            with self._record.record_cell(cell, len(cells)) as run:
                if cell.kind == "markdown":
                    continue
                self._on_cell(run)
                try:
                    with context.widgets.overrides(cell.arguments):
                        self._run_cells(cell.included_cells, context, names)
                    self._run(run, context)
                except PythonRestart:
                    context.names.clear()
                    context.names.update(names)
            self._on_cell(run)

    def _run(self, run: CellRun, context: CellContext) -> None:
        cell = run.cell
        try:
            execute(cell, context)
        except (Exception, SystemExit) as err:
            frames = traceback.extract_tb(err.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(cell.notebook)]
            line = lines[-1] if lines else None
            reason = str(err).strip().partition("\n")[0].removeprefix(_FAILED)
            kind = "" if isinstance(err, NotebookError) else f"{type(err).__name__}: "
            message = self._record.redact(f"{cell.location(line)}: {kind}{reason}")
            run.failure = Failure(
                kind=type(err).__name__,
                message=self._record.redact(str(err).strip()),
                line=line,
                trace=self._record.redact(_trace(err, cell)),
            )
            raise NotebookError(_FAILED + message) from err
        finally:
            figures.show_figures()

    def _start(
        self, caller: Path, name: str, timeout_s: float, arguments: Mapping[str, str]
    ) -> str:
        start = time.monotonic()
        path = self._files.notebook(name, caller)
        value, _ = self.run(path, read_notebook(path, self._files), arguments)
        seconds = time.monotonic() - start
        if 0 < timeout_s < seconds:
            raise NotebookError(
                f"notebook {path.name} must end within {timeout_s:g} s: it took {seconds:.0f} s"
            )
        return value or ""


@contextmanager
def _importable(folder: Path, dbutils: Any) -> Iterator[None]:
    """Let a notebook import modules of its folder, and code find `dbutils` in the main module."""
    main = vars(sys.modules["__main__"])
    old_dbutils = main.get("dbutils")
    main["dbutils"] = dbutils
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
        if old_dbutils is None:
            del main["dbutils"]
        else:
            main["dbutils"] = old_dbutils


def _trace(err: BaseException, cell: Cell) -> str:
    """Return the traceback from the notebook's line on, without the frames of this package."""
    trace = traceback.TracebackException.from_exception(err)
    files = [frame.filename for frame in trace.stack]
    first = files.index(str(cell.notebook)) if str(cell.notebook) in files else len(files)
    del trace.stack[:first]
    return "".join(trace.format())
