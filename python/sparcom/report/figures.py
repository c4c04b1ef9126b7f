"""The figures of a run. Each function takes results of `sparcom.analysis` and returns a Figure.

Colours: one sequential map (cividis, also readable in grey) for values; categories keep their
colour in every figure (Okabe and Ito's set, told apart by colour-blind readers too).
"""

import io
import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from sparcom.analysis.overlap.family_overlap import LayerOverlap
from sparcom.analysis.overlap.layers import LayerHistogram
from sparcom.analysis.overlap.overlap import CategoryMatrix, SameDifferent
from sparcom.analysis.stats.confounders import SourceOverlap
from sparcom.formatting import shorten

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
        size = (max(1.6 + 0.72 * n, 4.0), max(1.1 + 0.62 * n, 2.8))  # room for the colour bar
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        image = _heatmap(axes, matrix, *_range([matrix]))
        figure.colorbar(image, ax=axes, shrink=0.85, label="mean Jaccard of two instructions")
        axes.set_title(title, loc="left")
        return figure


def source_heatmaps(parts: Sequence[SourceOverlap], title: str) -> Figure:
    """The same within each source and across each two, on one scale."""
    with matplotlib.rc_context(_STYLE):
        n = len(parts[0].matrix.categories)
        size = (len(parts) * max(0.8 + 0.6 * n, 2.0) + 0.8, max(1.5 + 0.56 * n, 3.0))
        figure = Figure(figsize=size, layout="constrained")
        row = np.atleast_1d(figure.subplots(1, len(parts)))
        bounds = _range([part.matrix for part in parts])
        for axes, part in zip(row, parts, strict=True):
            image = _heatmap(axes, part.matrix, *bounds)
            names = [shorten(name, _LABEL) for name in (part.first, part.second)]
            within = part.first == part.second
            axes.set_title(f"within {names[0]}" if within else f"{names[0]} against {names[1]}")
            if not within:
                axes.set_ylabel(names[0])
                axes.set_xlabel(names[1])
        figure.colorbar(image, ax=row, shrink=0.85, label="mean Jaccard of two instructions")
        figure.suptitle(title, x=0.01, ha="left")
        return figure


def _range(matrices: Sequence[CategoryMatrix]) -> tuple[float, float]:
    """Lowest and highest mean, for a common scale."""
    means = np.concatenate([matrix.mean.reshape(-1) for matrix in matrices])
    known = means[np.isfinite(means)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def _heatmap(axes: Axes, matrix: CategoryMatrix, low: float, high: float) -> AxesImage:
    n = len(matrix.categories)
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
    return image


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
        axes.set_ylim(top=1.35 * max(result.same.density.max(), result.different.density.max()))
        axes.legend(frameon=False, loc="upper right")
        axes.set_title(title, loc="left")
        return figure


def layer_curves(histogram: LayerHistogram, title: str, what: str) -> Figure:
    """Components per layer and category, against an even spread over all components."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.4), layout="constrained")
        axes = figure.subplots()
        _curves(axes, histogram)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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


def effect_by_layer(parts: Sequence[LayerOverlap], title: str) -> Figure:
    """Same-type minus different-type overlap within each site, with interval and null."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.2), layout="constrained")
        axes = figure.subplots()
        kinds = list(dict.fromkeys(part.kind for part in parts))
        for row, kind in enumerate(kinds):
            of = [part for part in parts if part.kind == kind and part.effect.low is not None]
            layers = [part.layer for part in of]
            colour = PALETTE[row % len(PALETTE)]
            label = kind if len(kinds) > 1 else "same minus different type"
            values = [part.effect.value for part in of]
            axes.plot(layers, values, color=colour, marker=".", label=label)
            _band(axes, layers, [p.effect.low for p in of], [p.effect.high for p in of], colour)
            null = [p.effect for p in of if p.effect.chance_low is not None]
            if len(null) == len(of):
                bounds = ([e.chance_low for e in null], [e.chance_high for e in null])
                _band(axes, layers, *bounds, "#999999", None if row else "permuted labels")
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.set_xlabel("layer")
        axes.set_ylabel("difference of mean Jaccard")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        axes.set_title(title, loc="left")
        return figure


def change_by_layer(rows: Sequence[dict], title: str) -> Figure:
    """Components gained and lost per layer: rows of `alteration_layers_*` of one category."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.2), layout="constrained")
        axes = figure.subplots()
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        styles = dict(zip(kinds, ("-", "--", ":"), strict=False))
        for colour, name in zip(PALETTE, ("gained", "lost"), strict=False):
            for kind in kinds:
                of = [row for row in rows if row["kind"] == kind]
                layers = [row["layer"] for row in of]
                label = name if len(kinds) == 1 else f"{name}, {kind}"
                values = [row[name] for row in of]
                axes.plot(layers, values, styles[kind], color=colour, marker=".", label=label)
                bounds = ([row[f"{name}_{end}"] for row in of] for end in ("low", "high"))
                _band(axes, layers, *bounds, colour)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("layer")
        axes.set_ylabel("mean of an instruction")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        axes.set_title(title, loc="left")
        return figure


def overlap_by_step(rows: Sequence[dict], title: str) -> Figure:
    """Overlap with the first checkpoint over steps: rows of `trajectory` of one family."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.4), layout="constrained")
        axes = figure.subplots()
        names = list(dict.fromkeys(row["category"] for row in rows))
        for at, name in enumerate(names):
            of = [r for r in rows if (r["category"], r["figure"]) == (name, "overlap")]
            colour = PALETTE[at % len(PALETTE)]
            steps = [row["step"] for row in of]
            label = shorten(name, _LABEL)
            axes.plot(steps, [r["value"] for r in of], color=colour, marker=".", label=label)
            _band(axes, steps, [r["low"] for r in of], [r["high"] for r in of], colour)
        floor = [r for r in rows if (r["category"], r["figure"]) == ("all", "noise floor")]
        if floor:
            steps = [row["step"] for row in floor]
            style = {"color": "#999999", "linestyle": ":", "label": "noise floor"}
            axes.plot(steps, [row["value"] for row in floor], **style)
        steps = {row["step"]: row["run"] for row in rows}
        axes.set_xticks(list(steps), [shorten(name, _LABEL) for name in steps.values()])
        axes.set_ylabel("mean Jaccard with the first")
        axes.legend(frameon=False, ncols=2)
        axes.set_title(title, loc="left")
        return figure


def _band(
    axes: Axes,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    label: str | None = None,
) -> None:
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, label=label)


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
