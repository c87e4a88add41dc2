"""Execute one cell, by its kind."""

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
from dbx_aml.local.notebook.cell_output import Output, itself, shown_as
from dbx_aml.local.notebook.source import Cell
from dbx_aml.local.notebook.widgets import Widgets


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a notebook's cells run.

    Args:
        names: The namespace that its cells share.
        widgets: Its parameters.
        show: Takes what a cell shows.
        run_pip_cells: Whether `%pip` cells are run.
    """

    names: dict[str, Any]
    widgets: Widgets
    show: Callable[[Output], None]
    run_pip_cells: bool


def execute(cell: Cell, place: Place) -> None:
    """Execute a cell; what it raises comes out as it is."""
    _BY_KIND[cell.kind](cell, place)


def _python(cell: Cell, place: Place) -> None:
    """Execute the statements; show the value of a last expression, as a notebook does."""
    tree = cell.parse()
    file = str(cell.notebook)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        del tree.body[-1]
    exec(compile(tree, file, "exec", dont_inherit=True), place.names)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        value = eval(compile(expression, file, "eval", dont_inherit=True), place.names)
        # As in IPython, a semicolon at the end says that the value is of no interest.
        if value is not None and not cell.source.rstrip().endswith(";"):
            place.show(itself(value))


def _sql(cell: Cell, place: Place) -> None:
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
        frame = place.names["spark"].sql(_filled_in(statement, place.widgets.getAll()))
    if frame is not None:
        place.names["_sqldf"] = frame
        place.show(shown_as(frame))


def _filled_in(statement: str, widgets: Mapping[str, str]) -> str:
    """Return SQL with the widgets that it names: `:name` is a string, `${name}` is text.

    Not through the arguments of `spark.sql`: with Delta, Spark 4.1 loses them.
    """
    from sqlparse.lexer import tokenize
    from sqlparse.tokens import Name

    text = re.sub(r"\$\{(\w+)\}", lambda found: widgets.get(found[1], found[0]), statement)
    return "".join(
        _quoted(widgets[token[1:]]) if kind is Name.Placeholder and token[1:] in widgets else token
        for kind, token in tokenize(text)
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _shell(cell: Cell, place: Place) -> None:
    """Run a script in the notebook's folder; it fails the cell only as `%sh -e`."""
    flag, blank, rest = cell.source.partition("-e")
    strict = not flag.strip() and blank and (not rest or rest[0].isspace())
    code = _run_program(["bash", "-c", rest if strict else cell.source], cell)
    if code and strict:
        raise NotebookError(f"shell script must end with status 0: got {code}")
    if code:
        sys.stderr.write(f"exit status {code}\n")


def _pip(cell: Cell, place: Place) -> None:
    command = " ".join(["pip", *cell.source.split()])
    if not place.run_pip_cells:
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


def _nothing(cell: Cell, place: Place) -> None:
    """Do nothing: what the cell brings has been run."""


_BY_KIND = {"python": _python, "sql": _sql, "shell": _shell, "pip": _pip, "run": _nothing}
