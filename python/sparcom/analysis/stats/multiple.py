"""Families of tests: p-values that hold for all of a family together."""

import numpy as np


def max_statistic(value: np.ndarray, null: np.ndarray, *, two_sided: bool) -> np.ndarray:
    """[k] p of each figure of a family, corrected by the largest of the family (Westfall-Young).

    Each figure is measured in its null's standard deviations, from the null's mean, and compared
    with the most extreme figure of each draw: p = (1 + draws whose extreme reaches it) /
    (1 + draws). NaN for a figure that is not known, or whose null does not vary.

    value: [k]; null: [draws, k].

    >>> max_statistic(np.array([3.0, 0.0]), np.array([[-1.0, 1.0], [1.0, -1.0]]), two_sided=True)
    array([0.33333333, 1.        ])
    """
    out = np.full(len(value), np.nan)
    if not len(null):
        return out
    known = np.isfinite(value) & np.isfinite(null).all(0)
    spread = np.where(known, null, 0.0).std(0)
    known &= spread > 1e-12
    if not known.any():
        return out
    centre, scale = null[:, known].mean(0), spread[known]
    score, scores = (value[known] - centre) / scale, (null[:, known] - centre) / scale
    if two_sided:
        score, scores = np.abs(score), np.abs(scores)
    reached = (scores.max(1)[:, None] >= score - 1e-9).sum(0)
    out[known] = (1 + reached) / (1 + len(null))
    return out
