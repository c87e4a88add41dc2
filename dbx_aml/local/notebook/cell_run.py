"""Outputs of running cells, in order: recorded for the page, and passed on to the terminal."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from html import escape
from itertools import groupby
from typing import TextIO

from dbx_aml.local.notebook.cell_output import Html, Output, Table, Text
from dbx_aml.local.notebook.source import Cell

_REDACTED = "[REDACTED]"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error of a failed cell.

    Args:
        kind: Class of the error, for example "ValueError".
        message: Message of the error.
        line: Line of the cell's file that raised, if known.
        trace: Traceback, without the frames of this package.
    """

    kind: str
    message: str
    line: int | None
    trace: str


@dataclass(kw_only=True)
class CellRun:
    """A cell that has run, or is running.

    Args:
        cell: The cell.
        cell_count: Number of cells of its notebook.
        outputs: Outputs of the cell.
        inner: Runs of the cells that `%run` included, or of notebooks that the cell started.
        seconds: Wall clock; None while the cell runs.
        failure: Error of the cell.
    """

    cell: Cell
    cell_count: int
    outputs: list[Output] = field(default_factory=list)
    inner: list[CellRun] = field(default_factory=list)
    seconds: float | None = None
    failure: Failure | None = None


class Record:
    """The runs of a notebook's cells; an output belongs to the innermost running cell."""

    def __init__(self) -> None:
        self.runs: list[CellRun] = []
        self._running: list[CellRun] = []
        self._secrets: set[str] = set()
        self._terminal: TextIO = sys.stdout

    @contextmanager
    def capture_output(self) -> Iterator[None]:
        """Record printed text in the block, and pass the text on to the terminal."""
        self._terminal = sys.stdout
        with (
            redirect_stdout(_Tee(self, sys.stdout, is_error=False)),
            redirect_stderr(_Tee(self, sys.stderr, is_error=True)),
        ):
            yield

    @contextmanager
    def record_cell(self, cell: Cell, cell_count: int) -> Iterator[CellRun]:
        """Yield the run of a cell; outputs in the block belong to this run."""
        run = CellRun(cell=cell, cell_count=cell_count)
        (self._running[-1].inner if self._running else self.runs).append(run)
        self._running.append(run)
        start = time.monotonic()
        try:
            yield run
        finally:
            run.seconds = time.monotonic() - start
            run.outputs = self._join_texts(run.outputs)
            self._running.pop()

    def redact_value(self, secret: str) -> None:
        """Show [REDACTED] instead of this secret from now on."""
        if secret:
            self._secrets |= {secret, escape(secret)}

    def redact(self, text: str) -> str:
        """Return a text without the secrets that the notebook has read."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _REDACTED)
        return text

    def show(self, output: Output) -> None:
        """Record an output and write its text to the terminal."""
        if isinstance(output, Text):
            sys.stdout.write(output.text)
            return
        if isinstance(output, Html):
            html, text = self.redact(output.html), self.redact(output.text)
            output = replace(output, html=html, text=text)
        elif isinstance(output, Table):
            output = replace(
                output,
                columns=tuple(map(self.redact, output.columns)),
                types=tuple(map(self.redact, output.types)),
                rows=tuple(
                    tuple(None if value is None else self.redact(value) for value in row)
                    for row in output.rows
                ),
            )
        self._terminal.write(f"{output.text}\n")
        if self._running:
            self._running[-1].outputs.append(output)

    def record_text(self, text: str, *, is_error: bool) -> None:
        """Record printed text."""
        if self._running:
            self._running[-1].outputs.append(Text(text, is_error))

    def _join_texts(self, outputs: list[Output]) -> list[Output]:
        """Return the outputs with consecutive texts joined: a secret may be printed in pieces."""
        joined: list[Output] = []
        for stream, group in groupby(outputs, _text_stream):
            if stream is None:
                joined += group
            else:
                text = "".join(output.text for output in group)
                joined.append(Text(self.redact(text), stream == "stderr"))
        return joined


def _text_stream(output: Output) -> str | None:
    if isinstance(output, Text):
        return "stderr" if output.is_error else "stdout"
    return None


class _Tee(io.TextIOBase):
    """A stream that records text and passes it on; not a terminal, so nothing moves the cursor."""

    encoding = "utf-8"

    def __init__(self, record: Record, target: TextIO, *, is_error: bool) -> None:
        self._record = record
        self._target = target
        self._is_error = is_error

    def write(self, text: str) -> int:
        self._target.write(self._record.redact(text))
        self._record.record_text(text, is_error=self._is_error)
        return len(text)

    def flush(self) -> None:
        self._target.flush()
