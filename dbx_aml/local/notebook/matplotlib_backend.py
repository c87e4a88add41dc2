"""The matplotlib backend while a notebook runs; `figures` selects this module by its name."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

from dbx_aml.local.notebook.figures import show_figures

FigureCanvas = FigureCanvasAgg


def show(*args: Any, **kwargs: Any) -> None:
    """Implement `plt.show`: the figures become outputs of the running cell."""
    show_figures()
