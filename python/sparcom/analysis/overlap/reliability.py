"""Split-half reliability: would another sample of clusters tell the same story?

The clusters of each category are halved at random, many times. Prevalences in the two halves are
correlated over all components; this needs no second look at the sets, since with A, B the halves'
averaging weights and X the matrix of intersections, sum_n q_A(n) q_B(n) = A^T X B.
"""

from dataclasses import dataclass, replace

import numpy as np

from sparcom.analysis.stats.estimate import Estimate, estimate
from sparcom.analysis.stats.exchange import Nodes
from sparcom.analysis.stats.pair_sums import permutation_draws


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """categories: [C] those with at least four clusters.
    prevalence: [C] Estimate, correlation of a category's prevalences between its halves, stepped
        up to the full size (Spearman-Brown 2r / (1 + r)); the interval is over splits; chance is
        the correlation with the other categories at the full size, what generality alone gives:
        it is measured, not stepped up, since it is no correlation of two halves of one thing.
    between: [C, C] mean correlation between halves of two categories, divided by the root of
        their reliabilities: how alike two categories are once sampling noise is removed; 1 on the
        diagonal. between_low, between_high: its interval over splits.
    matrix: Estimate, correlation of the category matrices of the two halves (entries a <= b),
        stepped up; chance: the same with labels permuted over all instructions; its value is None
        if there are fewer than three entries.
    """

    categories: tuple[str, ...]
    prevalence: tuple[Estimate, ...]
    between: np.ndarray
    between_low: np.ndarray
    between_high: np.ndarray
    matrix: Estimate


def split_half(
    inter: np.ndarray,
    values: np.ndarray,
    nodes: Nodes,
    categories: tuple[str, ...],
    components: int,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Reliability | None:
    """Split-half reliability of prevalence and of the category matrix.

    inter: [n, n] intersections, sizes on the diagonal; values: [n, n] the pair measure.
    nodes: of the instructions; components: how many there are, held or not.
    None if no category has four clusters.
    """
    codes, clusters = nodes.category[nodes.node], nodes.cluster[nodes.node]
    kept = np.flatnonzero(nodes.clusters_of(len(categories)) >= 4)
    if not len(kept):
        return None
    halves = _halved_codes(codes, clusters, kept, draws, rng)
    r = _correlations(inter.astype(np.float64), halves, 2 * len(kept), components)
    own = np.diagonal(r, axis1=1, axis2=2)
    whole = _whole_correlations(inter.astype(np.float64), codes, kept, components)
    reliability = own.mean(0)
    low, high = (_disattenuated(q, reliability) for q in _quantiles(r))
    inside = halves[0] >= 0
    shuffled = halves.copy()
    shuffled[:, inside] = rng.permuted(halves[:, inside], axis=1)
    groups = 2 * len(kept)
    return Reliability(
        categories=tuple(categories[c] for c in kept),
        prevalence=tuple(_prevalence(own[:, c], whole, c) for c in range(len(kept))),
        between=_disattenuated(r.mean(0), reliability),
        between_low=low,
        between_high=high,
        matrix=_stepped_estimate(
            _matrix_correlations(values, halves, groups),
            _matrix_correlations(values, shuffled, groups),
        ),
    )


def spearman_brown(r: np.ndarray) -> np.ndarray:
    """2r / (1 + |r|): the reliability of the whole from the correlation of its halves.

    Below 0, where halves contradict each other and no reliability is meant, it is the mirror image,
    so that a null around 0 stays there.
    """
    r = np.asarray(r, np.float64)
    return 2 * r / (1 + np.abs(r))


def _halved_codes(
    codes: np.ndarray,
    clusters: np.ndarray,
    kept: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[draws, n] group of each instruction: 2k and 2k + 1 are random halves of the clusters of
    category kept[k]; -1 elsewhere."""
    out = np.full((draws, len(codes)), -1, np.int64)
    for at, code in enumerate(kept):
        rows = np.flatnonzero(codes == code)
        names, of = np.unique(clusters[rows], return_inverse=True)
        half = np.tile(np.arange(len(names)) % 2, (draws, 1))
        out[:, rows] = 2 * at + rng.permuted(half, axis=1)[:, of]
    return out


def _whole_correlations(
    inter: np.ndarray, codes: np.ndarray, kept: np.ndarray, components: int
) -> np.ndarray:
    """[C, C] correlation over components of the categories' prevalences, at the full size."""
    share = (codes[:, None] == kept) / np.bincount(codes, minlength=kept.max() + 1)[kept]
    gram = share.T @ inter @ share / components
    mean = np.diagonal(inter) @ share / components
    covariance = gram - np.outer(mean, mean)
    sd = np.sqrt(np.maximum(np.diagonal(covariance), 0))
    scale = np.outer(sd, sd)
    return np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def _correlations(
    inter: np.ndarray, halves: np.ndarray, groups: int, components: int
) -> np.ndarray:
    """[draws, C, C] correlation over components of first with second halves' prevalences."""
    sums = permutation_draws(inter, halves, groups).sums
    own = np.diagonal(inter)
    out = []
    for product, labels in zip(sums, halves, strict=True):
        inside = labels >= 0
        size = np.bincount(labels[inside], own[inside], groups)
        count = np.bincount(labels[inside], minlength=groups)
        mean = size / count / components
        gram = (product + np.diag(size)) / np.outer(count, count) / components
        covariance = gram - np.outer(mean, mean)
        sd = np.sqrt(np.maximum(np.diagonal(covariance), 0))
        scale = np.outer(sd, sd)
        r = np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
        out.append(r[0::2, 1::2])
    return np.array(out)


def _matrix_correlations(values: np.ndarray, halves: np.ndarray, groups: int) -> np.ndarray:
    """[draws] correlation of the category matrices of first and second halves, entries a <= b."""
    means = permutation_draws(values, halves, groups).means()
    entries = np.triu_indices(groups // 2)
    out = np.full(len(halves), np.nan)
    for draw, matrix in enumerate(means):
        a, b = matrix[0::2, 0::2][entries], matrix[1::2, 1::2][entries]
        if len(a) >= 3 and np.ptp(a) > 1e-12 and np.ptp(b) > 1e-12:
            out[draw] = np.corrcoef(a, b)[0, 1]
    return out


def _prevalence(own: np.ndarray, whole: np.ndarray, c: int) -> Estimate:
    """own: [draws] correlation of the halves of category c; whole: [C, C]."""
    stepped, others = spearman_brown(own), np.delete(whole[c], c)
    chance = float(others.mean()) if len(others) and np.isfinite(others).all() else None
    return replace(estimate(float(stepped.mean()), stepped), chance=chance)


def _stepped_estimate(r: np.ndarray, null: np.ndarray) -> Estimate:
    finite = r[np.isfinite(r)]
    if not len(finite):
        return Estimate(None)
    stepped = spearman_brown(finite)
    whole = estimate(float(np.nanmean(stepped)), stepped, spearman_brown(null))
    return replace(whole, p=None)  # splits of one sample are no independent draws


def _quantiles(r: np.ndarray) -> np.ndarray:
    """[2, C, C] 2.5 and 97.5 % points over draws; both directions of a pair of categories."""
    return np.quantile((r + r.transpose(0, 2, 1)) / 2, [0.025, 0.975], axis=0)


def _disattenuated(r: np.ndarray, own: np.ndarray) -> np.ndarray:
    """r_ab / sqrt(r_aa r_bb), symmetric; own: [C] reliabilities; NaN if one is not positive."""
    scale = np.sqrt(np.maximum(np.outer(own, own), 0))
    mixed = (r + r.T) / 2
    return np.divide(mixed, scale, out=np.full(r.shape, np.nan), where=scale > 0)
