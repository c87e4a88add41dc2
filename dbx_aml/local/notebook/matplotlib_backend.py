"""The backend that matplotlib loads while a notebook runs; `figures` names it."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

from dbx_aml.local.notebook.figures import show_open

FigureCanvas = FigureCanvasAgg


def show(*args: Any, **kwargs: Any) -> None:
    """Stand in for `plt.show`: the figures go into the cell that is running."""
    show_open()
