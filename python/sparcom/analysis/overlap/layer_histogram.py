"""Where in depth the sets lie: components per site, by category."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.stats.cluster_mean import cluster_mean
from sparcom.analysis.stats.pair_sums import one_hot


@dataclass(frozen=True, kw_only=True)
class LayerHistogram:
    """Components per site in the sets of each category.

    categories: [C]; layers, kinds, widths: [sites].
    mean: [C, sites] components of the site in a set, mean over the category's instructions.
    low, high: [C, sites] 95 % interval of that mean over clusters (`cluster_mean`); NaN for fewer
        than four clusters, and where nothing varies.
    share: [C, sites] the site's share of all components in the category's sets; rows sum to 1,
        or are 0 where all sets are empty.
    chance: [sites] share of a set that falls evenly on all components.
    """

    family: str
    categories: tuple[str, ...]
    layers: np.ndarray
    kinds: tuple[str, ...]
    widths: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    chance: np.ndarray

    def table(self) -> pa.Table:
        """One row per category and site."""
        rows, sites = len(self.categories), len(self.layers)
        return pa.table(
            {
                "family": [self.family] * (rows * sites),
                "category": np.repeat(self.categories, sites).tolist(),
                "layer": np.tile(self.layers, rows),
                "kind": list(self.kinds) * rows,
                "width": np.tile(self.widths, rows),
                **{
                    name: pa.array(getattr(self, name).reshape(-1), from_pandas=True)
                    for name in ("mean", "low", "high", "share")
                },
                "chance": np.tile(self.chance, rows),
            }
        )


def layer_histogram(
    sizes: np.ndarray, sites: Sequence[FamilySite], labels: Labels, family: str
) -> LayerHistogram:
    """The histogram of sets. sizes: [n, sites] components of each site in each set."""
    categories = labels.categories
    member = one_hot(labels.codes, len(categories))
    mean = member.T @ sizes / np.maximum(member.sum(0), 1.0)[:, None]
    bounds = np.stack([_bounds(sizes, labels, code) for code in range(len(categories))], 1)
    totals = mean.sum(1, keepdims=True)
    widths = np.array([site.width for site in sites], dtype=np.int64)
    return LayerHistogram(
        family=family,
        categories=categories,
        layers=np.array([site.layer for site in sites], dtype=np.int32),
        kinds=tuple(site.kind for site in sites),
        widths=widths,
        mean=mean,
        low=bounds[0],
        high=bounds[1],
        share=np.divide(mean, totals, out=np.zeros_like(mean), where=totals > 0),
        chance=widths / widths.sum(),
    )


def _bounds(sizes: np.ndarray, labels: Labels, code: int) -> np.ndarray:
    """[2, sites] the 95 % interval of a category's mean sizes."""
    rows = labels.codes == code
    clusters = labels.clusters[rows]
    one = np.zeros(len(clusters), np.int64)  # clusters of a category are drawn alike
    return np.stack(cluster_mean(sizes[rows], one, clusters, one).bounds())
