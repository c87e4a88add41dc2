"""Progress of the command, on stderr: nothing for what ends within two seconds.

On a terminal it is one line that changes and disappears at the end. Elsewhere, for example in a
job's log, it is a line for each new step, and a line every ten seconds while a step is counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from dbx_aml._common.text import printable
from dbx_aml.cli.tables import print_line

if TYPE_CHECKING:
    from rich.console import Console

_DELAY_S = 2.0
_LINE_EVERY_S = 10.0


class ProgressReporter(Protocol):
    """Function that a command calls to report its progress."""

    def __call__(self, step: str, done: int = 0, total: int = 0, detail: str = "") -> None:
        """Report a step.

        Args:
            step: Name of the current step, for example "Scoring".
            done: Number of units that are complete.
            total: Number of all units; 0 if it is not known.
            detail: More about the count, for example "281,300 points".
        """


@contextmanager
def show_progress(
    step: str, unit: str = "", *, delay_s: float = _DELAY_S
) -> Iterator[ProgressReporter]:
    """Show the progress of the block, and yield the function that reports it.

    Args:
        step: Name of the first step, for example "Reading runs".
        unit: Name of the counted things, for example "tasks".
        delay_s: Seconds before the first step is shown.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    view = _ProgressBar(console, unit) if console.is_terminal else _ProgressLines(unit)
    with _DelayedProgress(step, view, delay_s) as progress:
        yield progress.report


class _ProgressView(Protocol):
    def update(self, step: str, done: int, total: int, detail: str) -> None: ...

    def close(self) -> None: ...


class _DelayedProgress:
    """Keeps the last report until the delay is over, then hands each report on."""

    def __init__(self, step: str, view: _ProgressView, delay_s: float) -> None:
        self._last: tuple[str, int, int, str] = (printable(step), 0, 0, "")
        self._view = view
        self._is_shown = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(delay_s, self._start)
        self._timer.daemon = True

    def report(self, step: str, done: int = 0, total: int = 0, detail: str = "") -> None:
        with self._lock:
            self._last = (printable(step), done, total, printable(detail))
            if self._is_shown and not self._is_closed:
                self._view.update(*self._last)

    def _start(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_shown = True
                self._view.update(*self._last)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_closed = True
            self._view.close()


class _ProgressLines:
    """Progress for a stream that is no terminal."""

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._clock = clock
        self._step = ""
        self._line_time = 0.0

    def update(self, step: str, done: int, total: int, detail: str) -> None:
        count = _count_text(done, total, self._unit, detail)
        is_due = count and self._clock() - self._line_time >= _LINE_EVERY_S
        if step != self._step or is_due:
            self._step, self._line_time = step, self._clock()
            print_line(f"{step}: {count}" if count else f"{step} ...", is_error=True)

    def close(self) -> None:
        """Keep the printed lines."""


class _ProgressBar:
    """Progress for a terminal."""

    def __init__(self, console: Console, unit: str) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._unit = unit
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, count="")

    def update(self, step: str, done: int, total: int, detail: str) -> None:
        self._bar.update(
            self._task,
            description=step,
            completed=done,
            total=total or None,
            count=_count_text(done, total, self._unit, detail),
        )
        self._bar.start()

    def close(self) -> None:
        """Remove the line."""
        self._bar.stop()


def _count_text(done: int, total: int, unit: str, detail: str) -> str:
    count = f"{done:,} of {total:,} {unit}".rstrip() if total else ""
    return ", ".join(text for text in (count, detail) if text)
