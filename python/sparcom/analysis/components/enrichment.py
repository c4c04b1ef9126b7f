"""Which components fire more, or less, for a category: tests on c / T with clusters as the unit.

*Enriched* (*depleted*): the category fires it more (less) often than the others do, one against
the rest, at a false discovery rate of `alpha` over all components and categories. All components
are tested, in a set or not; nothing that depends on labels chooses them.

*Specific*: enriched, and more often than *every* other category by more than `least_difference`: an
intersection-union test, whose p is the largest over the other categories, at the same rate over
the enriched ones. Two categories that hardly share a length or source cannot be compared so; there
the plain difference must exceed it, and the category is named as not compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparcom.analysis.components.contrast import Contrast, Difference


@dataclass(frozen=True, kw_only=True)
class Enrichment:
    """One test per category and component.

    categories: [C]; alpha: the false discovery rate; least: the difference that specific exceeds.
    effective, freedom: [C] of each category against the rest, see `Contrast`.
    inside_clusters, outside_clusters: [C] clusters that take part.
    determined: [C] bool, clusters enough for p <= 0.05; what is not determined has NaN for p and q.
    difference, error: [C, F] stratified difference of c / T against the rest; NaN if no stratum
        holds both.
    p, q: [C, F], two-sided; q: Benjamini-Hochberg over all that is determined.
    gap: [C, F] the smallest difference from another category. specific_p, specific_q: [C, F]; q
        over the enriched ones, NaN elsewhere.
    comparable: [C, C] bool, the pairs of categories that were compared. testable: [C] bool, more
        than half of the others were; only such a category can have specific components.
    """

    categories: tuple[str, ...]
    alpha: float
    least: float
    effective: np.ndarray
    freedom: np.ndarray
    inside_clusters: np.ndarray
    outside_clusters: np.ndarray
    determined: np.ndarray
    difference: np.ndarray
    error: np.ndarray
    p: np.ndarray
    q: np.ndarray
    gap: np.ndarray
    specific_p: np.ndarray
    specific_q: np.ndarray
    comparable: np.ndarray
    testable: np.ndarray

    @property
    def enriched(self) -> np.ndarray:
        """[C, F] bool."""
        return self._found & (self.difference > 0)

    @property
    def depleted(self) -> np.ndarray:
        """[C, F] bool."""
        return self._found & (self.difference < 0)

    @property
    def specific(self) -> np.ndarray:
        """[C, F] bool."""
        return np.nan_to_num(self.specific_q, nan=1.0) <= self.alpha

    @property
    def tests(self) -> int:
        """How many components were tested against how many categories."""
        return int(self.determined.sum()) * self.p.shape[1]

    def bounds(self, category: np.ndarray, component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of discoveries: intervals for what was selected.

        Of R discoveries among m tests each has level 1 - alpha R / m, so that at most alpha of the
        intervals miss, on average, although they were picked (Benjamini and Yekutieli 2005).
        """
        level = self.alpha * max(int(self._found.sum()), 1) / max(self.tests, 1)
        half = stats.t.isf(level / 2, self.freedom[category]) * self.error[category, component]
        value = self.difference[category, component]
        return np.clip(value - half, -1, 1), np.clip(value + half, -1, 1)

    @property
    def _found(self) -> np.ndarray:
        return np.nan_to_num(self.q, nan=1.0) <= self.alpha


def enrichment(
    frequencies: Callable[[], Iterator[np.ndarray]],
    codes: np.ndarray,
    categories: tuple[str, ...],
    clusters: np.ndarray,
    strata: np.ndarray,
    *,
    alpha: float = 0.05,
    least: float = 0.1,
    specific: bool = True,
) -> Enrichment:
    """Test every component against every category.

    frequencies: yields [n, some components] float32 of c / T, all components in their order.
    codes, clusters, strata: [n]. specific: False leaves the pairs of categories out.
    """
    count, everyone = len(categories), np.ones(len(codes), bool)
    rest = [Contrast(codes, c, everyone, clusters, strata) for c in range(count)]
    pairs = {
        (a, b): Contrast(codes, a, (codes == a) | (codes == b), clusters, strata)
        for a in range(count)
        for b in range(a + 1, count if specific else 0)
    }
    members = (codes == np.arange(count)[:, None]) * 1.0
    means = (members / np.maximum(members.sum(1), 1)[:, None]).astype(np.float32)
    parts = [_tests(x, rest, pairs, means @ x, least) for x in frequencies()]
    difference, error, p, gap, specific_p = (
        np.concatenate(part, 1) for part in zip(*parts, strict=True)
    )
    determined = np.array([contrast.determined for contrast in rest])
    comparable = np.eye(count, dtype=bool)
    for (a, b), contrast in pairs.items():
        comparable[a, b] = comparable[b, a] = contrast.comparable
    p[~determined] = np.nan
    testable = 2 * (comparable.sum(1) - 1) > count - 1
    q = q_values(p)
    enriched = (np.nan_to_num(q, nan=1.0) <= alpha) & (difference > 0)
    specific_q = q_values(np.where(enriched & testable[:, None], specific_p, np.nan))
    return Enrichment(
        categories=categories, alpha=alpha, least=least,
        effective=np.array([contrast.effective for contrast in rest]),
        freedom=np.array([contrast.freedom for contrast in rest]),
        inside_clusters=np.array([contrast.inside_clusters for contrast in rest]),
        outside_clusters=np.array([contrast.outside_clusters for contrast in rest]),
        determined=determined, difference=difference, error=error, p=p, q=q,
        gap=gap, specific_p=specific_p, specific_q=specific_q, comparable=comparable,
        testable=testable,
    )  # fmt: skip


def q_values(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over all that is known; NaN where p is."""
    out, known = np.full(p.shape, np.nan), np.isfinite(p)
    if known.any():
        out[known] = stats.false_discovery_control(p[known])
    return out


def _tests(
    x: np.ndarray,
    rest: list[Contrast],
    pairs: dict[tuple[int, int], Contrast],
    means: np.ndarray,
    least: float,
) -> tuple[np.ndarray, ...]:
    """(difference, error, p, gap, specific p), [C, components] each. means: [C, components]."""
    found = [contrast.differences(x) for contrast in rest]
    p = np.stack([c.p_values(one) for c, one in zip(rest, found, strict=True)])
    gap, specific_p = np.full(p.shape, np.inf), np.zeros(p.shape)
    for (a, b), contrast in pairs.items():
        one = contrast.differences(x) if contrast.comparable else None
        for c, sign in ((a, 1), (b, -1)):
            if one is None:
                other = sign * (means[a] - means[b])
                at_least = np.where(other > least, 0.0, 1.0)
            else:
                other = sign * one.value
                at_least = contrast.p_values(Difference(other, one.error), least)
            gap[c] = np.minimum(gap[c], other)
            specific_p[c] = np.maximum(specific_p[c], at_least)
    gap[~np.isfinite(gap)] = np.nan
    value, error = (np.stack([getattr(one, n) for one in found]) for n in ("value", "error"))
    return value, error, p, gap, specific_p
