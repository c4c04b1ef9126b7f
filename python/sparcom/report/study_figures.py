"""The figures of a study: models side by side, each base under its tuned model.

A grid has a column for each pair and two rows, the tuned models above. Each function takes the
rows of the runs' tables; `None` stands for a run that there is not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparcom.formatting import shorten
from sparcom.report.axes import LABEL, PALETTE, STYLE, changes, common_range, heatmap
from sparcom.report.axes import curves as layer_curves
from sparcom.report.tables import Row, distinct, square

SIDES = ("tuned", "base")
"""The rows of a grid, from the top."""
Grid = Mapping[str, Mapping[str, Sequence[Row] | None]]
"""Name of a column -> side -> rows of a table."""


def overlap_grid(grid: Grid, title: str) -> Figure:
    """Mean overlap of two instructions by category: rows of `category_matrix` of one family.

    The two models of a pair are on one scale.
    """
    scales = {
        name: common_range([square(rows) for rows in sides.values() if rows] or [np.zeros(0)])
        for name, sides in grid.items()
    }
    known = [rows for sides in grid.values() for rows in sides.values() if rows]
    side = max((len(distinct(rows, "a")) for rows in known), default=2)

    def draw(axes: Axes, column: str, rows: Sequence[Row]) -> None:
        heatmap(axes, distinct(rows, "a"), square(rows), *scales[column])

    return _grid(grid, draw, (max(0.9 + 0.6 * side, 2.6), max(0.9 + 0.55 * side, 2.2)), title)


def layer_grid(grid: Grid, title: str, what: str) -> Figure:
    """Components per layer and category: rows of `layers` of one family. what: their name."""

    def draw(axes: Axes, column: str, rows: Sequence[Row]) -> None:
        layer_curves(axes, rows)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{what} of an instruction (mean)")

    return _grid(grid, draw, (4.6, 2.9), title, curves=True)


def alteration_grid(
    overlaps: Mapping[str, Sequence[Row]], layers: Mapping[str, Sequence[Row]], title: str
) -> Figure:
    """What tuning changed: the overlap of base and tuned by category, above what is gained and lost
    in each layer.

    overlaps: column -> rows of `alteration_summary` of one family; layers: column -> rows of
    `alteration_layers_*` of category "all".
    """
    with matplotlib.rc_context(STYLE):
        size = (4.6 * len(overlaps) + 0.4, 6.0)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(2, len(overlaps), squeeze=False)
        for (upper, lower), name in zip(panels.T, overlaps, strict=True):
            upper.set_title(shorten(name, 2 * LABEL))
            _overlaps(upper, overlaps[name])
            changes(lower, layers[name])
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside upper right",
                      ncols=3 if len(overlaps) > 1 else 1)  # fmt: skip
        figure.suptitle(title, x=0.01, ha="left")
        return figure


def _overlaps(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean Jaccard of an instruction's sets in base and tuned, by category, beside chance."""
    names = distinct(rows, "category")
    found = {(row["category"], row["figure"]): row for row in rows}
    for at, name in enumerate(names):
        one = found[name, "overlap"]
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [at, at], color=PALETTE[0], linewidth=1.5)
        axes.plot(one["value"], at, "o", color=PALETTE[0], label=None if at else "base and tuned")
        marks = [(one["chance"], "random sets", "#999999")]
        if (name, "noise floor") in found:
            floor = found[name, "noise floor"]["value"]
            marks.append((floor, "base in another dtype", PALETTE[1]))
        for value, label, colour in marks:
            if value is not None:
                axes.plot(value, at, "|", color=colour, markersize=12, markeredgewidth=2,
                          label=None if at else label)  # fmt: skip
    axes.set_yticks(range(len(names)), [shorten(name, LABEL) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean Jaccard of an instruction's two sets")


def _grid(
    grid: Grid,
    draw: Callable[[Axes, str, Sequence[Row]], None],
    cell: tuple[float, float],
    title: str,
    *,
    curves: bool = False,
) -> Figure:
    """A figure with a column for each pair and a row for each side.

    cell: inches of one panel. curves: one legend for all; the models of a pair on one scale.
    """
    with matplotlib.rc_context(STYLE):
        size = (cell[0] * len(grid) + 0.6, cell[1] * len(SIDES) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        share: Any = "col" if curves else False
        panels = figure.subplots(len(SIDES), len(grid), squeeze=False, sharey=share)
        handles: dict[str, Any] = {}
        for column, (name, sides) in enumerate(grid.items()):
            for row, side in enumerate(SIDES):
                axes = panels[row, column]
                axes.set_title(shorten(f"{name}, {side}", 2 * LABEL))
                if (rows := sides.get(side)) is None or not rows:
                    axes.axis("off")
                    axes.text(0.5, 0.5, "no result", ha="center", transform=axes.transAxes)
                    continue
                draw(axes, name, rows)
                of, labels = axes.get_legend_handles_labels()
                handles |= dict(zip(labels, of, strict=True))
        if handles:
            figure.legend(
                list(handles.values()), list(handles), frameon=False, loc="outside lower center",
                ncols=min(len(handles), 4 * len(grid)),
            )  # fmt: skip
        figure.suptitle(title, x=0.01, ha="left")
        return figure
