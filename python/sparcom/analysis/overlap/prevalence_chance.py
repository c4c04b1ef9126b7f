"""The chance level of sets that keep how often each component is held.

Random sets of the same sizes are a weak yardstick: components that are in nearly every set make
any two sets alike, whatever their types. This null keeps both margins, each set's size and each
component's prevalence, in expectation: component n is in set I with probability

    pi_In = 1 / (1 + exp(-(a_I + b_n))),

the distribution of maximum entropy (the Rasch model), independently of all others. Components held
equally often share b_n, so that the fit costs n^2 at most, whatever the model's size.
"""

import numpy as np
from scipy.special import expit

from sparcom.analysis.data.bitsets import column_counts, set_sizes

_ROUNDS = 100
_TOLERANCE = 1e-4


def prevalence_chance(bits: np.ndarray) -> np.ndarray:
    """J0 [n, n] of such sets: the expected Jaccard, to second order as in `chance_jaccard`.

    bits: [n, bytes] packed sets, none of them empty.
    """
    size = set_sizes(bits).astype(np.float64)
    held = column_counts(bits)
    level, times = np.unique(held[held > 0], return_counts=True)
    share = fit_margins(size, level.astype(np.float64), times.astype(np.float64))
    inter = (share * times) @ share.T
    variance = inter - (share**2 * times) @ (share**2).T  # of pi_I pi_K each
    total = size[:, None] + size
    union = np.maximum(total - inter, 1e-300)
    return np.clip(inter / union + variance * total / union**3, 0.0, 1.0)


def fit_margins(size: np.ndarray, level: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[n, levels] probability that a set holds a component of a level.

    size: [n] of each set; level: [levels] sets that hold a component of the level; times: [levels]
    how many components are of it. Components in all sets have probability 1.
    """
    n = len(size)
    free = level < n
    always = float(times[~free].sum())
    out = np.ones((n, len(level)))
    target, goal, weight = size - always, level[free], times[free]
    if not free.any():
        return out
    b = np.log(goal / (n - goal))
    a = np.zeros(n)
    for _ in range(_ROUNDS):
        for _ in range(2):
            p = expit(a[:, None] + b)
            slope = np.maximum((p * (1 - p)) @ weight, 1e-9)
            a += np.clip((target - p @ weight) / slope, -2, 2)
        p = expit(a[:, None] + b)
        gap = goal - p.sum(0)
        b += np.clip(gap / np.maximum((p * (1 - p)).sum(0), 1e-9), -2, 2)
        if np.abs(gap).max() < _TOLERANCE * n:
            break
    out[:, free] = expit(a[:, None] + b)
    return out
