"""The file of a notebook: its cells in the order of execution, and the widgets they define."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbx_aml.errors import NotebookError

_FIRST_LINE = "# Databricks notebook source"
_SEPARATOR = "# COMMAND ----------"
_MAGIC = "# MAGIC"
_TITLE = "# DBTITLE"
_KINDS = {
    "": "python",
    "%python": "python",
    "%md": "markdown",
    "%md-sandbox": "markdown",
    "%sql": "sql",
    "%run": "run",
}
_WIDGET_KINDS = ("text", "dropdown", "combobox", "multiselect")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a notebook.

    Args:
        notebook: The file it stands in; for a cell that `%run` brings, the file that was run.
        number: Its position in that file; starts at 1.
        line: The line of `source`'s first line in that file; starts at 1.
        kind: "python", "sql", "markdown" (not executed) or "run" (its cells follow it).
        source: Its text, without the `# MAGIC` marks.
    """

    notebook: Path
    number: int
    line: int
    kind: str
    source: str

    def where(self, line: int | None = None) -> str:
        """Return the place for a message, for example "cell 4 of 04_score.py, line 52"."""
        return f"cell {self.number} of {self.notebook.name}, line {line or self.line}"

    def parse(self) -> ast.Module:
        """Return the syntax tree of a Python cell, with the file's line numbers.

        Raises:
            NotebookError: The cell is not valid Python.
        """
        # Empty lines before it give every statement its line number in the file.
        padded = "\n" * (self.line - 1) + self.source
        try:
            return ast.parse(padded, str(self.notebook))
        except SyntaxError as err:
            raise NotebookError(
                f"notebook must be valid Python: {self.where(err.lineno)}: {err.msg}"
            ) from err


def read_notebook(path: str | Path) -> list[Cell]:
    """Return the cells of a notebook in the order of their execution.

    A `%run` cell is followed by the cells of the notebook it names, so the list is the whole
    program.

    Args:
        path: For example "notebooks/04_score.py".

    Raises:
        NotebookError: A file is missing or is not in the source format, a magic is not
            understood, or notebooks run each other in a circle.
    """
    return _read(Path(path), ())


def widget_names(cells: Iterable[Cell]) -> set[str] | None:
    """Return the names of the widgets that these cells define.

    Args:
        cells: As `read_notebook` returns them.

    Returns:
        The names; None when one is computed, so that only running the notebook can tell.

    Raises:
        NotebookError: A cell is not valid Python.
    """
    names = set()
    for cell in cells:
        if cell.kind != "python":
            continue
        for call in ast.walk(cell.parse()):
            if not isinstance(call, ast.Call) or not _defines_widget(call.func):
                continue
            keywords = {keyword.arg: keyword.value for keyword in call.keywords}
            name = call.args[0] if call.args else keywords.get("name")
            if not isinstance(name, ast.Constant):
                return None
            names.add(str(name.value))
    return names


def _defines_widget(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _WIDGET_KINDS
        and isinstance(function.value, ast.Attribute)
        and function.value.attr == "widgets"
    )


def _read(path: Path, callers: tuple[Path, ...]) -> list[Cell]:
    if not path.is_file():
        raise NotebookError(f"notebook must be an existing file: got {str(path)!r}")
    if path.resolve() in callers:
        raise NotebookError(f"notebooks must not %run each other in a circle: got {path.name!r}")
    callers = (*callers, path.resolve())
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != _FIRST_LINE:
        raise NotebookError(
            f"notebook must be in source format: got {path.name!r}; "
            f"begin it with the line '{_FIRST_LINE}'"
        )
    cells: list[Cell] = []
    number = first = 1
    for end in [*(i for i, text in enumerate(lines) if text.rstrip() == _SEPARATOR), len(lines)]:
        cell = _cell(path, number, lines, first, end)
        if cell is not None:
            number += 1
            cells.append(cell)
            if cell.kind == "run":
                cells += _read(_run_target(cell), callers)
        first = end + 1
    return cells


def _cell(path: Path, number: int, lines: Sequence[str], first: int, end: int) -> Cell | None:
    """Return the cell that `lines[first:end]` hold, or None for an empty one."""
    while first < end and (not lines[first].strip() or lines[first].startswith(_TITLE)):
        first += 1
    while first < end and not lines[end - 1].strip():
        end -= 1
    if first == end:
        return None
    marked = [line == _MAGIC or line.startswith(_MAGIC + " ") for line in lines[first:end]]
    text = [
        line.removeprefix(_MAGIC).removeprefix(" ") if is_marked else line
        for line, is_marked in zip(lines[first:end], marked, strict=True)
    ]
    magic = text[0].partition(" ")[0] if marked[0] else ""
    kind = _KINDS.get(magic)
    cell = Cell(
        notebook=path,
        number=number,
        line=first + 1,
        kind=kind or "",
        # The magic word goes and its line stays: line numbers stay true.
        source="\n".join(text)[len(magic) :].lstrip(" "),
    )
    if kind is None or any(marked) != all(marked) or (marked[0] and not magic):
        wrong = magic if kind is None else text[marked.index(True)]
        raise NotebookError(
            f"notebook magic must be %md, %python, %run or %sql, for its whole cell: "
            f"got {wrong!r} in {cell.where()}"
        )
    return cell


def _run_target(cell: Cell) -> Path:
    name = cell.source.strip().strip("'\"")
    if "\n" in name or "$" in name or not name.startswith(("./", "../")):
        raise NotebookError(
            f"%run must be alone in its cell, with a relative path like ./_setup: "
            f"got {name!r} in {cell.where()}"
        )
    return cell.notebook.parent / (name if name.endswith(".py") else name + ".py")
