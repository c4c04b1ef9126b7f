"""Overlap of sets: measures of a pair, all pairs, categories, same type against different type.

Sets come packed: bits [n, bytes] uint8, little-endian, as `selection.rules.Sets` holds them.
Every measure follows from the intersection of a pair and its two sizes, so the intersections are
computed once, and everything else acts on [n, n] matrices.

Instructions with an empty set have no overlap to speak of: their measures are 0 by convention, and
`analyse` leaves them out and says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.errors import InputError

MEASURES = ("jaccard", "overlap", "containment", "corrected")


def jaccard(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """J = |A & B| / |A | B|, 0 where both sets are empty.

    inter: [n, m] (or any shape that a and b broadcast to) intersections; a, b: sizes.

    >>> jaccard(np.array(2), np.array(3), np.array(4))
    array(0.4)
    """
    return _ratio(inter, a + b - inter)


def overlap_coefficient(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|A & B| / min(|A|, |B|), 0 where a set is empty; shapes as in `jaccard`."""
    return _ratio(inter, np.minimum(a, b))


def containment(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|A & B| / |A|: how much of A lies in B, 0 where A is empty; shapes as in `jaccard`."""
    return _ratio(inter, np.broadcast_to(a, np.broadcast_shapes(np.shape(a), np.shape(b))))


def corrected(value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(J - J0) / (1 - J0): 0 at the chance level, 1 for equal sets; 0 where J0 is 1."""
    return _ratio(value - chance, 1.0 - np.asarray(chance))


def chance_jaccard(
    site_sizes: np.ndarray, widths: np.ndarray, other_sizes: np.ndarray | None = None
) -> np.ndarray:
    """J0 [n, m]: the expected Jaccard of random sets with the same size in every site.

    site_sizes: [n, sites] how many components of each site a set holds; widths: [sites] how many
    there are; other_sizes: [m, sites] of the second sets (default: the same).
    The intersection X is a sum of hypergeometric draws, so its mean and variance are exact; the
    mean of X / (|A| + |B| - X) is then taken to second order, which is exact to 1e-3 of J0 once
    sets hold some tens of components.
    """
    other = site_sizes if other_sizes is None else other_sizes
    mean, variance = chance_intersection(site_sizes, widths, other)
    total = site_sizes.sum(1)[:, None] + other.sum(1)[None, :]
    union = np.maximum(total - mean, 1e-300)
    value = mean / union + variance * total / union**3
    return np.where(total > 0, np.clip(value, 0.0, 1.0), 0.0)


def chance_intersection(
    site_sizes: np.ndarray, widths: np.ndarray, other_sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact (mean, variance) [n, m] of |A & B| for random sets with the given sizes per site.

    Per site of width w: mean ab/w, variance ab(w-a)(w-b) / (w^2 (w-1)); sites are independent.
    """
    a, b = site_sizes.astype(np.float64), other_sizes.astype(np.float64)
    w = np.maximum(widths.astype(np.float64), 1.0)
    spread = w**2 * np.maximum(w - 1.0, 1.0)
    return (a / w) @ b.T, (a * (w - a) / spread) @ (b * (w - b)).T


def pair_matrix(
    inter: np.ndarray, measure: str = "jaccard", chance: np.ndarray | None = None
) -> np.ndarray:
    """[n, n] float64: a measure of every pair.

    inter: [n, n] intersections of every pair; its diagonal holds the sizes.
    chance: [n, n] J0, for measure="corrected".
    Raises InputError for an unknown measure.
    """
    inter = np.asarray(inter, np.float64)
    sizes = np.diagonal(inter)
    rows, columns = sizes[:, None], sizes[None, :]
    if measure == "corrected":
        if chance is None:
            raise InputError("pair_matrix: measure 'corrected' needs chance, from chance_jaccard")
        return corrected(jaccard(inter, rows, columns), chance)
    known: dict[str, Callable] = {
        "jaccard": jaccard,
        "overlap": overlap_coefficient,
        "containment": containment,
    }
    if measure not in known:
        raise InputError(f"measure: expected {', '.join(MEASURES)}, got {measure!r}")
    return known[measure](inter, rows, columns)


@dataclass(frozen=True)
class CategoryMatrix:
    """Mean of a pair measure between categories.

    categories: their names, in the order of rows and columns.
    mean: [C, C] M[a, b] over pairs I in a, K in b, I != K; NaN exactly where `pairs` is 0.
    pairs: [C, C] int64, unordered pairs behind each mean.
    """

    categories: tuple[str, ...]
    mean: np.ndarray
    pairs: np.ndarray


def category_matrix(
    values: np.ndarray, labels: Sequence[str], categories: Sequence[str] | None = None
) -> CategoryMatrix:
    """M[a, b] = mean of values[I, K] over I in a, K in b, I != K.

    values: [n, n] a measure of every pair; its diagonal is not used.
    labels: [n] category of each instruction; categories: their order (default: as they first come).

    >>> category_matrix(np.array([[1.0, 0.4], [0.4, 1.0]]), ["QA", "SUM"]).mean[0, 1]
    np.float64(0.4)
    """
    names, codes = encode(labels, categories)
    sums, weights = group_sums(values, one_hot(codes, len(names)))
    counts = np.rint(weights).astype(np.int64)
    mean = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=counts > 0)
    return CategoryMatrix(names, mean, counts - np.diag(np.diagonal(counts) // 2))


def encode(
    labels: Sequence[str], categories: Sequence[str] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """(categories, codes [n] int64) of labels; raises InputError for a label not in categories."""
    names = tuple(dict.fromkeys(labels)) if categories is None else tuple(categories)
    index = {name: at for at, name in enumerate(names)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise InputError(f"labels: {unknown[0]!r} is none of the categories {', '.join(names)}")
    return names, np.array([index[name] for name in labels], dtype=np.int64)


def one_hot(codes: np.ndarray, groups: int) -> np.ndarray:
    """[n, groups] float64 indicators of codes [n]; a code of -1 belongs to no group."""
    return (codes[:, None] == np.arange(groups)).astype(np.float64)


def group_sums(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums over pairs I != K between groups: (W^T V W, W^T (1 - I) W), each [C, C].

    values: [n, n] with any diagonal; weights: [n, C], zero outside a group.
    """
    own = weights.T @ (np.diagonal(values)[:, None] * weights)
    totals = weights.sum(0)
    return weights.T @ values @ weights - own, np.outer(totals, totals) - weights.T @ weights


@dataclass(frozen=True)
class Distribution:
    """Summary of a sample of pair values.

    count, mean, sd: of the sample; quantiles: its 5, 25, 50, 75 and 95 % points.
    density: [bins] share of the sample in each bin of `SameDifferent.edges`.
    """

    count: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]
    density: np.ndarray


@dataclass(frozen=True)
class SameDifferent:
    """Pairs of one category against pairs of two.

    difference: mean of same minus mean of different.
    superiority: P(same > different) + P(equal) / 2 for one random pair of each; 0.5 is no effect.
    edges: [bins + 1] of both densities.
    """

    same: Distribution
    different: Distribution
    difference: float
    superiority: float
    edges: np.ndarray


def same_different(values: np.ndarray, labels: Sequence[str], bins: int = 60) -> SameDifferent:
    """Distributions of a symmetric measure over same-type and different-type pairs I < K.

    values: [n, n]; labels: [n].
    Raises InputError where there is no pair of one of the two sorts: with one category, or with
    one instruction in each.
    """
    _, codes = encode(labels)
    rows, columns = np.triu_indices(len(codes), 1)
    alike = codes[rows] == codes[columns]
    sample = values[rows, columns]
    same, different = sample[alike], sample[~alike]
    if not len(same) or not len(different):
        raise InputError(
            f"same_different: needs pairs of one category and pairs of two, got {len(same)} and "
            f"{len(different)} among {len(codes)} instructions"
        )
    low, high = float(sample.min()), float(sample.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    return SameDifferent(
        _summary(same, edges),
        _summary(different, edges),
        float(same.mean() - different.mean()),
        _superiority(same, different),
        edges,
    )


def _summary(sample: np.ndarray, edges: np.ndarray) -> Distribution:
    quantiles = np.quantile(sample, [0.05, 0.25, 0.5, 0.75, 0.95])
    density = np.histogram(sample, edges)[0] / len(sample)
    sd = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    return Distribution(len(sample), float(sample.mean()), sd, tuple(quantiles.tolist()), density)


def ridits(values: np.ndarray) -> np.ndarray:
    """[n, n]: each pair's mid-rank among all pairs I < K, as a share; diagonal 0.

    >>> ridits(np.array([[0, 0.1, 0.3], [0.1, 0, 0.1], [0.3, 0.1, 0]]))[0]
    array([0.        , 0.33333333, 0.83333333])
    """
    rows, columns = np.triu_indices(len(values), 1)
    _, place, times = np.unique(values[rows, columns], return_inverse=True, return_counts=True)
    out = np.zeros(values.shape)
    out[rows, columns] = ((np.cumsum(times) - times / 2) / max(len(rows), 1))[place]
    return out + out.T


def _superiority(same: np.ndarray, different: np.ndarray) -> float:
    """Mann-Whitney U / (n m), from sorted positions."""
    ordered = np.sort(different)
    below = np.searchsorted(ordered, same, "left")
    not_above = np.searchsorted(ordered, same, "right")
    return float((below + not_above).mean() / 2 / len(different))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where bottom is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom != 0)
