"""Where in depth the sets lie: components per site, by category."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.stats.pair_sums import one_hot


@dataclass(frozen=True, kw_only=True)
class LayerHistogram:
    """Components per site in the sets of each category.

    categories: [C]; layers, kinds, widths: [sites].
    mean: [C, sites] components of the site in a set, mean over the category's instructions.
    low, high: [C, sites] 95 % interval of that mean (t, over clusters); NaN if a category has a
        single cluster.
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
    half = np.stack(
        [_half_width(sizes[labels.codes == c], labels.clusters[labels.codes == c])
         for c in range(len(categories))]
    )  # fmt: skip
    totals = mean.sum(1, keepdims=True)
    widths = np.array([site.width for site in sites], dtype=np.int64)
    return LayerHistogram(
        family=family,
        categories=categories,
        layers=np.array([site.layer for site in sites], dtype=np.int32),
        kinds=tuple(site.kind for site in sites),
        widths=widths,
        mean=mean,
        low=mean - half,
        high=mean + half,
        share=np.divide(mean, totals, out=np.zeros_like(mean), where=totals > 0),
        chance=widths / widths.sum(),
    )


def _half_width(sizes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """[sites] half the interval of a mean over n instructions in m clusters; NaN for one cluster.

    t with m - 1 degrees of freedom times sqrt(m / (m - 1) sum_k u_k^2) / n, u_k the summed
    deviations of a cluster.
    """
    names, of = np.unique(clusters, return_inverse=True)
    count = len(names)
    if count < 2:
        return np.full(sizes.shape[1], np.nan)
    sums = one_hot(of, count).T @ (sizes - sizes.mean(0))
    error = np.sqrt(np.square(sums).sum(0) * count / (count - 1)) / len(sizes)
    half: np.ndarray = stats.t.ppf(0.975, count - 1) * error
    return half
