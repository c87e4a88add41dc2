"""Run a whole notebook with widget values, and write a page of its cells and outputs."""

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
    """Run a notebook and return its exit value and outputs; prints also go to standard output.

    Tracebacks show the lines of the notebook's file. Changes of this process by the notebook, for
    example of MLflow's URIs, stay: on a cluster each notebook has a separate process.

    Args:
        path: File of the notebook, for example "notebooks/04_score.py".
        widgets: Values by widget name, as a job passes them, for example
            {"input_table": "flights"}; they override the notebook's defaults.
        spark: Session that the notebook sees as `spark`.
        files: Map from paths of a cluster to folders of this machine.
        html: Page to write with all cells and outputs, also when a cell fails.
        run_pip_cells: Whether to run `%pip` cells; by default their command is only printed.
        on_cell: Callback for each executed cell, when it starts and when it has ended.

    Raises:
        ArgumentError: The file cannot be read as a notebook, or does not define a widget that
            was passed.
        NotebookError: The notebook has an unknown magic, or a cell raised an error (the cause).
    """
    start = time.monotonic()
    path = Path(path)
    values = dict(widgets or {})
    files = files or Files()
    cells = check_notebook(path, values, files)
    started_at = datetime.now(UTC)
    record = Record()
    session = Session(record, files, spark, run_pip_cells, on_cell or (lambda run: None))
    exit_value = None
    try:
        with record.capture_output(), figures.inline(session.display):
            value, defined = session.run(path, cells, values)
            exit_value = None if value is None else record.redact(value)
        _refuse_unknown(values, defined, path)
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
                started_at=started_at,
                seconds=time.monotonic() - start,
                widgets={name: record.redact(value) for name, value in values.items()},
                exit_value=exit_value,
            )
            page.write(Path(html))


def check_notebook(
    path: str | Path, widgets: Mapping[str, str], files: Files | None = None
) -> list[Cell]:
    """Return the cells of a notebook; raise if it cannot run with these widget values.

    Args:
        path: File of the notebook.
        widgets: Values by widget name.
        files: Map from paths of a cluster to folders of this machine.

    Raises:
        ArgumentError: The file cannot be read as a notebook, or does not define a widget.
        NotebookError: The notebook has an unknown magic.
    """
    cells = read_notebook(path, files)
    defined = widget_names(cells)
    if defined is not None:
        _refuse_unknown(widgets, defined, Path(path))
    return cells


def _refuse_unknown(values: Mapping[str, str], defined: Iterable[str], path: Path) -> None:
    unknown = sorted(set(values) - set(defined))
    if unknown:
        raise ArgumentError(
            f"notebook must define each passed widget: {path.name} has no {unknown}; "
            f"it has {sorted(defined)}"
        )
