"""The figures of a run. Each function takes results of `sparcom.analysis` and returns a Figure.

Colours: one sequential map (cividis, also readable in grey) for values; categories keep their
colour in every figure (Okabe and Ito's set, told apart by colour-blind readers too).
"""

import io
import re

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparcom.analysis.layers import LayerHistogram
from sparcom.analysis.overlap import CategoryMatrix, SameDifferent
from sparcom.corpus.text import shorten

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
_LABEL = 24  # characters of a category's name
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "sparcom",
    "text.parse_math": False,  # a category named "$x$" is no formula
}


def category_heatmap(matrix: CategoryMatrix, title: str) -> Figure:
    """Mean pairwise overlap between categories, every cell labelled."""
    with matplotlib.rc_context(_STYLE):
        n = len(matrix.categories)
        figure = Figure(figsize=(1.6 + 0.72 * n, 1.1 + 0.62 * n), layout="constrained")
        axes = figure.subplots()
        known = matrix.mean[np.isfinite(matrix.mean)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        image = axes.imshow(matrix.mean, cmap="cividis", vmin=low, vmax=max(high, low + 1e-9))
        for a in range(n):
            for b in range(n):
                value = matrix.mean[a, b]
                dark = np.isfinite(value) and value < (low + high) / 2
                text = f"{value:.3f}" if np.isfinite(value) else "no pair"
                axes.text(b, a, text, ha="center", va="center", color="w" if dark else "k")
        names = [shorten(name, _LABEL) for name in matrix.categories]
        axes.set_xticks(range(n), names)
        axes.set_yticks(range(n), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.85, label="mean Jaccard of two instructions")
        axes.set_title(title, loc="left")
        return figure


def same_different(result: SameDifferent, title: str) -> Figure:
    """Distributions of the overlap of same-type and of different-type pairs."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for name, sample, colour in (
            ("same type", result.same, PALETTE[0]),
            ("different type", result.different, PALETTE[1]),
        ):
            label = f"{name}: mean {sample.mean:.3f}, {sample.count:,} pairs"
            axes.stairs(sample.density, result.edges, fill=True, alpha=0.45, color=colour)
            axes.stairs(sample.density, result.edges, color=colour, label=label)
            axes.axvline(sample.mean, color=colour, linestyle="--", linewidth=1)
        axes.set_xlabel("Jaccard of two instructions")
        axes.set_ylabel("share of pairs")
        axes.legend(frameon=False)
        axes.set_title(title, loc="left")
        return figure


def layer_curves(histogram: LayerHistogram, title: str, what: str) -> Figure:
    """Components per layer and category, against an even spread over all components."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.4), layout="constrained")
        axes = figure.subplots()
        _curves(axes, histogram)
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{what} of an instruction (mean)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, ncols=2)
        axes.set_title(title, loc="left")
        return figure


def _curves(axes: Axes, histogram: LayerHistogram) -> None:
    layers, at = np.unique(histogram.layers, return_inverse=True)

    def per_layer(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, len(layers))

    for row, name in enumerate(histogram.categories):
        colour = PALETTE[row % len(PALETTE)]
        label = shorten(name, _LABEL)
        axes.plot(layers, per_layer(histogram.mean[row]), color=colour, label=label, marker=".")
        if np.isfinite(histogram.low[row]).all() and len(layers) == len(histogram.layers):
            bounds = (histogram.low[row], histogram.high[row])
            axes.fill_between(layers, *bounds, color=colour, alpha=0.15, linewidth=0)
    total = histogram.mean.sum(1).mean()
    even = per_layer(histogram.chance) * total
    axes.plot(layers, even, color="#999999", linestyle=":", label="even spread")


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, 160 dots per inch."""
    return _save(figure, "png", dpi=160, metadata={"Software": None})


def to_svg(figure: Figure) -> str:
    """A figure as an <svg> element, without XML header, so that it can stand inside a page."""
    text = _save(figure, "svg", metadata={"Date": None, "Creator": None}).decode()
    return re.sub(r"^.*?(?=<svg)", "", text, count=1, flags=re.DOTALL)


def _save(figure: Figure, kind: str, **options: object) -> bytes:
    with matplotlib.rc_context(_STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, facecolor="white", **options)
        return buffer.getvalue()
