"""Intervals of any figure over clusters, by leaving each of them out in turn."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparcom.analysis.stats.cluster_mean import LEAST_CLUSTERS

_MOST = 240  # parts in all; more make the error no better known


@dataclass(frozen=True)
class Jackknife:
    """What to leave out: clusters, or where there are many, parts of some clusters each.

    weights: [parts, n] 1, and 0 for the instructions of the part. stratum: [parts] codes: clusters
    are drawn within it, and errors are about its mean.
    """

    weights: np.ndarray
    stratum: np.ndarray

    def bounds(self, value: np.ndarray, again: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`jackknife_bounds` of figures; again: [parts, ...] the figure without each part."""
        return jackknife_bounds(value, again, self.stratum)


def jackknife_bounds(
    value: np.ndarray, again: np.ndarray, stratum: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the 95 % interval of figures; NaN where the error is not known.

        error^2 = sum over strata of (m - 1) / m * sum_g (again_g - mean again)^2,  m its parts

    Student's t has Satterthwaite's degrees of freedom. Not known: where leaving a part out leaves
    nothing, where fewer than `LEAST_CLUSTERS` parts, or fewer than three of a stratum, bear on the
    figure, and where nothing varies.

    value: [...]; again: [parts, ...] the figure without each part; stratum: [parts] its code.
    """
    shape, again = np.shape(value), again.reshape(len(again), -1)
    flat = np.reshape(value, -1).astype(np.float64)
    variance, squares, bearing = (np.zeros(len(flat)) for _ in range(3))
    fewest = np.full(len(flat), np.inf)
    for code in np.unique(stratum):
        left = again[stratum == code].astype(np.float64)
        m = len(left)
        part = (m - 1) / m * np.square(left - left.mean(0)).sum(0)
        variance += part
        squares += part**2 / max(m - 1, 1)
        bears = np.ptp(left, axis=0) > 1e-7
        bearing += m * bears
        fewest = np.where(bears, np.minimum(fewest, m), fewest)
    enough = (bearing >= LEAST_CLUSTERS) & (fewest >= 3)
    known = np.isfinite(variance) & (variance > 0) & enough
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(known, variance**2 / squares, np.nan)
        half = stats.t.isf(0.025, freedom) * np.sqrt(variance)
    return (flat - half).reshape(shape), (flat + half).reshape(shape)


def jackknife(strata: np.ndarray, clusters: np.ndarray, rng: np.random.Generator) -> Jackknife:
    """What to leave out of n instructions.

    strata, clusters: [n] codes; a cluster lies in one stratum. Of more than `_MOST` clusters, those
    of a stratum are dealt out at random to parts, in proportion, at least twenty.
    """
    names, of = np.unique(clusters, return_inverse=True)
    stratum_of = np.zeros(len(names), strata.dtype)
    stratum_of[of] = strata
    part = np.zeros(len(names), np.int64)
    stratum: list[int] = []
    for code in np.unique(stratum_of):
        own = np.flatnonzero(stratum_of == code)
        share = max(20, round(_MOST * len(own) / len(names)))
        count = min(len(own), share)
        part[own] = len(stratum) + rng.permutation(np.arange(len(own)) % count)
        stratum += [int(code)] * count
    kept = part[of] != np.arange(len(stratum))[:, None]
    return Jackknife(kept.astype(np.float64), np.array(stratum))
