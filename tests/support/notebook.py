"""Notebooks of a few cells, for tests of what runs them."""

from __future__ import annotations

import textwrap
from pathlib import Path

SEPARATOR = "\n\n# COMMAND ----------\n\n"


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of these cells and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = SEPARATOR.join(textwrap.dedent(cell).strip("\n") for cell in cells)
    path.write_text(f"# Databricks notebook source\n{text}\n", encoding="utf-8")
    return path
