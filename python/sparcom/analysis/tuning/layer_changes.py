"""Where in depth the sets changed: gained, lost and kept components of each site."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.overlap.measures import jaccard


def unchanged_if_empty(values: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Overlaps, but 1 (unchanged) for two empty sets; before, after: their sizes."""
    return np.where(before + after > 0, values, 1.0)


def layer_changes(
    family: str,
    sites: Sequence[FamilySite],
    categories: tuple[str, ...],
    groups: Sequence[np.ndarray],
    weights: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> pa.Table:
    """One row per category ("all" last) and site, means over instructions.

    groups: [n] bool of each category and of all; weights: [draws, n] bootstrap weights.
    sizes: before, after and kept, each [n, sites].
    Columns: before, after and kept; gained, lost and the overlap within the site with their
    intervals; chance, the overlap of random sets of the same sizes.
    """
    before, after, kept = sizes
    widths = np.array([site.width for site in sites])
    names = (*categories, "all")
    rows = [(name, group) for name, group in zip(names, groups, strict=True) if group.any()]
    overlap = unchanged_if_empty(jaccard(kept, before, after), before, after)
    inter = before * after / widths
    chance = unchanged_if_empty(jaccard(inter, before, after), before, after)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(np.concatenate([values[group].mean(0) for _, group in rows]))

    def with_interval(name: str, values: np.ndarray) -> dict[str, pa.Array]:
        bounds = []
        for _, group in rows:
            weight = weights[:, group]
            draws = weight @ values[group] / weight.sum(1, keepdims=True)
            bounds.append(np.quantile(draws, [0.025, 0.975], axis=0))
        low, high = np.concatenate(bounds, 1)
        return {name: column(values), f"{name}_low": pa.array(low), f"{name}_high": pa.array(high)}

    return pa.table(
        {
            "family": [family] * (len(rows) * len(sites)),
            "category": [name for name, _ in rows for _ in sites],
            "layer": [site.layer for site in sites] * len(rows),
            "kind": [site.kind for site in sites] * len(rows),
            "before": column(before),
            "after": column(after),
            "kept": column(kept),
            **with_interval("gained", after - kept),
            **with_interval("lost", before - kept),
            **with_interval("overlap", overlap),
            "chance": column(chance),
        }
    )
