"""The file of a notebook: its cells, those that `%run` brings, and the widgets they define."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, NotebookError
from dbx_aml.local.notebook.databricks_paths import Files

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
    "%sh": "shell",
    "%pip": "pip",
    "%run": "run",
}
_WIDGET_KINDS = ("text", "dropdown", "combobox", "multiselect")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a notebook.

    Args:
        notebook: The file it stands in.
        number: Its position in that file; starts at 1.
        line: The line of `source`'s first line in that file; starts at 1.
        kind: "python", "sql", "shell", "pip", "markdown" (not executed) or "run".
        source: Its text, without the `# MAGIC` marks.
        title: What a reader sees above it, for example "Load the rows".
        brings: For "run": the cells of the notebook that it names.
        arguments: For "run": values for that notebook's widgets, by name.
    """

    notebook: Path
    number: int
    line: int
    kind: str
    source: str
    title: str = ""
    brings: tuple[Cell, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)

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


def read_notebook(path: str | Path, files: Files | None = None) -> list[Cell]:
    """Return the cells of a notebook; one with `%run` has those of the notebook it names.

    Args:
        path: For example "notebooks/04_score.py".
        files: Where paths like /Workspace/Shared/_setup are on this machine.

    Raises:
        ArgumentError: The file cannot be read, or is not in the source format.
        NotebookError: So is one that `%run` names; a magic is not understood; or notebooks run
            each other in a circle.
    """
    return _read(Path(path), files or Files(), ())


def every_cell(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield the cells, and those that they bring, in the order of their execution."""
    for cell in cells:
        yield cell
        yield from every_cell(cell.brings)


def widget_names(cells: Iterable[Cell]) -> set[str] | None:
    """Return the names of the widgets that these cells, and those they bring, define.

    Args:
        cells: As `read_notebook` returns them.

    Returns:
        The names; None when one is computed, so that only running the notebook can tell.

    Raises:
        NotebookError: A cell is not valid Python.
    """
    names = set()
    for cell in every_cell(cells):
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


def _read(path: Path, files: Files, callers: tuple[Path, ...]) -> list[Cell]:
    # What a person named is wrong usage; what a notebook names is that notebook's error.
    error = NotebookError if callers else ArgumentError
    if path.resolve() in callers:
        raise NotebookError(f"notebooks must not %run each other in a circle: got {path.name!r}")
    callers = (*callers, path.resolve())
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        why = "" if isinstance(err, FileNotFoundError) else f"; {err}"
        raise error(f"notebook must be an existing text file: got {str(path)!r}{why}") from err
    if not lines or lines[0].strip() != _FIRST_LINE:
        raise error(
            f"notebook must be in source format: got {path.name!r}; "
            f"begin it with the line '{_FIRST_LINE}'"
        )
    cells: list[Cell] = []
    first = 1
    for end in [*(i for i, text in enumerate(lines) if text.rstrip() == _SEPARATOR), len(lines)]:
        cell = _cell(path, len(cells) + 1, lines, first, end)
        if cell is not None:
            if cell.kind == "run":
                target, arguments = _run_target(cell, files)
                brings = tuple(_read(target, files, callers))
                cell = replace(cell, brings=brings, arguments=arguments)
            cells.append(cell)
        first = end + 1
    return cells


def _cell(path: Path, number: int, lines: Sequence[str], first: int, end: int) -> Cell | None:
    """Return the cell that `lines[first:end]` hold, or None for an empty one."""
    title = ""
    while first < end and (not lines[first].strip() or lines[first].startswith(_TITLE)):
        if lines[first].startswith(_TITLE):
            # "# DBTITLE 1,Load the rows": the number says whether it is shown.
            title = lines[first].partition(",")[2].strip()
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
        title=title,
    )
    if kind is None or any(marked) != all(marked) or (marked[0] and not magic):
        *others, last = sorted(filter(None, _KINDS))
        wrong = magic if kind is None else text[marked.index(True)]
        raise NotebookError(
            f"notebook magic must be {', '.join(others)} or {last}, for its whole cell: "
            f"got {wrong!r} in {cell.where()}"
        )
    return cell


def _run_target(cell: Cell, files: Files) -> tuple[Path, dict[str, str]]:
    """Return the notebook that a %run cell names, and the widget values after its path."""
    try:
        name, *values = shlex.split(cell.source)
    except ValueError:
        name, values = "", []
    pairs = [re.fullmatch(r"\$(\w+)=(.*)", value, re.DOTALL) for value in values]
    if not name or "\n" in cell.source.strip() or None in pairs:
        raise NotebookError(
            "%run must be alone in its cell, with a path and values like "
            f'./_setup $table="flights": got {cell.source!r} in {cell.where()}'
        )
    return files.notebook(name, cell.notebook), {pair[1]: pair[2] for pair in pairs if pair}
