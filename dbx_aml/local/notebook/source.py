"""Read the file of a notebook: its cells, and the cells of the notebooks that `%run` names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, NotebookError
from dbx_aml.local.notebook.databricks_paths import Files

_FIRST_LINE = "# Databricks notebook source"
_SEPARATOR = "# COMMAND ----------"
_MAGIC = "# MAGIC"
_TITLE = "# DBTITLE"
# Magics of Databricks that name the language of a whole cell. IPython knows the other magics.
_KINDS = {
    "": "python",
    "%python": "python",
    "%md": "markdown",
    "%md-sandbox": "markdown",
    "%sql": "sql",
    "%sh": "shell",
    "%run": "run",
}
_REFUSED_MAGICS = ("%", "%fs", "%r", "%scala")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a notebook.

    Args:
        notebook: File of the notebook.
        number: Position of the cell in the file; starts at 1.
        line: Line number in the file of the first line of `source`; starts at 1.
        kind: Either "python", "sql", "shell", "markdown" (not executed) or "run".
        source: Text of the cell, without the `# MAGIC` marks and the magic of its kind.
        magic: Magic of its kind, for example "%sql"; empty for Python.
        title: Title above the cell, for example "Load the rows".
        included_cells: Cells of the notebook that a "run" cell names.
        arguments: Widget values by name that a "run" cell passes.
    """

    notebook: Path
    number: int
    line: int
    kind: str
    source: str
    magic: str = ""
    title: str = ""
    included_cells: tuple[Cell, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)

    def location(self, line: int | None = None) -> str:
        """Return the location for a message, for example "cell 4 of 04_score.py, line 52"."""
        return f"cell {self.number} of {self.notebook.name}, line {line or self.line}"

    @property
    def text(self) -> str:
        """Return the text of the cell as Databricks shows it, with its magic."""
        space = " " if self.magic and not self.source.startswith("\n") else ""
        return self.magic + space + self.source


def read_notebook(path: str | Path, files: Files | None = None) -> list[Cell]:
    """Return the cells of a notebook; a `%run` cell includes the cells of the named notebook.

    Args:
        path: File of the notebook, for example "notebooks/04_score.py".
        files: Map from paths like /Workspace/Shared/_setup to folders of this machine.

    Raises:
        ArgumentError: The file cannot be read, or is not in the source format.
        NotebookError: A notebook after `%run` cannot be read, a magic is unknown, or notebooks
            run each other in a circle.
    """
    return _read(Path(path), files or Files(), ())


def _read(path: Path, files: Files, callers: tuple[Path, ...]) -> list[Cell]:
    # A path from the user is wrong usage; a path in a notebook is an error of that notebook.
    error = NotebookError if callers else ArgumentError
    if path.resolve() in callers:
        raise NotebookError(f"notebooks must not %run each other in a circle: got {path.name!r}")
    callers = (*callers, path.resolve())
    try:
        # Only line feeds end a line of Python: str.splitlines would also split at U+2028 in a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        reason = "" if isinstance(err, FileNotFoundError) else f"; {err}"
        raise error(f"notebook must be an existing text file: got {str(path)!r}{reason}") from err
    if lines[0].strip() != _FIRST_LINE:
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
                included_cells = tuple(_read(target, files, callers))
                cell = replace(cell, included_cells=included_cells, arguments=arguments)
            cells.append(cell)
        first = end + 1
    return cells


def _cell(path: Path, number: int, lines: Sequence[str], first: int, end: int) -> Cell | None:
    """Return the cell in `lines[first:end]`, or None without any text."""
    title = ""
    while first < end and (not lines[first].strip() or lines[first].startswith(_TITLE)):
        if lines[first].startswith(_TITLE):
            # In "# DBTITLE 1,Load the rows" the number says whether Databricks shows the title.
            title = lines[first].partition(",")[2].strip()
        first += 1
    while first < end and not lines[end - 1].strip():
        end -= 1
    if first == end:
        return None
    is_magic = [line == _MAGIC or line.startswith(_MAGIC + " ") for line in lines[first:end]]
    text = [
        line.removeprefix(_MAGIC).removeprefix(" ") if has_mark else line
        for line, has_mark in zip(lines[first:end], is_magic, strict=True)
    ]
    magic = text[0].split(" ")[0] if is_magic[0] else ""
    kind = _KINDS.get(magic, "python")
    location = f"cell {number} of {path.name}, line {first + 1}"
    if is_magic[0] and (not magic.startswith("%") or magic in _REFUSED_MAGICS):
        raise NotebookError(
            "notebook magic must be one of IPython, or "
            f"{', '.join(sorted(filter(None, _KINDS)))}: got {magic!r} in {location}"
        )
    if kind != "python" and not all(is_magic):
        raise NotebookError(
            f"each line of a {magic} cell must begin with '{_MAGIC}': "
            f"got {text[is_magic.index(False)]!r} in {location}"
        )
    magic = magic if magic in _KINDS else ""
    # Only the magic word is removed, not its line, so that line numbers stay correct.
    source = text[0].removeprefix(magic).lstrip(" ") if magic else text[0]
    source = "\n".join([source, *text[1:]])
    if kind == "python":
        # IPython would remove empty lines at the start, which shifts the numbers.
        stripped = source.lstrip("\n")
        first, source, magic = first + len(source) - len(stripped), stripped, ""
    return Cell(
        notebook=path,
        number=number,
        line=first + 1,
        kind=kind,
        source=source,
        magic=magic,
        title=title,
    )


def _run_target(cell: Cell, files: Files) -> tuple[Path, dict[str, str]]:
    """Return the notebook that a %run cell names, and the widget values that it passes."""
    try:
        name, *values = shlex.split(cell.source)
    except ValueError:
        name, values = "", []
    assignments = [re.fullmatch(r"\$(\w+)=(.*)", value, re.DOTALL) for value in values]
    if not name or "\n" in cell.source.strip() or None in assignments:
        raise NotebookError(
            "%run must be alone in its cell, with a path and values like "
            f'./_setup $table="flights": got {cell.source!r} in {cell.location()}'
        )
    return files.notebook(name, cell.notebook), {
        match[1]: match[2] for match in assignments if match
    }
