"""The figures of a run. Each function takes rows or columns of its tables and returns a Figure."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparcom.formatting import shorten
from sparcom.report.axes import (
    LABEL,
    PALETTE,
    STYLE,
    band,
    by_layer,
    changes,
    common_range,
    curves,
    heatmap,
)
from sparcom.report.tables import Row, array, distinct


@contextmanager
def _drawing(width: float, height: float, title: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, in the style of all; the title comes last."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        yield figure, axes
        axes.set_title(title, loc="left")


def category_heatmaps(
    categories: Sequence[str], parts: Sequence[tuple[str, np.ndarray]], title: str
) -> Figure:
    """Mean pairwise overlap between categories, every mean as a number, side by side.

    parts: (what was held fixed, mean [C, C]) each, on one scale.
    """
    with matplotlib.rc_context(STYLE):
        n = len(categories)
        size = (len(parts) * max(0.8 + 0.62 * n, 2.4) + 0.8, max(1.5 + 0.56 * n, 3.0))
        figure = Figure(figsize=size, layout="constrained")
        row = np.atleast_1d(figure.subplots(1, len(parts)))
        bounds = common_range([mean for _, mean in parts])
        for axes, (name, mean) in zip(row, parts, strict=True):
            image = heatmap(axes, categories, mean, *bounds)
            axes.set_title(name)
        figure.colorbar(image, ax=row, shrink=0.85, label="mean Jaccard of two instructions")
        figure.suptitle(title, x=0.01, ha="left")
        return figure


def source_heatmaps(
    categories: Sequence[str], parts: Sequence[tuple[str, str, np.ndarray]], title: str
) -> Figure:
    """The same within each source and across each two, on one scale.

    parts: (first source, second, mean [C, C]) each.
    """
    with matplotlib.rc_context(STYLE):
        n = len(categories)
        size = (len(parts) * max(0.8 + 0.6 * n, 2.0) + 0.8, max(1.5 + 0.56 * n, 3.0))
        figure = Figure(figsize=size, layout="constrained")
        row = np.atleast_1d(figure.subplots(1, len(parts)))
        bounds = common_range([mean for _, _, mean in parts])
        for axes, (first, second, mean) in zip(row, parts, strict=True):
            image = heatmap(axes, categories, mean, *bounds)
            names = [shorten(name, LABEL) for name in (first, second)]
            within = first == second
            axes.set_title(f"within {names[0]}" if within else f"{names[0]} against {names[1]}")
            if not within:
                axes.set_ylabel(names[0])
                axes.set_xlabel(names[1])
        figure.colorbar(image, ax=row, shrink=0.85, label="mean Jaccard of two instructions")
        figure.suptitle(title, x=0.01, ha="left")
        return figure


def same_different(bins: Sequence[Row], summary: Sequence[Row], title: str) -> Figure:
    """Distributions of the overlap of same-type and of different-type pairs.

    bins, summary: rows of `pair_distribution` and `pair_summary` of one family.
    """
    with _drawing(5.6, 3.2, title) as (figure, axes):
        edges = np.append(array(bins, "low"), bins[-1]["high"])
        highest = 0.0
        for of, colour in zip(summary, PALETTE, strict=False):
            density = array(bins, of["pairs"].replace(" ", "_"))
            label = f"{of['pairs']}: mean {of['mean']:.3f}, {of['count']:,} pairs"
            axes.stairs(density, edges, fill=True, alpha=0.45, color=colour)
            axes.stairs(density, edges, color=colour, label=label)
            axes.axvline(of["mean"], color=colour, linestyle="--", linewidth=1)
            highest = max(highest, density.max())
        axes.set_xlabel("Jaccard of two instructions")
        axes.set_ylabel("share of pairs")
        axes.set_ylim(top=1.35 * highest)
        axes.legend(frameon=False, loc="upper right")
    return figure


def layer_curves(rows: Sequence[Row], title: str, what: str) -> Figure:
    """Components per layer and category, against an even spread: rows of `layers`, one family."""
    with _drawing(6.8, 3.4, title) as (figure, axes):
        curves(axes, rows)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"{what} of an instruction (mean)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, ncols=2)
    return figure


def effect_by_layer(rows: Sequence[Row], title: str) -> Figure:
    """Same-type minus different-type overlap within each site: rows of `layer_effects`."""
    with _drawing(6.8, 3.2, title) as (figure, axes):
        kinds = distinct(rows, "kind")
        for number, kind in enumerate(kinds):
            of = [row for row in rows if row["kind"] == kind and row["low"] is not None]
            layers = [row["layer"] for row in of]
            colour = PALETTE[number % len(PALETTE)]
            label = kind if len(kinds) > 1 else "same minus different type"
            axes.plot(layers, [row["value"] for row in of], color=colour, marker=".", label=label)
            band(axes, layers, [r["low"] for r in of], [r["high"] for r in of], colour)
            if all(row["chance_low"] is not None for row in of):
                low, high = ([row[f"chance_{end}"] for row in of] for end in ("low", "high"))
                band(axes, layers, low, high, "#999999", None if number else "permuted clusters")
        axes.axhline(0, color="#999999", linewidth=0.8)
        by_layer(axes, "difference of mean Jaccard")
    return figure


def change_by_layer(rows: Sequence[Row], title: str) -> Figure:
    """Components gained and lost per layer: rows of `alteration_layers_*` of one category."""
    with _drawing(6.8, 3.2, title) as (figure, axes):
        changes(axes, rows)
    return figure


def overlap_by_step(rows: Sequence[Row], title: str) -> Figure:
    """Overlap with the first checkpoint over steps: rows of `trajectory` of one family."""
    with _drawing(6.8, 3.4, title) as (figure, axes):
        names = distinct(rows, "category")
        for at, name in enumerate(names):
            of = [r for r in rows if (r["category"], r["figure"]) == (name, "overlap")]
            colour = PALETTE[at % len(PALETTE)]
            steps = [row["step"] for row in of]
            label = shorten(name, LABEL)
            axes.plot(steps, [r["value"] for r in of], color=colour, marker=".", label=label)
            band(axes, steps, [r["low"] for r in of], [r["high"] for r in of], colour)
        noise = [r for r in rows if (r["category"], r["figure"]) == ("all", "noise floor")]
        if noise:
            steps = [row["step"] for row in noise]
            style: dict[str, Any] = {"color": "#999999", "linestyle": ":", "label": "noise floor"}
            axes.plot(steps, [row["value"] for row in noise], **style)
        runs = {row["step"]: row["run"] for row in rows}
        axes.set_xticks(list(runs), [shorten(name, LABEL) for name in runs.values()])
        axes.set_ylabel("mean Jaccard with the first")
        axes.legend(frameon=False, ncols=2)
    return figure


def random_set_intervals(rows: Sequence[Row], title: str, unit: str) -> Figure:
    """Ablated targets beside the prediction intervals of their random sets.

    rows: tested rows of `ablation` or `behaviour`: the selectivity of each, of "all" the effect.
    unit: of both.
    """
    title = f"{title} and random sets"
    with _drawing(6.4, 1.2 + 0.3 * len(rows), title) as (figure, axes):
        for at, row in enumerate(rows):
            name = "effect" if row["category"] == "all" else "selectivity"
            random = "random" if row["category"] == "all" else "selectivity_random"
            low, high = row[f"{random}_low"], row[f"{random}_high"]
            if low is not None:
                label = None if axes.patches else "95 % of matched random sets"
                axes.barh(at, high - low, left=low, height=0.5, color="#cccccc", label=label)
            filled = PALETTE[0] if row["verdict"] == "matters" else "w"
            axes.plot(row[name], at, "o", color=PALETTE[0], markerfacecolor=filled)
        axes.axvline(0, color="#999999", linewidth=0.8)
        several = len(distinct(rows, "how")) > 1
        labels = [
            (row["target"] if row["category"] in row["target"] else
             f"{row['target']}, {row['category']}") + (f", {row['how']}" if several else "")
            for row in rows
        ]  # fmt: skip
        axes.set_yticks(range(len(rows)), [shorten(label, 2 * LABEL) for label in labels])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        if axes.patches:
            axes.legend(frameon=False)
    return figure


def dose_response(rows: Sequence[Row], title: str, unit: str) -> Figure:
    """Effects of each target against the factor, a panel each; at 1 nothing is changed.

    rows: of `ablation` or `behaviour`, of several factors. unit: of the effects.
    """
    targets = distinct(rows, "target")
    across = min(3, len(targets))
    down = -(-len(targets) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.0 * across, 0.6 + 2.5 * down), layout="constrained")
        panels = figure.subplots(down, across, sharex=True, squeeze=False).reshape(-1)
        for axes, name in zip(panels, targets, strict=False):
            _doses(axes, [row for row in rows if row["target"] == name])
        for axes in panels[len(targets) :]:
            axes.set_visible(False)
        figure.supxlabel("factor", fontsize="medium")
        figure.supylabel(f"effect, {unit}", fontsize="medium")
        figure.suptitle(title, x=0.01, ha="left")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, frameon=False, loc="outside right upper")
        return figure


def _doses(axes: Axes, rows: Sequence[Row]) -> None:
    """One target: a line for each category, through (1, 0)."""
    categories = distinct(rows, "category")
    own = rows[0]["own"] or categories[-1]
    for at, category in enumerate(categories):
        of = [row for row in rows if row["category"] == category]
        points = {1.0: (0.0, 0.0, 0.0)}
        points |= {
            row["factor"]: (row["effect"], row["effect_low"], row["effect_high"]) for row in of
        }
        x = sorted(points)
        y = [points[one][0] for one in x]
        colour = "#000000" if category == "all" else PALETTE[at % len(PALETTE)]
        bold = 2.0 if category == own else 1.0
        axes.plot(x, y, color=colour, marker=".", linewidth=bold, label=shorten(category, LABEL))
        if category != own:
            continue
        band(axes, x, [points[one][1] for one in x], [points[one][2] for one in x], colour)
        for row in of:
            if row["random_low"] is not None:
                ends = [row["random_low"], row["random_high"]]
                axes.plot([row["factor"]] * 2, ends, color="#bbbbbb", linewidth=5, zorder=0)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set_title(shorten(rows[0]["target"], 2 * LABEL), loc="left")


def agreement_curves(rows: Sequence[Row], title: str) -> Figure:
    """Overlap of the most specific components with those of highest attribution, by size.

    rows: of `agreement`, the overlaps of one family and rule.
    """
    with _drawing(6.8, 3.4, title) as (figure, axes):
        names = distinct(rows, "category")
        for at, name in enumerate(names):
            of = [row for row in rows if row["category"] == name]
            k, colour = [row["k"] for row in of], PALETTE[at % len(PALETTE)]
            value = [row["value"] for row in of]
            axes.plot(k, value, color=colour, marker=".", label=shorten(name, LABEL))
            axes.plot(k, [row["chance"] for row in of], color=colour, linestyle=":")
        axes.plot([], [], color="#999999", linestyle=":", label="random, firing as often")
        axes.set_xscale("log")
        sizes = distinct(rows, "k")
        axes.set_xticks(sizes, [f"{k:,}" for k in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("components of each list")
        axes.set_ylabel("share in both")
        axes.legend(frameon=False, ncols=2)
    return figure


def agreement_intervals(rows: Sequence[Row], title: str) -> Figure:
    """Rank correlations of specificity and attribution, one row for each category and rule.

    rows: of `agreement`, one figure of one family.
    """
    with _drawing(6.4, 1.2 + 0.3 * len(rows), title) as (figure, axes):
        rules = distinct(rows, "rule")
        for at, row in enumerate(rows):
            colour = PALETTE[rules.index(row["rule"]) % len(PALETTE)]
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2)
            if row["value"] is not None:
                axes.plot([row["value"]], [at], color=colour, marker="o", linestyle="")
        names = [f"{shorten(row['category'], LABEL)}, {row['rule']}" for row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.set_xlim(-1, 1)
        axes.invert_yaxis()
        axes.set_xlabel("rank correlation within layers")
    return figure


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, 160 dots per inch."""
    return _save(figure, "png", dpi=160, metadata={"Software": None})


def to_svg(figure: Figure) -> str:
    """A figure as an <svg> element, without XML header, so that it can stand inside a page."""
    text = _save(figure, "svg", metadata={"Date": None, "Creator": None}).decode()
    return re.sub(r"^.*?(?=<svg)", "", text, count=1, flags=re.DOTALL)


def to_pdf(figure: Figure) -> bytes:
    """A figure as PDF, its fonts inside."""
    return _save(figure, "pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, facecolor="white", **options)
        return buffer.getvalue()
