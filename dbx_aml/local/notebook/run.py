"""Run a notebook: the whole of it, with what is given, and a page of what it showed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import ArgumentError
from dbx_aml.local.notebook import figures
from dbx_aml.local.notebook.cell_run import CellRun, Record
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.page import Page
from dbx_aml.local.notebook.session import Session
from dbx_aml.local.notebook.source import Cell, read_notebook, widget_names


@dataclass(frozen=True, kw_only=True)
class NotebookResult:
    """What running a notebook ended with.

    Args:
        notebook: The file.
        exit_value: What it gave to `dbutils.notebook.exit`, without secrets; None when it ran to
            its last cell.
        runs: Its cells with what they showed.
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
    """Execute a notebook and return what it ended with; what it prints goes to standard output.

    Tracebacks show the lines of the notebook's file. What a notebook changes in this process
    (MLflow's URIs, for one) stays changed: a cluster gives each its own process.

    Args:
        path: For example "notebooks/04_score.py".
        widgets: Values by widget name, as a job passes them, for example
            {"input_table": "flights"}; they win over the notebook's defaults.
        spark: The session that the notebook sees as `spark`.
        files: Where a cluster's paths are on this machine.
        html: A page to write with each cell and what it showed, also when a cell fails.
        run_pip_cells: Run `%pip` cells; else they say what they would do.
        on_cell: Called with each cell that is executed, when it begins and when it has ended.

    Raises:
        ArgumentError: The file cannot be read as a notebook, or does not define a widget that
            was passed.
        NotebookError: It has something that is not understood here, or a cell raised (then as
            its cause).
    """
    start = time.monotonic()
    path = Path(path)
    given = dict(widgets or {})
    files = files or Files()
    cells = check_notebook(path, given, files)
    began = datetime.now(UTC)
    record = Record()
    session = Session(record, files, spark, run_pip_cells, on_cell or (lambda run: None))
    exit_value = None
    try:
        with record.listening(), figures.inline(session.display):
            value, values = session.run(path, cells, given)
            exit_value = None if value is None else record.redacted(value)
        _refuse_unknown(given, values.defined, path)
        return NotebookResult(
            notebook=path,
            exit_value=exit_value,
            runs=tuple(record.runs),
            seconds=time.monotonic() - start,
        )
    finally:
        if html is not None:
            page = Page(
                notebook=path,
                cells=cells,
                runs=record.runs,
                began=began,
                seconds=time.monotonic() - start,
                widgets={name: record.redacted(value) for name, value in given.items()},
                exit_value=exit_value,
            )
            page.write(Path(html))


def check_notebook(
    path: str | Path, widgets: Mapping[str, str], files: Files | None = None
) -> list[Cell]:
    """Return the cells of a notebook that can be run with these widget values.

    Args:
        path: As `run_notebook` takes it.
        widgets: As `run_notebook` takes them.
        files: As `run_notebook` takes them.

    Raises:
        ArgumentError: The file cannot be read as a notebook, or does not define a widget.
        NotebookError: It has something that is not understood here.
    """
    cells = read_notebook(path, files)
    defined = widget_names(cells)
    if defined is not None:
        _refuse_unknown(widgets, defined, Path(path))
    return cells


def _refuse_unknown(given: Mapping[str, str], defined: Iterable[str], path: Path) -> None:
    unknown = sorted(set(given) - set(defined))
    if unknown:
        raise ArgumentError(
            f"notebook must define the widgets it is given: {path.name} has no {unknown}; "
            f"it has {sorted(defined)}"
        )
