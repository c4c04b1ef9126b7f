"""Exact tail probabilities: how surprising is it that a category holds so many of the members?

Given N instructions of which N_c are of category c, and a component held by m of them, the number
X held within c is hypergeometric when membership has nothing to do with category. With strata, X
is a sum of independent hypergeometric draws, one per stratum (the exact conditional form of the
Cochran-Mantel-Haenszel test). Its distribution is taken from the product of their characteristic
functions: exact up to `FLOOR`, below which p is reported as `FLOOR`.
"""

from collections.abc import Sequence

import numpy as np

FLOOR = 1e-13
EXACT_LIMIT = 20_000
"""Instructions up to which tails are exact; beyond, the normal form of the same test is used."""

_CHUNK = 2048


def stratified_tail(
    inside: np.ndarray, members: np.ndarray, in_category: Sequence[int], count: Sequence[int]
) -> np.ndarray:
    """[tests] P(X >= x), x the members inside the category, summed over strata.

    inside: [tests] int64, x; members: [tests, strata] int64, held in each stratum.
    in_category, count: [strata] instructions of the category, and of all, in each stratum.
    Where no stratum is informative (each is all or none of the category) the tail is 1.

    >>> stratified_tail(np.array([2]), np.array([[2]]), [2], [4]).round(4)
    array([0.1667])
    """
    ours, total = np.asarray(in_category, np.int64), np.asarray(count, np.int64)
    fixed = members[:, ours == total].sum(1)  # strata of this category alone: no draw
    open_ = (ours > 0) & (ours < total)
    x = np.asarray(inside, np.int64) - fixed
    if not open_.any() or not len(x):
        return np.ones(len(x))
    held, ours, total = members[:, open_], ours[open_], total[open_]
    if total.sum() > EXACT_LIMIT:
        return normal_tail(x, held, ours, total)
    return _exact_tail(x, held, ours, total)


def moments(
    members: np.ndarray, in_category: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) [tests] of X: sums over strata of the hypergeometric ones.

    mean m N_c / N; variance m N_c (N - m)(N - N_c) / (N^2 (N - 1)); shapes as in `stratified_tail`.
    """
    m, ours, n = members.astype(np.float64), np.float64(in_category), np.float64(count)
    spread = ours * (n - ours) / (n**2 * np.maximum(n - 1, 1))
    return m @ (ours / n), (m * (n - m)) @ spread


def normal_tail(
    inside: np.ndarray, members: np.ndarray, in_category: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """[tests] the tail by the one-sided Cochran-Mantel-Haenszel z with continuity correction."""
    mean, variance = moments(members, in_category, count)
    z = np.divide(inside - mean - 0.5, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)
    return np.clip(np.where(variance > 0, upper_normal(z), 1.0), FLOOR, 1.0)


def upper_normal(z: np.ndarray) -> np.ndarray:
    """P(Z >= z), relative error below 2e-7 (Chebyshev fit of erfc, Numerical Recipes 6.2)."""
    x = np.abs(z) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.5 * x)
    fit = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
           1.48851587, -0.82215223, 0.17087277)  # fmt: skip
    tail = 0.5 * t * np.exp(-x * x + np.polynomial.polynomial.polyval(t, fit))
    return np.where(z >= 0, tail, 1.0 - tail)


def hypergeometric_pmf(ours: int, total: int) -> np.ndarray:
    """[total + 1, ours + 1]: row m is the distribution of X given m members."""
    factorial = log_factorials(total)
    m, x = np.arange(total + 1)[:, None], np.arange(ours + 1)[None, :]
    outside = m - x
    possible = (outside >= 0) & (outside <= total - ours)
    outside = np.clip(outside, 0, total - ours)
    log = (
        _log_choose(factorial, ours, x)
        + _log_choose(factorial, total - ours, outside)
        - _log_choose(factorial, total, m)
    )
    return np.where(possible, np.exp(log), 0.0)


def log_factorials(n: int) -> np.ndarray:
    """[n + 1] log(i!)."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _log_choose(factorial: np.ndarray, n: int, k: np.ndarray) -> np.ndarray:
    return factorial[n] - factorial[k] - factorial[n - k]


def _exact_tail(
    x: np.ndarray, held: np.ndarray, ours: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """P(X >= x) by the discrete Fourier transform of length L > max X.

    With phi the product of the strata's characteristic functions at 2 pi k / L,
    P(X >= x) = 1/L sum_k phi_k sum_{j >= x} e^(2 pi i jk / L); half of the k suffice, X being real.
    """
    length = int(ours.sum()) + 1
    half = np.arange(length // 2 + 1)
    angle = 2j * np.pi * half / length
    steps = np.exp(np.arange(length)[:, None] * angle)
    tail = np.cumsum(steps[::-1], 0)[::-1]  # [x, k]: sum over j >= x
    tail *= np.where((half > 0) & (2 * half != length), 2.0, 1.0) / length
    tables = [
        hypergeometric_pmf(int(a), int(n)) @ np.exp(-np.arange(a + 1)[:, None] * angle)
        for a, n in zip(ours, total, strict=True)
    ]
    out = np.empty(len(x))
    at = np.clip(x, 0, length - 1)
    for start in range(0, len(x), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        phi = tail[at[chunk]]
        for stratum, table in enumerate(tables):
            phi *= table[held[chunk, stratum]]
        out[chunk] = phi.real.sum(1)
    return np.where(x <= 0, 1.0, np.clip(out, FLOOR, 1.0))
