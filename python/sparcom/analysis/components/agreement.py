"""Whether what fires specifically is what matters: two rankings of the same components, compared.

    specificity  s_c = mean c / T in category c less the largest of the other categories
    attribution  a_c = mean attribution in c (`sparcom.attribution`)

*Rank correlation*: Spearman's, of ranks within each site, so that layers that differ in both make
none; *at equal firing*: the partial one, given how often the component fires in c, since what never
fires in c can neither be specific to it nor matter. *Overlap*: the share of the K most specific
components that are among the K of highest attribution; by chance, what random sets share that have
as many members in every site and class of firing frequency in c.

Noise in either ranking lowers both. *Reliability* says by how much at most: the correlation of a
ranking with itself over halves of the clusters, stepped up by Spearman-Brown.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparcom.analysis.stats.estimate import Estimate, known
from sparcom.analysis.stats.jackknife import jackknife_bounds

CLASSES = 20
"""Classes of firing frequency in each site."""
HALVINGS = 20
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A measure, summed over the instructions of each part of the clusters and category.

    values: [parts, C, m]; counts: [parts, C] instructions.
    """

    values: np.ndarray
    counts: np.ndarray

    def means(self, kept: np.ndarray) -> np.ndarray:
        """[C, m] means over some parts; kept: [parts] 1 or 0. NaN for a category without any."""
        count = kept @ self.counts
        total = np.tensordot(kept, self.values, 1)
        out = np.full(total.shape, np.nan)
        np.divide(total, count[:, None], out=out, where=count[:, None] > 0)
        return out


def specificity(frequency: np.ndarray) -> np.ndarray:
    """[C, m] frequency [C, m] less the largest of the other categories."""
    rows = range(len(frequency))
    return np.stack([frequency[c] - np.delete(frequency, c, 0).max(0) for c in rows])


def site_ranks(values: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """[C, m] ranks within each site, from -1/2 to 1/2, equals sharing theirs.

    sites: [m] codes, those of a site one behind the other.
    """
    edges = [0, *(np.flatnonzero(np.diff(sites)) + 1), len(sites)]
    parts = []
    for start, stop in itertools.pairwise(edges):
        width = stop - start
        ranks = stats.rankdata(values[:, start:stop], axis=1, nan_policy="propagate")
        parts.append((ranks - (width + 1) / 2) / width)
    return np.concatenate(parts, 1)


def correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """[C] correlation of centred rows x, y [C, m]; given: [C, m] what is held fixed (partial)."""
    r = _pearson(x, y)
    if given is None:
        return r
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = _pearson(x, given), _pearson(y, given)
        out: np.ndarray = (r - a * b) / np.sqrt((1 - a**2) * (1 - b**2))
    return out


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        out: np.ndarray = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return out


def correlations(frequency: np.ndarray, attribution: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """[2, C] rank correlation, and that at equal firing, of means [C, m]."""
    fires, matters, often = (
        site_ranks(one, sites) for one in (specificity(frequency), attribution, frequency)
    )
    return np.stack([correlation(fires, matters), correlation(fires, matters, often)])


def correlation_estimates(
    value: np.ndarray, frequency: Sums, attribution: Sums, sites: np.ndarray, stratum: np.ndarray
) -> list[list[Estimate]]:
    """[2][C] the correlations with their intervals, each part of the clusters left out in turn.

    value: [2, C] over all components; frequency, attribution: of some of them, whose sites are
    `sites`. stratum: [parts] codes that the parts are drawn within.
    The interval is about what as many clusters give on average, which noise has lowered too.
    """
    parts = len(stratum)
    again = np.stack([
        correlations(frequency.means(kept), attribution.means(kept), sites)
        for kept in 1.0 - np.eye(parts)
    ])  # fmt: skip
    low, high = jackknife_bounds(value, again, stratum)
    return [
        [
            Estimate(known(value[i, c]), *(known(np.clip(end[i, c], -1, 1)) for end in (low, high)))
            for c in range(value.shape[1])
        ]
        for i in range(len(value))
    ]


def reliabilities(
    frequency: Sums, attribution: Sums, sites: np.ndarray, stratum: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """[2, C] of specificity and of attribution: 2 r / (1 + r), r the mean rank correlation of two
    random halves of the clusters; r itself if it is negative; NaN if a category cannot be halved.
    """
    found = []
    for _ in range(HALVINGS):
        half = np.zeros(len(stratum))
        for code in np.unique(stratum):
            own = rng.permutation(np.flatnonzero(stratum == code))
            half[own[: (len(own) + rng.integers(2)) // 2]] = 1
        pairs = [
            [site_ranks(one(kept), sites) for kept in (half, 1 - half)]
            for one in (lambda kept: specificity(frequency.means(kept)), attribution.means)
        ]
        found.append([correlation(*pair) for pair in pairs])
    r = np.array(found)
    complete = np.isfinite(r).sum(0) >= HALVINGS // 2
    mean = np.where(complete, np.nansum(r, 0) / np.maximum(np.isfinite(r).sum(0), 1), np.nan)
    # Stepped up only where there is something to step up.
    return np.where(mean > 0, 2 * mean / (1 + np.maximum(mean, 0)), mean)


def overlap(
    fires: np.ndarray, matters: np.ndarray, classes: np.ndarray, size: int,
    rng: np.random.Generator,
) -> tuple[int, Estimate]:  # fmt: skip
    """(K, the share of the K highest of `fires` among the K highest of `matters`).

    fires, matters: [n]; only what is above 0 counts, so that K may be below `size`. classes: [n]
    codes within which random sets are drawn. K = 0: nothing is known.
    """
    first, second = (_highest(one, size) for one in (fires, matters))
    kept = min(len(first), len(second))
    if not kept:
        return 0, Estimate(None)
    first, second = first[:kept], second[:kept]
    width = int(classes.max()) + 1
    of, a, b = (
        np.bincount(one, minlength=width) for one in (classes, classes[first], classes[second])
    )
    some = (a > 0) & (b > 0)
    draws = rng.hypergeometric(a[some], (of - a)[some], b[some], size=(DRAWS, int(some.sum())))
    drawn = draws.sum(1) / kept
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = len(np.intersect1d(first, second)) / kept
    mean = float((a * b / np.maximum(of, 1)).sum()) / kept
    return kept, Estimate(value, chance=mean, chance_low=float(low), chance_high=float(high))


def _highest(values: np.ndarray, size: int) -> np.ndarray:
    order = np.argsort(-values, kind="stable")[:size]
    found: np.ndarray = order[values[order] > 0]
    return found


def firing_classes(frequency: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """[n] codes: each site in `CLASSES` classes of as many components, by frequency [n]; what is
    equal shares a class."""
    ranks = site_ranks(frequency[None], sites)[0] + 0.5
    return sites * CLASSES + np.minimum((ranks * CLASSES).astype(np.int64), CLASSES - 1)
