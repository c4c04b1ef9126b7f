"""Nominal against achieved set size: what ties at the cut made of the rule."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.components import ComponentSpace
from sparcom.selection.rules import Selection, expert_groups, neuron_groups, nominal_size

SCHEMA = pa.schema(
    [
        ("family", pa.string()),
        ("group", pa.string()),
        ("components", pa.int64()),
        ("nominal", pa.int64()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("share", pa.float64()),
    ]
)


def achieved_sizes(
    selection: Selection, space: ComponentSpace, sizes: Mapping[str, np.ndarray]
) -> pa.Table:
    """One row per group that was ranked together.

    sizes: "neurons" and "experts" -> [n, groups], as in `Sets`; what is not there has no rows.
    Columns: family, group, components, nominal (size that the rule asks for; null if it asks
    for none), mean, low, high (5 and 95 % of instructions), share (mean / components).
    """
    rows = []
    for family, rule, groups in (
        ("neurons", selection.rule, neuron_groups(space, selection)),
        ("experts", selection.expert_rule, expert_groups(space, selection)),
    ):
        kind = rule.partition(":")[0]
        for at, group in enumerate(groups if family in sizes else ()):
            column = sizes[family][:, at]
            asked = kind in ("top", "per-layer") or (family == "neurons" and kind == "lift")
            rows.append(
                {
                    "family": family,
                    "group": group.name,
                    "components": group.size,
                    "nominal": nominal_size(rule, group) if asked else None,
                    "mean": float(column.mean()),
                    "low": float(np.quantile(column, 0.05)),
                    "high": float(np.quantile(column, 0.95)),
                    "share": float(column.mean()) / max(group.size, 1),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def size_warnings(table: pa.Table) -> list[str]:
    """Groups whose sets are half as large again, or half as small, as the rule asks for."""
    return [
        f"{row['family']}, {row['group']}: sets hold {row['mean']:.0f} components on average where "
        f"the rule asks for {row['nominal']} (ties at the cut, or too few that fired)"
        for row in table.to_pylist()
        if row["nominal"] and not 0.5 <= row["mean"] / row["nominal"] <= 1.5
    ]
