"""What running cells showed, in order: kept for the page, and passed on to the terminal."""

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
    """Why a cell failed.

    Args:
        kind: The error's class, for example "ValueError".
        message: What it says.
        line: The line of the cell's file that raised, if it is known.
        trace: The traceback from the notebook on.
    """

    kind: str
    message: str
    line: int | None
    trace: str


@dataclass(kw_only=True)
class CellRun:
    """A cell that was run, or is running.

    Args:
        cell: The cell.
        of: How many cells its notebook has.
        outputs: What it showed.
        inner: Runs of the cells that it brought, or of notebooks that it started.
        seconds: Wall clock; None as long as it runs.
        failure: Why it failed.
    """

    cell: Cell
    of: int
    outputs: list[Output] = field(default_factory=list)
    inner: list[CellRun] = field(default_factory=list)
    seconds: float | None = None
    failure: Failure | None = None


class Record:
    """The runs of a notebook's cells; what they show goes to the innermost that is running."""

    def __init__(self) -> None:
        self.runs: list[CellRun] = []
        self._open: list[CellRun] = []
        self._secrets: set[str] = set()
        self._terminal: TextIO = sys.stdout

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what is printed in the block, and pass it on."""
        self._terminal = sys.stdout
        with (
            redirect_stdout(_Tee(self, sys.stdout, is_error=False)),
            redirect_stderr(_Tee(self, sys.stderr, is_error=True)),
        ):
            yield

    @contextmanager
    def running(self, cell: Cell, of: int) -> Iterator[CellRun]:
        """Yield the run of a cell; what is shown in the block is its."""
        run = CellRun(cell=cell, of=of)
        (self._open[-1].inner if self._open else self.runs).append(run)
        self._open.append(run)
        start = time.monotonic()
        try:
            yield run
        finally:
            run.seconds = time.monotonic() - start
            run.outputs = self._whole(run.outputs)
            self._open.pop()

    def hide(self, secret: str) -> None:
        """Show [REDACTED] for this text from now on."""
        if secret:
            self._secrets |= {secret, escape(secret)}

    def redacted(self, text: str) -> str:
        """Return a text without the secrets that were read."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _REDACTED)
        return text

    def show(self, output: Output) -> None:
        """Keep an output; its text goes to the terminal."""
        if isinstance(output, Text):
            sys.stdout.write(output.text)
            return
        if isinstance(output, Html):
            html, text = self.redacted(output.html), self.redacted(output.text)
            output = replace(output, html=html, text=text)
        elif isinstance(output, Table):
            output = replace(
                output,
                rows=tuple(
                    tuple(None if one is None else self.redacted(one) for one in row)
                    for row in output.rows
                ),
            )
        self._terminal.write(f"{output.text}\n")
        if self._open:
            self._open[-1].outputs.append(output)

    def note(self, text: str, *, is_error: bool) -> None:
        """Keep what was printed."""
        if self._open:
            self._open[-1].outputs.append(Text(text, is_error))

    def _whole(self, outputs: list[Output]) -> list[Output]:
        """Return the outputs with pieces that follow each other as one text.

        Whole again, a secret that was printed in pieces is seen too.
        """
        whole: list[Output] = []
        for is_error, group in groupby(outputs, lambda one: isinstance(one, Text) and one.is_error):
            for is_text, same in groupby(group, lambda one: isinstance(one, Text)):
                if is_text:
                    text = "".join(one.text for one in same)
                    whole.append(Text(self.redacted(text), is_error))
                else:
                    whole += same
        return whole


class _Tee(io.TextIOBase):
    """A stream that notes what it passes on. Not a terminal: nothing should move the cursor."""

    encoding = "utf-8"

    def __init__(self, record: Record, target: TextIO, *, is_error: bool) -> None:
        self._record = record
        self._target = target
        self._is_error = is_error

    def write(self, text: str) -> int:
        self._target.write(self._record.redacted(text))
        self._record.note(text, is_error=self._is_error)
        return len(text)

    def flush(self) -> None:
        self._target.flush()
