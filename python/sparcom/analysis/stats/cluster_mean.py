"""Means with errors over clusters."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEAST_CLUSTERS = 4
"""No interval is given for a mean of fewer clusters."""


@dataclass(frozen=True)
class ClusterMean:
    """Means of F figures. value: [F]. error, freedom: [F]; NaN where the error is not known."""

    value: np.ndarray
    error: np.ndarray
    freedom: np.ndarray

    def bounds(self, level: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), [F] each, of the 1 - level interval; NaN where the error is not known."""
        half = stats.t.isf(level / 2, self.freedom) * self.error
        return self.value - half, self.value + half


def cluster_mean(
    values: np.ndarray, codes: np.ndarray, clusters: np.ndarray, drawn_from: np.ndarray
) -> ClusterMean:
    """Means over instructions, their errors over clusters.

    With u_g the sum of cluster g's deviations from the means of its categories,

        error^2 = sum over strata of k / (k - 1) * sum_g (u_g - mean u)^2 / n^2,  k its clusters

    Student's t has Satterthwaite's degrees of freedom. The error is NaN for fewer than
    `LEAST_CLUSTERS` clusters, for a stratum of one, and where nothing varies.

    values: [n, F]; codes, clusters: [n] int64; drawn_from: [n] the stratum that a cluster is drawn
    from (its category, or one for all clusters that hold several).
    """
    n, width = values.shape
    missing = np.full(width, np.nan)
    if not n:
        return ClusterMean(missing, missing, missing)
    value = values.mean(0)
    first, of = np.unique(clusters, return_index=True, return_inverse=True)[1:]
    stratum = np.unique(drawn_from[first], return_inverse=True)[1]
    size = np.bincount(stratum)
    if len(first) < LEAST_CLUSTERS or size.min() < 2:
        return ClusterMean(value, missing, missing)
    sums = _sums(values - _means(values, np.unique(codes, return_inverse=True)[1]), of)
    sums -= _means(sums, stratum)
    parts = _sums(np.square(sums), stratum) * (size / (size - 1))[:, None]
    variance = parts.sum(0)
    known = variance > 1e-18 * n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(known, np.sqrt(variance) / n, np.nan)
        satterthwaite = variance**2 / (parts**2 / (size - 1)[:, None]).sum(0)
    return ClusterMean(value, error, np.where(known, satterthwaite, np.nan))


def _sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[groups, F] sums of values [n, F]."""
    out = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(out, groups, values)
    return out


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[n, F] the mean of each row's group."""
    return (_sums(values, groups) / np.bincount(groups)[:, None])[groups]
