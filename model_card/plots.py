"""Plots of the model card: 9 inches wide, so that 12 points stay readable where a page shows them at 900 pixels.

One-hue and grey scales with the numbers written out: nothing is told by hue alone. Each plot is drawn on a figure of
its own, without pyplot's global state and under matplotlib's default style, whatever the user's settings are.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modeling_sere.audio_sere import SAMPLING_RATE
from modeling_sere.configuration_sere import FRAME_SAMPLES

WIDTH = 9.0  # inches
DPI = 200
ENVELOPE_COLUMNS = 1200  # more than the plot has room for, far fewer than a clip has samples
STYLE = [
    "default",
    # a label is text, whatever dollars and underscores are in it
    {"font.size": 12.0, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False},
]
LABEL = 24  # characters of an emotion's name
BLUE, GREY = "#08519c", "#737373"


def plot_confusion(path: Path, confusion: np.ndarray, labels: Sequence[str]) -> None:
    """Draw a row-normalised confusion matrix with the counts.

    Args:
        path: PNG file to write.
        confusion: (C, C) counts, rows are the truth. A row without clips says so.
        labels: C names.
    """
    totals = confusion.sum(1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    classes, labels = len(labels), [_shown(label) for label in labels]
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.6 + 0.72 * classes), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.argwhere(~np.isnan(shares)):
            share = shares[row, column]
            axes.text(
                column, row, f"{100 * share:.0f} %\n({confusion[row, column]})", ha="center", va="center",
                fontsize=11 if classes <= 8 else 8, color="white" if share > 0.65 else "black",
            )  # fmt: skip
        for row in np.flatnonzero(totals == 0):
            axes.text((classes - 1) / 2, row, "no clips", ha="center", va="center", color=GREY)
        axes.set_xticks(range(classes), labels, rotation=0 if classes <= 8 else 45)
        axes.set_yticks(range(classes), labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        _cell_borders(axes, shares.shape)
        _save(figure, path)


def plot_highlights(path: Path, waveform: np.ndarray, highlights: np.ndarray) -> None:
    """Draw a clip's waveform and its highlight weights over one time axis.

    Args:
        path: PNG file to write.
        waveform: (N,) samples at 16 kHz.
        highlights: (T,) weights, one per 320 samples; drawn as multiples of the uniform weight 1 / T.
    """
    seconds = len(waveform) / SAMPLING_RATE
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 1.0])
        _draw_waveform(axes[0], waveform, seconds)
        _draw_weights(axes[1], highlights)
        axes[0].set_xlim(0, seconds)
        axes[-1].set_xlabel("time (s)")
        _save(figure, path)


def _draw_waveform(axes: Axes, waveform: np.ndarray, seconds: float) -> None:
    columns = np.array_split(waveform, min(ENVELOPE_COLUMNS, len(waveform)))
    times = np.linspace(0, seconds, len(columns))
    low, high = [c.min() for c in columns], [c.max() for c in columns]
    axes.fill_between(times, low, high, color=GREY, linewidth=0.5)
    limit = 1.05 * max(float(np.abs(waveform).max()), 1e-6)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("amplitude")


def _draw_weights(axes: Axes, highlights: np.ndarray) -> None:
    times = (np.arange(len(highlights)) + 0.5) * FRAME_SAMPLES / SAMPLING_RATE
    relative = highlights * len(highlights)
    axes.fill_between(times, relative, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(times, relative, color=BLUE, linewidth=1.5)
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    axes.annotate("uniform", (1, 1), xycoords=axes.get_yaxis_transform(), xytext=(-4, 3), textcoords="offset points",
                  ha="right", fontsize=10)  # fmt: skip
    axes.set_ylim(0, 1.1 * max(1.5, float(relative.max())))
    axes.set_ylabel("highlight\nweight × T")


def _cell_borders(axes: Axes, shape: tuple[int, int]) -> None:
    """Draw white lines between the cells of an image, and no frame or ticks around it."""
    axes.set_xticks(np.arange(1, shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, shape[0]) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _shown(label: str) -> str:
    """Shorten a label so that it can be drawn: in one line, of characters and not halves of them, not too long."""
    text = " ".join(label.encode("utf-8", "backslashreplace").decode().split())
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it; the card has the text
        figure.savefig(path, dpi=DPI)
