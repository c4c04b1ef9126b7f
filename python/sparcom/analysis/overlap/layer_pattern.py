"""Do categories spread their sets over depth alike? The layer histograms' distances, tested.

The distance of two categories is the total variation of their layer shares: the fraction of a
set's mass that would have to move to another site to turn one histogram into the other.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.stats.estimate import Estimate, estimate, estimate_table, known, varying


@dataclass(frozen=True, kw_only=True)
class LayerPattern:
    """categories: [C].
    pairs: an Estimate for each pair of categories a < b, the total variation between their mean
        layer shares; chance as in `between`. No interval, here and there: in simulations it was
        too wide where categories hardly differ.
    between: Estimate, its mean over pairs of categories; the null permutes labels within strata;
        a value above chance says that categories differ in depth.
    excess: Estimate, `between` minus its chance level: sampling noise alone keeps two histograms
        apart, and this is what category adds.
    from_even: Estimate, mean distance of the categories from an even spread over all components:
        the yardstick, how far from structureless the common pattern is; chance: sets of the same
        sizes drawn evenly from all components (to normal order).
    stability: Estimate, 1 - between / from_even: 1 where all categories share one pattern, 0 where
        they differ as much as they differ from an even spread; chance, its ceiling at this sample
        size: permuted labels, as in `between`; p: permuted ones are as unstable. No interval.
    """

    categories: tuple[str, ...]
    pairs: tuple[Estimate, ...]
    between: Estimate
    excess: Estimate
    from_even: Estimate
    stability: Estimate

    def table(self) -> pa.Table:
        """The distances, one row per unordered pair of categories."""
        rows, columns = np.triu_indices(len(self.categories), 1)
        names = pa.array(self.categories, pa.string())
        return estimate_table(
            {"a": names.take(pa.array(rows)), "b": names.take(pa.array(columns))}, self.pairs
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
    each, each_chance = _pair_distances(mean), _pair_distances(null)
    between, chance = _mean_of_known(each), _mean_of_known(each_chance)
    spread, spread_again, spread_null = (
        _mean_of_known(_distance(m, even)) for m in (mean, resampled, null)
    )
    expected = float(chance.mean()) if len(chance) else float("nan")
    from_even = estimate(spread[0], varying(spread_again), recentre=True)
    if from_even.value is not None:
        even_chance = _even_chance(sizes, widths, codes, len(categories))
        from_even = replace(from_even, chance=even_chance)
    return LayerPattern(
        categories=categories,
        pairs=tuple(estimate(each[0, at], None, each_chance[:, at]) for at in range(each.shape[1])),
        between=estimate(between[0], None, chance),
        excess=Estimate(known(between[0] - expected)),
        from_even=from_even,
        stability=estimate(
            _stability(between, spread)[0], None, _stability(chance, spread_null), tail="less"
        ),
    )


def _even_chance(sizes: np.ndarray, widths: np.ndarray, codes: np.ndarray, groups: int) -> float:
    """Expected `from_even` of sets of the same sizes that are drawn evenly from all components.

    The share of a site in one set of size s is hypergeometric over s, with variance
    q (1 - q) (W - s) / (s (W - 1)); a category's mean share is then close to normal, whose mean
    absolute deviation is sqrt(2 / pi) sd.
    """
    total, size = widths.sum(), sizes.sum(1)
    even = widths / total
    each = (total - size) / (size * max(total - 1, 1))
    count = np.bincount(codes, minlength=groups)
    variance = np.bincount(codes, each, groups) / np.maximum(count, 1) ** 2
    spread = np.sqrt(even * (1 - even)).sum() * np.sqrt(2 / np.pi) / 2
    return float((np.sqrt(variance[count > 0]) * spread).mean())


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


def _pair_distances(mean: np.ndarray) -> np.ndarray:
    """[draws, pairs] distance of each pair of categories a < b."""
    rows, columns = np.triu_indices(mean.shape[1], 1)
    return _distance(mean[:, rows], mean[:, columns])


def _mean_of_known(distances: np.ndarray) -> np.ndarray:
    """[draws] mean over columns, without those of a category that has no set; NaN without any."""
    known = distances[:, np.isfinite(distances).all(0)]
    return known.mean(1) if known.shape[1] else np.full(len(distances), np.nan)


def _stability(between: np.ndarray, from_even: np.ndarray) -> np.ndarray:
    out = np.full(len(between), np.nan)
    return 1 - np.divide(between, from_even, out=out, where=from_even > 0)
