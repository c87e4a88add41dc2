"""Show matplotlib's figures in the output of the cell that draws them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dbx_aml._common.environment import environment_variables

_BACKEND = "module://dbx_aml.local.notebook.matplotlib_backend"
_show: Callable[[Any], None] | None = None


@contextmanager
def inline(show: Callable[[Any], None]) -> Iterator[None]:
    """In the block, `plt.show()` and `show_figures` pass figures to `show`, not to a window.

    Args:
        show: Function that shows a matplotlib figure and closes it.
    """
    global _show
    old_show, _show = _show, show
    try:
        # Read when the block imports matplotlib.
        with environment_variables(MPLBACKEND=_BACKEND):
            if "matplotlib" in sys.modules:
                import matplotlib

                matplotlib.use(_BACKEND)
            yield
    finally:
        _show = old_show


def show_figures() -> None:
    """Show every open figure."""
    if "matplotlib.pyplot" not in sys.modules or _show is None:
        return
    from matplotlib import pyplot as plt

    for number in plt.get_fignums():
        _show(plt.figure(number))


def close(figure: Any) -> None:
    """Close a figure, so that `show_figures` does not show it again."""
    from matplotlib import pyplot as plt

    plt.close(figure)
