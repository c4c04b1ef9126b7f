"""What the figures are made of: one pair of axes each, in one style.

Colours: one sequential map (cividis, also readable in grey) for values; categories keep their
colour in every figure (Okabe and Ito's set, told apart by colour-blind readers too).
"""

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from sparcom.formatting import shorten
from sparcom.report.tables import Row, array, distinct

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#000000")
LABEL = 24  # characters of a category's name
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "sparcom",
    "text.parse_math": False,  # a category named "$x$" is no formula
}


def by_layer(axes: Axes, y: str) -> None:
    """Label axes whose x is the layer."""
    axes.set_xlabel("layer")
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def common_range(matrices: Sequence[np.ndarray]) -> tuple[float, float]:
    """Lowest and highest mean, for a common scale."""
    means = np.concatenate([mean.reshape(-1) for mean in matrices])
    known = means[np.isfinite(means)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def heatmap(
    axes: Axes, categories: Sequence[str], mean: np.ndarray, low: float, high: float
) -> AxesImage:
    """Means between categories [C, C] as colours and numbers, on the scale from low to high."""
    n = len(categories)
    image = axes.imshow(mean, cmap="cividis", vmin=low, vmax=max(high, low + 1e-9))
    for a in range(n):
        for b in range(n):
            value = mean[a, b]
            dark = np.isfinite(value) and value < (low + high) / 2
            text = f"{value:.3f}" if np.isfinite(value) else "no pair"
            axes.text(b, a, text, ha="center", va="center", color="w" if dark else "k")
    names = [shorten(name, LABEL) for name in categories]
    axes.set_xticks(range(n), names)
    axes.set_yticks(range(n), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def curves(axes: Axes, rows: Sequence[Row]) -> None:
    """Components per layer and category, against an even spread: rows of `layers`, one family."""
    names = distinct(rows, "category")
    of = {name: [row for row in rows if row["category"] == name] for name in names}
    sites = of[names[0]]
    layers, at = np.unique(array(sites, "layer").astype(int), return_inverse=True)

    def per_layer(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, len(layers))

    for row, name in enumerate(names):
        colour = PALETTE[row % len(PALETTE)]
        label = shorten(name, LABEL)
        mean = per_layer(array(of[name], "mean"))
        axes.plot(layers, mean, color=colour, label=label, marker=".")
        low, high = array(of[name], "low"), array(of[name], "high")
        if np.isfinite(low).all() and len(layers) == len(sites):
            axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    total = array(rows, "mean").reshape(len(names), -1).sum(1).mean()
    even = per_layer(array(sites, "chance")) * total
    axes.plot(layers, even, color="#999999", linestyle=":", label="even spread")


def changes(axes: Axes, rows: Sequence[Row]) -> None:
    """Components gained and lost per layer: rows of `alteration_layers_*` of one category."""
    kinds = distinct(rows, "kind")
    styles = dict(zip(kinds, ("-", "--", ":"), strict=False))
    for colour, name in zip(PALETTE, ("gained", "lost"), strict=False):
        for kind in kinds:
            of = [row for row in rows if row["kind"] == kind]
            layers = [row["layer"] for row in of]
            label = name if len(kinds) == 1 else f"{name}, {kind}"
            values = [row[name] for row in of]
            axes.plot(layers, values, styles[kind], color=colour, marker=".", label=label)
            low, high = ([row[f"{name}_{end}"] for row in of] for end in ("low", "high"))
            band(axes, layers, low, high, colour)
    axes.set_ylim(bottom=0)
    by_layer(axes, "mean of an instruction")


def band(
    axes: Axes,
    x: Sequence[float],
    low: Sequence[float | None],
    high: Sequence[float | None],
    colour: str,
    label: str | None = None,
) -> None:
    """A band between two curves; nothing where there is no interval."""
    lower, upper = (np.array(bound, np.float64) for bound in (low, high))
    axes.fill_between(x, lower, upper, color=colour, alpha=0.18, linewidth=0, label=label)
