"""Notebooks of a few cells, for tests of what runs them; and what the code of notebooks says."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dbx_aml.local.notebook.source import Cell

SEPARATOR = "\n\n# COMMAND ----------\n\n"


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of these cells and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = SEPARATOR.join(textwrap.dedent(cell).strip("\n") for cell in cells)
    path.write_text(f"# Databricks notebook source\n{text}\n", encoding="utf-8")
    return path


def widget_names(cells: Sequence[Cell]) -> set[str]:
    """Return the names of the widgets that the cells and their included cells define."""
    return {
        ast.literal_eval(value)
        for cell in _flatten_cells(cells)
        if cell.kind == "python"
        for call in ast.walk(ast.parse(cell.source))
        if isinstance(call, ast.Call)
        if re.fullmatch(
            r"dbutils\.widgets\.(text|combobox|dropdown|multiselect)", ast.unparse(call.func)
        )
        for value in [*call.args[:1], *(key.value for key in call.keywords if key.arg == "name")]
    }


def _flatten_cells(cells: Iterable[Cell]) -> Iterator[Cell]:
    for cell in cells:
        yield cell
        yield from _flatten_cells(cell.included_cells)
