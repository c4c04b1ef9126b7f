"""Do categories spread their sets over depth alike? The layer histograms' distances, tested.

The distance of two categories is the total variation of their layer shares: the fraction of a
set's mass that would have to move to another site to turn one histogram into the other.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.estimate import Estimate, estimate


@dataclass(frozen=True)
class LayerPattern:
    """categories: [C].
    distance: [C, C] total variation between the categories' mean layer shares.
    between: Estimate, its mean over pairs of categories; the null permutes labels within strata;
        a value above chance says that categories differ in depth.
    excess: Estimate, `between` minus its chance level: sampling noise alone keeps two histograms
        apart, and this is what category adds.
    from_even: Estimate, mean distance of the categories from an even spread over all components:
        the yardstick, how far from structureless the common pattern is.
    stability: Estimate, 1 - between / from_even: 1 where all categories share one pattern, 0 where
        they differ as much as they differ from an even spread.
    """

    categories: tuple[str, ...]
    distance: np.ndarray
    between: Estimate
    excess: Estimate
    from_even: Estimate
    stability: Estimate

    def table(self) -> pa.Table:
        """The distances, one row per unordered pair of categories."""
        rows, columns = np.triu_indices(len(self.categories), 1)
        return pa.table(
            {
                "a": pa.array([self.categories[i] for i in rows], pa.string()),
                "b": pa.array([self.categories[i] for i in columns], pa.string()),
                "distance": pa.array(self.distance[rows, columns], pa.float64(), from_pandas=True),
            }
        )


def layer_pattern(
    sizes: np.ndarray,
    widths: np.ndarray,
    codes: np.ndarray,
    categories: tuple[str, ...],
    permuted: np.ndarray,
    weights: np.ndarray,
) -> LayerPattern:
    """Distances between categories' layer histograms, with null and interval.

    sizes: [n, sites] components of each site in each set, none of them empty; widths: [sites].
    codes: [n]; permuted: [draws, n] relabellings; weights: [draws, n] bootstrap weights.
    """
    share = sizes / sizes.sum(1, keepdims=True)
    even = widths / widths.sum()
    ones = np.ones((1, len(codes)))
    mean = _means(share, codes[None], ones, len(categories))
    resampled = _means(share, codes[None], weights, len(categories))
    null = _means(share, permuted, ones, len(categories))
    between, again, chance = (_mean_distance(m) for m in (mean, resampled, null))
    spread, spread_again = (_distance(m, even).mean(1) for m in (mean, resampled))
    expected = float(chance.mean()) if len(chance) else float("nan")
    return LayerPattern(
        categories,
        _distance(mean[0][:, None, :], mean[0][None, :, :]),
        estimate(between[0], again, chance, recentre=True),
        estimate(between[0] - expected, again - expected, recentre=True),
        estimate(spread[0], spread_again, recentre=True),
        estimate(_stability(between, spread)[0], _stability(again, spread_again), recentre=True),
    )


def _means(share: np.ndarray, codes: np.ndarray, weights: np.ndarray, groups: int) -> np.ndarray:
    """[draws, C, sites] weighted mean shares; codes and weights broadcast to [draws, n]."""
    out = []
    for c in range(groups):
        weight = weights * (codes == c)
        total = weight.sum(1, keepdims=True)
        sums = weight @ share
        out.append(np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0))
    return np.stack(out, 1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Total variation over the last axis: half the sum of absolute differences."""
    return np.abs(a - b).sum(-1) / 2


def _mean_distance(mean: np.ndarray) -> np.ndarray:
    """[draws] mean distance over pairs of categories; NaN with one category."""
    rows, columns = np.triu_indices(mean.shape[1], 1)
    if not len(rows):
        return np.full(len(mean), np.nan)
    return _distance(mean[:, rows], mean[:, columns]).mean(1)


def _stability(between: np.ndarray, from_even: np.ndarray) -> np.ndarray:
    out = np.full(len(between), np.nan)
    return 1 - np.divide(between, from_even, out=out, where=from_even > 0)
