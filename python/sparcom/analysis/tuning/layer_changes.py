"""Where in depth the sets changed: gained, lost and kept components of each site."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.overlap.measures import jaccard
from sparcom.analysis.tuning.pairing import Pairing, mean_estimates


def unchanged_if_empty(values: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Overlaps, but 1 (unchanged) for two empty sets; before, after: their sizes."""
    return np.where(before + after > 0, values, 1.0)


def layer_changes(
    family: str,
    sites: Sequence[FamilySite],
    pairing: Pairing,
    sizes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> pa.Table:
    """One row per category ("all" last) and site, means over instructions.

    sizes: before, after and kept, each [n, sites].
    Columns: before, after and kept; gained, lost and the overlap within the site with their
    intervals over clusters; chance, the overlap of random sets of the same sizes.
    """
    before, after, kept = sizes
    widths = np.array([site.width for site in sites])
    names = (*pairing.categories, "all")
    there = [at for at, group in enumerate(pairing.groups) if group.any()]
    overlap = unchanged_if_empty(jaccard(kept, before, after), before, after)
    inter = before * after / widths
    chance = unchanged_if_empty(jaccard(inter, before, after), before, after)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(np.concatenate([values[pairing.groups[at]].mean(0) for at in there]))

    def with_interval(name: str, values: np.ndarray) -> dict[str, pa.Array]:
        means = pairing.means(values)
        rows = [one for at in there for one in mean_estimates(means[at])]
        ends = {"": "value", "_low": "low", "_high": "high"}
        return {
            f"{name}{end}": pa.array([getattr(row, key) for row in rows], pa.float64())
            for end, key in ends.items()
        }

    return pa.table(
        {
            "family": [family] * (len(there) * len(sites)),
            "category": [names[at] for at in there for _ in sites],
            "layer": [site.layer for site in sites] * len(there),
            "kind": [site.kind for site in sites] * len(there),
            "before": column(before),
            "after": column(after),
            "kept": column(kept),
            **with_interval("gained", after - kept),
            **with_interval("lost", before - kept),
            **with_interval("overlap", overlap),
            "chance": column(chance),
        }
    )
