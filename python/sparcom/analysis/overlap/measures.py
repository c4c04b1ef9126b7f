"""Measures of a pair of sets, and what random sets of the same sizes have.

Every measure follows from the intersection of a pair and its two sizes, so the intersections are
computed once, and everything else acts on [n, n] matrices.

Instructions with an empty set have no overlap to speak of: their measures are 0 by convention, and
`analyse` leaves them out and says so.
"""

import numpy as np

from sparcom.errors import InputError


def jaccard(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """J = |A & B| / |A | B|, 0 if both sets are empty.

    inter: [n, m] (or any shape that a and b broadcast to) intersections; a, b: sizes.

    >>> jaccard(np.array(2), np.array(3), np.array(4))
    array(0.4)
    """
    return _ratio(inter, a + b - inter)


def overlap_coefficient(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|A & B| / min(|A|, |B|), 0 if a set is empty; shapes as in `jaccard`."""
    return _ratio(inter, np.minimum(a, b))


def containment(inter: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|A & B| / |A|: how much of A lies in B, 0 if A is empty; shapes as in `jaccard`."""
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


MEASURES = {
    "jaccard": jaccard,
    "overlap": overlap_coefficient,
    "containment": containment,
}
"""Name -> measure of a pair from its intersection and two sizes."""


def pair_matrix(inter: np.ndarray, measure: str = "jaccard") -> np.ndarray:
    """[n, n] float64: a measure of every pair.

    inter: [n, n] intersections of every pair; its diagonal holds the sizes.
    Raises InputError for an unknown measure.
    """
    if measure not in MEASURES:
        raise InputError(f"measure: expected {', '.join(MEASURES)}, got {measure!r}")
    inter = np.asarray(inter, np.float64)
    sizes = np.diagonal(inter)
    return MEASURES[measure](inter, sizes[:, None], sizes[None, :])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where bottom is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom != 0)
