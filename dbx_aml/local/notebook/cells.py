"""A cell that runs or has run, with its outputs in the form of nbformat, without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any

from dbx_aml.local.notebook.source import Cell


@dataclass(kw_only=True)
class CellRun:
    """A cell that has run, or is running.

    Args:
        cell: The cell.
        cell_count: Number of cells of its notebook.
        outputs: Outputs of the cell, as in an .ipynb file.
        inner: Runs of the cells that `%run` included, or of notebooks that the cell started.
        seconds: Wall clock; None while the cell runs.
        failure: Error of the cell: `ename`, `evalue` and `traceback` as in an .ipynb file, and
            `line`, the line of the cell's file that raised, or None.
    """

    cell: Cell
    cell_count: int
    outputs: list[dict[str, Any]] = field(default_factory=list)
    inner: list[CellRun] = field(default_factory=list)
    seconds: float | None = None
    failure: dict[str, Any] | None = None

    def add_text(self, stream: str, text: str) -> None:
        """Add printed text to the last output, if it is of the same stream, else as an output."""
        last = self.outputs[-1] if self.outputs else {}
        if last.get("name") == stream:
            last["text"] += text
        else:
            self.outputs.append({"output_type": "stream", "name": stream, "text": text})


def flatten_runs(runs: Sequence[CellRun]) -> Iterator[CellRun]:
    """Yield the runs, each followed by its inner runs."""
    for run in runs:
        yield run
        yield from flatten_runs(run.inner)


def redact_secrets(value: Any, secrets: Iterable[str]) -> Any:
    """Return a text, or the texts in lists and dictionaries, with [REDACTED] for each secret.

    The texts can be written as UTF-8: half of a character, which a name of a file may have, is
    shown as its code.
    """
    if isinstance(value, dict):
        return {
            redact_secrets(key, secrets): redact_secrets(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redact_secrets(item, secrets) for item in value]
    if isinstance(value, str):
        forms = {form for secret in secrets for form in _forms(secret) if form}
        for form in sorted(forms, key=len, reverse=True):
            value = value.replace(form, "[REDACTED]")
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


@cache
def _forms(secret: str) -> set[str]:
    """Return the texts that a secret has in output: plain, quoted by Python or JSON, as HTML."""
    texts = {secret, secret.strip()}
    literals = {
        # Python escapes an apostrophe only beside a quotation mark, which may be another text's.
        form
        for text in texts
        for form in (
            repr(text)[1:-1],
            repr(f'{text}"')[1:-2],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
        )
    }
    return {form for text in texts | literals for form in (text, escape(text))}
