"""Where tables and progress go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = True) -> Console:
    """Return a console on stderr, or on stdout."""
    from rich.console import Console

    return Console(stderr=stderr)
