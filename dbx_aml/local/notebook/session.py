"""Run the cells of a notebook, one after another, in one namespace."""

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
from dbx_aml.local.notebook.cell_output import Html, shown_as
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
from dbx_aml.local.notebook.execute import Place, execute
from dbx_aml.local.notebook.source import Cell, read_notebook
from dbx_aml.local.notebook.widgets import Widgets
from dbx_aml.local.spark import is_connect

_FAILED = "notebook must run to its end: "


class Session:
    """What a notebook and those that it starts have in common.

    Args:
        record: Where everything shown goes.
        files: Where a cluster's paths are.
        spark: The session.
        run_pip_cells: Whether `%pip` cells are run.
        on_cell: Told of each cell.
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
        self, path: Path, cells: Sequence[Cell], given: Mapping[str, str]
    ) -> tuple[str | None, Widgets]:
        """Run cells with names of their own; return what they exit with, and the widgets."""
        widgets = Widgets(given)
        dbutils = make_dbutils(
            fs=self._files,
            notebook=Notebook(lambda *call: self._start(path, *call)),
            secrets=Secrets(self._record.hide),
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
        place = Place(
            names=dict(names),
            widgets=widgets,
            show=self._record.show,
            run_pip_cells=self._run_pip_cells,
        )
        with _importable(path.parent, dbutils):
            try:
                self._run_cells(cells, place, names)
            except NotebookExit as stop:
                return stop.value, widgets
        return None, widgets

    def display(self, value: Any, *args: Any, **kwargs: Any) -> None:
        """Show a data frame, a figure or anything else."""
        self._record.show(shown_as(value))
        if hasattr(value, "savefig"):
            figures.close(value)

    def _display_html(self, html: str) -> None:
        self._record.show(Html(html=html, text="(HTML, which a page shows)"))

    def _run_cells(self, cells: Sequence[Cell], place: Place, names: Mapping[str, Any]) -> None:
        for cell in cells:
            with self._record.running(cell, len(cells)) as run:
                if cell.kind == "markdown":
                    continue
                self._on_cell(run)
                try:
                    with place.widgets.given(cell.arguments):
                        self._run_cells(cell.brings, place, names)
                    self._run(run, place)
                except PythonRestart:
                    place.names.clear()
                    place.names.update(names)
            self._on_cell(run)

    def _run(self, run: CellRun, place: Place) -> None:
        cell = run.cell
        try:
            execute(cell, place)
        except (Exception, SystemExit) as err:
            frames = traceback.extract_tb(err.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(cell.notebook)]
            line = lines[-1] if lines else None
            reason = str(err).strip().partition("\n")[0].removeprefix(_FAILED)
            kind = "" if isinstance(err, NotebookError) else f"{type(err).__name__}: "
            message = self._record.redacted(f"{cell.where(line)}: {kind}{reason}")
            run.failure = Failure(
                kind=type(err).__name__,
                message=self._record.redacted(str(err).strip()),
                line=line,
                trace=self._record.redacted(_trace(err, cell)),
            )
            raise NotebookError(_FAILED + message) from err
        finally:
            figures.show_open()

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
    """Let a notebook import modules beside it, and code find `dbutils` in the main module."""
    main = vars(sys.modules["__main__"])
    before = main.get("dbutils")
    main["dbutils"] = dbutils
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
        if before is None:
            del main["dbutils"]
        else:
            main["dbutils"] = before


def _trace(err: BaseException, cell: Cell) -> str:
    """Return the traceback from the notebook's own line on."""
    shown = traceback.TracebackException.from_exception(err)
    files = [frame.filename for frame in shown.stack]
    first = files.index(str(cell.notebook)) if str(cell.notebook) in files else len(files)
    del shown.stack[:first]
    return "".join(shown.format())
