"""What a person sees of the demo: the steps, what the notebooks print, where everything is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

_COLUMNS = {
    "rows_read": "rows\nread",
    "rows_scored": "\nscored",
    "rows_quarantined": "set\naside",
    "seconds": "\nseconds",
    "model_version": "model\nversion",
    "batch_id": "\nbatch id",
}
_INDENT = "      "


class Screen:
    """Where the demo prints.

    Args:
        console: By default standard output, as it is now: later it is redirected to here.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(file=sys.stdout, highlight=False)

    def title(self, text: str) -> None:
        """Print the title of a step."""
        self._console.print(f"\n[bold]{text}[/]", soft_wrap=True)

    def say(self, line: str) -> None:
        """Print one line below a title."""
        self._console.print(f"{_INDENT}{line}", markup=False, style="dim", soft_wrap=True)

    @contextmanager
    def working(self, text: str) -> Iterator[Status]:
        """Show a spinner on a terminal; what is printed meanwhile goes below the title."""
        lines = _Lines(self.say)
        with (
            self._console.status(text) as status,
            redirect_stdout(lines),
            redirect_stderr(lines),
        ):
            yield status

    def summary(self, steps: Iterable[Any], paths: Mapping[str, str]) -> None:
        """Print the table of the steps and the places of what was made.

        Args:
            steps: `DemoStep`s.
            paths: What is where, for example {"table flights": "/tmp/demo/..."}.
        """
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        table.add_column("\nstep", no_wrap=True)
        for name, header in _COLUMNS.items():
            table.add_column(header, justify="left" if name == "batch_id" else "right")
        for step in steps:
            table.add_row(step.name, *(_text(getattr(step, name)) for name in _COLUMNS))
        self._console.print()
        self._console.print(table)
        self._console.print()
        width = max(map(len, paths))
        for name, path in paths.items():
            self._console.print(f"{name:<{width}}  {path}", markup=False, soft_wrap=True)


class _Lines(io.TextIOBase):
    """A stream that hands each line on; of a progress bar, its last state."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line.rstrip("\r").rpartition("\r")[2])
        return len(text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    # A batch id is a checkpoint's identity and a number: its first digits tell it from others.
    checkpoint, slash, number = str(value).rpartition("/")
    return f"{checkpoint[:8]}…/{number}" if slash else str(value)
