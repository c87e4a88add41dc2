"""matplotlib's figures are shown in the cell that made them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_BACKEND = "module://dbx_aml.local.notebook.matplotlib_backend"
_show: Callable[[Any], None] | None = None


@contextmanager
def inline(show: Callable[[Any], None]) -> Iterator[None]:
    """Hand figures to `show` in the block, at `plt.show()` or `show_open`, not to a window.

    Args:
        show: Takes a matplotlib figure, and closes it.
    """
    global _show
    before, old_backend = _show, os.environ.get("MPLBACKEND")
    _show = show
    os.environ["MPLBACKEND"] = _BACKEND  # counts where matplotlib is imported in the block
    if "matplotlib" in sys.modules:
        import matplotlib

        matplotlib.use(_BACKEND)
    try:
        yield
    finally:
        _show = before
        if old_backend is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = old_backend


def show_open() -> None:
    """Show every open figure."""
    if "matplotlib.pyplot" not in sys.modules or _show is None:
        return
    from matplotlib import pyplot as plt

    for number in plt.get_fignums():
        _show(plt.figure(number))


def close(figure: Any) -> None:
    """Close a figure that was shown, so that it is not shown again."""
    from matplotlib import pyplot as plt

    plt.close(figure)
