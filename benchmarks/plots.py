"""Figures of the benchmarks."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STYLE = ["default", {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}]


@contextmanager
def panels(path: str, count: int, ylabel: str) -> Iterator[list[Axes]]:
    """Draw axes side by side on one scale, to draw on; saved as the picture `path` with a legend beside them."""
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(4.2 * count + 1.6, 4.2), layout="constrained")
        axes = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
        yield axes
        axes[0].set_ylabel(ylabel)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        FigureCanvasAgg(figure).print_figure(path, dpi=150)
