"""Execute a cell: Python, SQL, shell or pip."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.text import sql_literal
from dbx_aml.local.notebook.cell_output import Output, repr_output, to_output
from dbx_aml.local.notebook.source import Cell
from dbx_aml.local.notebook.widgets import Widgets


@dataclass(frozen=True, kw_only=True)
class CellContext:
    """The state that the cells of a notebook share.

    Args:
        names: Namespace of the notebook.
        widgets: Widgets of the notebook.
        show: Callback for each output of a cell.
        run_pip_cells: Whether to run `%pip` cells.
    """

    names: dict[str, Any]
    widgets: Widgets
    show: Callable[[Output], None]
    run_pip_cells: bool


def execute(cell: Cell, context: CellContext) -> None:
    """Execute a cell; an error of the cell is not wrapped."""
    _BY_KIND[cell.kind](cell, context)


def _python(cell: Cell, context: CellContext) -> None:
    """Execute the statements; show the value of a last expression, as a notebook does."""
    tree = cell.parse()
    file = str(cell.notebook)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        del tree.body[-1]
    exec(compile(tree, file, "exec", dont_inherit=True), context.names)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        value = eval(compile(expression, file, "eval", dont_inherit=True), context.names)
        # As in IPython, a semicolon at the end hides the value.
        if value is not None and not cell.source.rstrip().endswith(";"):
            context.show(repr_output(value))


def _sql(cell: Cell, context: CellContext) -> None:
    """Execute the statements; show the result of the last one."""
    import sqlparse
    from sqlparse.lexer import tokenize
    from sqlparse.tokens import Comment, Whitespace

    frame = None
    for statement in sqlparse.split(cell.source, strip_semicolon=True):
        if all(kind in Comment or kind in Whitespace for kind, _ in tokenize(statement)):
            continue
        if re.match(r"\s*(create|remove)\s+widget\b", statement, re.IGNORECASE):
            raise NotebookError("widgets must be made in Python here: got SQL; use dbutils.widgets")
        frame = context.names["spark"].sql(_substitute_widgets(statement, context.widgets.getAll()))
    if frame is not None:
        context.names["_sqldf"] = frame
        context.show(to_output(frame))


def _substitute_widgets(statement: str, widgets: Mapping[str, str]) -> str:
    """Return SQL with the values of widgets: `:name` as a string literal, `${name}` as text.

    The arguments of `spark.sql` cannot be used: with Delta, Spark 4.1 loses them.
    """
    from sqlparse.lexer import tokenize
    from sqlparse.tokens import Name

    text = re.sub(r"\$\{(\w+)\}", lambda match: widgets.get(match[1], match[0]), statement)
    return "".join(
        sql_literal(widgets[token[1:]])
        if kind is Name.Placeholder and token[1:] in widgets
        else token
        for kind, token in tokenize(text)
    )


def _shell(cell: Cell, context: CellContext) -> None:
    """Run a script in the notebook's folder; an exit status fails the cell only with `%sh -e`."""
    before_flag, flag, script = cell.source.partition("-e")
    is_strict = not before_flag.strip() and flag and (not script or script[0].isspace())
    code = _run_program(["bash", "-c", script if is_strict else cell.source], cell)
    if code and is_strict:
        raise NotebookError(f"shell script must end with status 0: got {code}")
    if code:
        sys.stderr.write(f"exit status {code}\n")


def _pip(cell: Cell, context: CellContext) -> None:
    command = " ".join(["pip", *cell.source.split()])
    if not context.run_pip_cells:
        sys.stdout.write(f"not run here: {command}\n")
        return
    arguments = shlex.split(cell.source, comments=True)
    code = _run_program([sys.executable, "-m", "pip", *arguments], cell)
    if code:
        raise NotebookError(f"'{command}' must end with status 0: got {code}")


def _run_program(command: list[str], cell: Cell) -> int:
    with subprocess.Popen(
        command,
        cwd=cell.notebook.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as program:
        for line in program.stdout or ():
            sys.stdout.write(line)
    return program.returncode


def _skip(cell: Cell, context: CellContext) -> None:
    """Do nothing: the included cells have run already."""


_BY_KIND = {"python": _python, "sql": _sql, "shell": _shell, "pip": _pip, "run": _skip}
