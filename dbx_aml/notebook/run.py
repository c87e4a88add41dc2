"""Run the cells of a notebook, one after another, in one namespace."""

from __future__ import annotations

import ast
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbx_aml.errors import NotebookError
from dbx_aml.notebook.source import Cell, read_notebook, widget_names
from dbx_aml.notebook.stub import Dbutils, Notebook, NotebookExit, Widgets, display


@dataclass(frozen=True, kw_only=True)
class NotebookResult:
    """What running a notebook ended with.

    Args:
        notebook: The file.
        exit_value: What it gave to `dbutils.notebook.exit`; None when it ran to its last cell.
        cells_run: Executed cells, those of notebooks that `%run` brought included.
        seconds: Wall clock.
    """

    notebook: Path
    exit_value: str | None
    cells_run: int
    seconds: float


def run_notebook(
    path: str | Path,
    widgets: Mapping[str, str] | None = None,
    *,
    spark: Any,
    on_cell: Callable[[Cell], None] | None = None,
) -> NotebookResult:
    """Execute a notebook and return what it ended with; what it prints goes to standard output.

    Tracebacks show the lines of the notebook's file. What a notebook changes in this process
    (MLflow's URIs, for one) stays changed: a cluster gives each its own process.

    Args:
        path: For example "notebooks/04_score.py".
        widgets: Values by widget name, as a job passes them, for example
            {"input_table": "flights"}; they win over the notebook's defaults.
        spark: The session that the notebook sees as `spark`.
        on_cell: Called with each cell when its turn comes, markdown cells too.

    Raises:
        NotebookError: The file is not a notebook, has something that is not understood here,
            does not define a widget that was passed, or a cell raised (then as its cause).
    """
    start = time.monotonic()
    path = Path(path)
    given = dict(widgets or {})
    cells = read_notebook(path)
    defined = widget_names(cells)
    if defined is not None:
        _refuse_unknown(given, defined, path)
    stub = Dbutils(Widgets(given), Notebook())
    namespace: dict[str, Any] = {
        # As on a cluster; it also makes pickle ship a notebook's functions by value.
        "__name__": "__main__",
        "__file__": str(path),
        "spark": spark,
        "dbutils": stub,
        "display": display,
    }
    exit_value = None
    cells_run = 0
    try:
        for cell in cells:
            if on_cell is not None:
                on_cell(cell)
            if cell.kind in _EXECUTE:
                cells_run += 1
                _run(cell, namespace)
    except NotebookExit as stop:
        exit_value = stop.value
    _refuse_unknown(given, stub.widgets.defined, path)
    return NotebookResult(
        notebook=path,
        exit_value=exit_value,
        cells_run=cells_run,
        seconds=time.monotonic() - start,
    )


def _run(cell: Cell, namespace: dict[str, Any]) -> None:
    try:
        _EXECUTE[cell.kind](cell, namespace)
    except Exception as err:
        frames = traceback.extract_tb(err.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(cell.notebook)]
        reason = str(err).strip().partition("\n")[0]
        raise NotebookError(
            f"notebook must run to its end: {cell.where(lines[-1] if lines else None)}: "
            f"{type(err).__name__}: {reason}"
        ) from err


def _run_python(cell: Cell, namespace: dict[str, Any]) -> None:
    """Execute the statements; print the value of a last expression, as a notebook does."""
    tree = cell.parse()
    file = str(cell.notebook)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        del tree.body[-1]
    exec(compile(tree, file, "exec", dont_inherit=True), namespace)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        value = eval(compile(expression, file, "eval", dont_inherit=True), namespace)
        if value is not None:
            sys.stdout.write(f"{value!r}\n")


def _run_sql(cell: Cell, namespace: dict[str, Any]) -> None:
    namespace["_sqldf"] = namespace["spark"].sql(cell.source.strip().removesuffix(";"))
    display(namespace["_sqldf"])


_EXECUTE = {"python": _run_python, "sql": _run_sql}


def _refuse_unknown(given: Mapping[str, str], defined: Iterable[str], path: Path) -> None:
    unknown = sorted(set(given) - set(defined))
    if unknown:
        raise NotebookError(
            f"notebook must define the widgets it is given: {path.name} has no {unknown}; "
            f"it has {sorted(defined)}"
        )
