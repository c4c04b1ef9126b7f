"""Simulated worlds for the analysis: clusters, lengths, and a category effect or none.

Activation is logistic in a neuron's level, its cluster's shift, the instruction's length and its
category; all shifts of neurons are fixed, clusters and instructions are drawn again each time.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class World:
    """One draw. frequency: [n, neurons] c / T; codes, clusters, tokens: [n]."""

    frequency: np.ndarray
    codes: np.ndarray
    clusters: np.ndarray
    tokens: np.ndarray

    @property
    def strata(self) -> np.ndarray:
        """[n] length bins: twelfths."""
        edges = np.quantile(self.tokens, np.arange(1, 12) / 12)
        return np.unique(np.searchsorted(edges, self.tokens), return_inverse=True)[1]

    def take(self, rows: np.ndarray) -> "World":
        """The same draw with some of its instructions."""
        return World(
            frequency=self.frequency[rows],
            codes=self.codes[rows],
            clusters=self.clusters[rows],
            tokens=self.tokens[rows],
        )

    def jaccard(self, size: int) -> np.ndarray:
        """[n, n] Jaccard of the sets of the `size` neurons of highest frequency."""
        cut = np.partition(self.frequency, -size, axis=1)[:, -size][:, None]
        sets = (self.frequency >= cut).astype(np.float32)
        inter = sets @ sets.T
        own = np.diagonal(inter)
        return (inter / (own[:, None] + own - inter)).astype(np.float64)


def simulate(
    rng: np.random.Generator,
    *,
    clusters: int = 12,
    size: int = 5,
    neurons: int = 300,
    cluster_effect: float = 0.8,
    category_effect: float = 0.0,
    length_effect: float = 0.5,
    confounding: float = 0.5,
    planted: int = 0,
    crossed: bool = False,
) -> World:
    """Six categories of `clusters` clusters with about `size` instructions each.

    confounding: how far the categories' mean log T lie apart, in steps of half of it. planted: the
    first neurons fire at 0.6 in one category (neuron i in i % 6), and at 0.2 elsewhere.
    crossed: each cluster holds one instruction of every category.
    """
    fixed = np.random.default_rng(77)
    level, slope = fixed.normal(-0.5, 1.2, neurons), fixed.normal(0, length_effect, neurons)
    own = fixed.normal(0, category_effect, (6, neurons))
    cluster = np.repeat(np.arange(6 * clusters), rng.integers(max(1, size - 3), size + 4,
                                                              6 * clusters))  # fmt: skip
    codes = cluster // clusters
    if crossed:
        cluster, codes = np.repeat(np.arange(clusters), 6), np.tile(np.arange(6), clusters)
    count = len(codes)
    length = rng.normal(0, 0.5, cluster.max() + 1)[cluster] + rng.normal(0, 0.4, count)
    length += confounding * (codes - 2.5) / 2
    tokens = np.clip(np.exp(3.5 + length), 4, 400).astype(np.int64)
    shift = rng.normal(0, cluster_effect, (cluster.max() + 1, neurons))[cluster]
    odds = level + shift + own[codes] + length[:, None] * slope
    if planted:
        at = np.arange(planted)
        inside = codes[:, None] == at % 6
        odds[:, at] = np.where(inside, np.log(0.6 / 0.4), np.log(0.2 / 0.8)) + shift[:, at]
    odds += rng.normal(0, 0.5, odds.shape)
    fired = rng.binomial(tokens[:, None], 1 / (1 + np.exp(-odds)))
    frequency = (fired / tokens[:, None]).astype(np.float32)
    return World(frequency=frequency, codes=codes, clusters=cluster, tokens=tokens)
