"""The paired effect: type against content, where every cluster holds every category.

In a crossed design, such as a passage under each type of instruction, the instructions of one
passage share their content whatever their type. Between two passages g and h

    D_gh = mean over types a of J(g a, h a) - mean over types a != b of J(g a, h b)

compares pairs with the same two contents, so that content cancels; the paired effect is the mean of
D over all pairs of passages. Under the null, types are exchanged within each passage.
"""

import math
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.overlap.pair_design import dyadic_error, t_bounds
from sparcom.analysis.stats.cluster_mean import LEAST_CLUSTERS, cluster_mean
from sparcom.analysis.stats.estimate import Estimate, estimate
from sparcom.analysis.stats.exchange import ENOUGH, Nodes


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Figures over the clusters ("passages") that hold every category.

    clusters: how many. effect: the paired effect; its p is one-sided.
    same_type, different_type: mean J of two passages. same_cluster: of different types about one
        passage. paraphrase: of two instructions of one type about one passage; None without such.
    rewording: paraphrase minus same_cluster, passage by passage: what another type changes beyond
        other words; None without paraphrases.
    """

    clusters: int
    effect: Estimate
    same_type: Estimate
    different_type: Estimate
    same_cluster: Estimate
    paraphrase: Estimate
    rewording: Estimate

    def figures(self) -> dict[str, Estimate]:
        """Figure -> estimate, the paired effect first."""
        return {
            "paired effect": self.effect,
            "same type, two clusters": self.same_type,
            "different types, two clusters": self.different_type,
            "different types, one cluster": self.same_cluster,
            "same type, one cluster": self.paraphrase,
            "same minus different types, one cluster": self.rewording,
            "clusters": Estimate(float(self.clusters)),
        }


def paired_effect(
    values: np.ndarray, nodes: Nodes, categories: int, draws: int, seed: int
) -> Paired | None:
    """The paired figures; None unless two clusters or more hold every category.

    values: [n, n] J; draws: relabellings of the null.
    """
    there = np.zeros((int(nodes.cluster.max()) + 1, categories), np.int64)
    np.add.at(there, (nodes.cluster, nodes.category), 1)
    whole = np.flatnonzero((there == 1).all(1))
    if categories < 2 or len(whole) < 2:
        return None
    node_of = np.full(there.shape, -1)
    node_of[nodes.cluster, nodes.category] = np.arange(len(nodes.cluster))
    means, own = _node_means(values, nodes, node_of[whole].reshape(-1))
    k = len(whole)
    blocks = means.reshape(k, categories, k, categories)
    same = np.einsum("gaha->gh", blocks) / categories
    other = blocks.sum((1, 3)) - same * categories
    different = other / (categories * (categories - 1))
    within = np.diagonal(different)
    alike = own.reshape(k, categories)
    paraphrased = np.nanmean(alike, 1) if not np.isnan(alike).all(1).any() else np.full(k, np.nan)
    return Paired(
        clusters=k,
        effect=_effect(same - different, means, categories, draws, seed),
        same_type=_dyadic(same),
        different_type=_dyadic(different),
        same_cluster=_mean(within),
        paraphrase=_mean(paraphrased),
        rewording=_mean(paraphrased - within),
    )


def _node_means(
    values: np.ndarray, nodes: Nodes, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """([nodes, nodes] mean J between the chosen nodes, [nodes] within each; NaN for one record)."""
    member = nodes.one_hot()[:, chosen].astype(np.float64)
    size = member.sum(0)
    sums = member.T @ values @ member
    itself = np.diagonal(sums) - member.T @ np.diagonal(values)
    pairs = size * (size - 1)
    own = np.divide(itself, pairs, out=np.full(len(size), np.nan), where=pairs > 0)
    return sums / np.outer(size, size), own


def _effect(
    between: np.ndarray, means: np.ndarray, categories: int, draws: int, seed: int
) -> Estimate:
    """between: [k, k] D; means: [k C, k C]; types are exchanged within each cluster."""
    found, k = _dyadic(between), len(between)
    if (k - 1) * math.lgamma(categories + 1) < math.log(ENOUGH) - 1e-9:
        return Estimate(found.value)
    rng, pairs = np.random.default_rng(seed), k * (k - 1)
    cluster = np.repeat(np.arange(k), categories)
    outside = np.where(cluster[:, None] == cluster, 0.0, means)
    total, null = outside.sum(), np.zeros(draws)
    for draw in range(draws):
        types = rng.permuted(np.tile(np.arange(categories), (k, 1)), axis=1).reshape(-1)
        label = (types[:, None] == np.arange(categories)) * 1.0
        same = float((label * (outside @ label)).sum())
        null[draw] = same / categories - (total - same) / (categories * (categories - 1))
    tested = estimate(float(found.value or 0.0), None, null / pairs)
    return Estimate(found.value, found.low, found.high, tested.chance, tested.chance_low,
                    tested.chance_high, tested.p)  # fmt: skip


def _dyadic(between: np.ndarray) -> Estimate:
    """The mean over pairs of clusters; two pairs are related if they share a cluster."""
    k = len(between)
    off = ~np.eye(k, dtype=bool)
    value = float(between[off].mean())
    if k < LEAST_CLUSTERS:
        return Estimate(value)
    pairs = np.where(off, 2 * (between - value), 0.0) / (k * (k - 1))
    return Estimate(value, *t_bounds(value, *dyadic_error(pairs, np.zeros(k, np.int64))))


def _mean(values: np.ndarray) -> Estimate:
    """The mean over clusters with its t interval; nothing if a value is not known."""
    if not np.isfinite(values).all():
        return Estimate(None)
    zeros = np.zeros(len(values), np.int64)
    found = cluster_mean(values[:, None], zeros, np.arange(len(values)), zeros)
    ends = [float(end[0]) if np.isfinite(end[0]) else None for end in found.bounds()]
    return Estimate(float(found.value[0]), *ends)
