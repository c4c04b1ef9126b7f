"""Which components are specific to a category, by exact test and with false discoveries controlled.

A component is *specific* to a category when the category's instructions hold it more often than
the others do, more than chance explains at a false discovery rate of `alpha` over everything that
was tested. Tests compare within strata, so that length and source do not pass for category.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparcom.analysis.data.membership import Membership
from sparcom.analysis.stats.hypergeometric import stratified_tail


@dataclass(frozen=True, kw_only=True)
class SpecificityTest:
    """One test per category and tested component.

    categories: [C]; instructions: [C] int64, how many each has.
    alpha: the false discovery rate that `specific` keeps.
    tested: [F] int64 component indices that passed the filter on total prevalence.
    inside, members: [C, F] instructions of the category that hold it; [F] all that do.
    prevalence, elsewhere: [C, F] share within the category, and among all others.
    p: [C, F] stratified exact p-value, one-sided; q: [C, F] Benjamini-Hochberg over all of them.
    """

    categories: tuple[str, ...]
    instructions: np.ndarray
    alpha: float
    tested: np.ndarray
    inside: np.ndarray
    members: np.ndarray
    prevalence: np.ndarray
    elsewhere: np.ndarray
    p: np.ndarray
    q: np.ndarray

    @property
    def specific(self) -> np.ndarray:
        """[C, F] bool: discovered at `alpha`."""
        return self.q <= self.alpha


def candidates(
    membership: Membership, min_prevalence: float = 0.01, min_members: int = 5
) -> np.ndarray:
    """[F] int64: components held by enough instructions, and missed by enough, to be tested.

    Looks at totals only, never at categories, so that the test stays valid.
    """
    least = max(min_members, math.ceil(min_prevalence * membership.instructions))
    totals = membership.totals()
    return np.flatnonzero((totals >= least) & (totals <= membership.instructions - least))


def specificity_test(
    membership: Membership, *, alpha: float = 0.05, tested: np.ndarray | None = None
) -> SpecificityTest:
    """Test every component against every category, within its strata.

    tested: [F] component indices (default: `candidates(membership)`).
    The p-values of a category that shares no stratum with any other are 1: nothing can be said.
    """
    chosen = candidates(membership) if tested is None else tested
    strata = np.unique(membership.stratum)
    held = np.zeros((len(chosen), len(strata)), np.int64)
    total = np.zeros(len(strata), np.int64)
    shape = (len(membership.categories), len(chosen))
    inside, in_category = np.zeros(shape, np.int64), np.zeros((shape[0], len(strata)), np.int64)
    at = np.searchsorted(strata, membership.stratum)
    np.add.at(total, at, membership.count)
    np.add.at(in_category, (membership.category, at), membership.count)
    for row, members in enumerate(membership.members):
        picked = members[chosen].astype(np.int64)
        held[:, at[row]] += picked
        inside[membership.category[row]] += picked
    p = np.stack(
        [stratified_tail(inside[c], held, in_category[c], total) for c in range(shape[0])]
    ) if len(chosen) else np.ones(shape)  # fmt: skip
    members, count = held.sum(1), in_category.sum(1)
    others = total.sum() - count[:, None]
    return SpecificityTest(
        categories=membership.categories,
        instructions=count,
        alpha=alpha,
        tested=chosen,
        inside=inside,
        members=members,
        prevalence=inside / np.maximum(count[:, None], 1),
        elsewhere=(members - inside) / np.maximum(others, 1),
        p=p,
        q=stats.false_discovery_control(p, axis=None).reshape(shape),
    )


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What one source discovers, tested in another.

    discovered, confirmed: [C] component-category pairs found in the first source, and those of
        them with p <= 0.05 in the second.
    chance: share of p <= 0.05 in the second source among the pairs that were not discovered.
    chances: [C] the same within each category.
    """

    found_in: str
    tested_in: str
    discovered: np.ndarray
    confirmed: np.ndarray
    chance: float
    chances: np.ndarray


def confirm(
    first: Membership,
    second: Membership,
    *,
    found_in: str,
    tested_in: str,
    alpha: float = 0.05,
    min_prevalence: float = 0.01,
) -> Confirmation:
    """Discover among some instructions, confirm among others of the same categories.

    found_in, tested_in: names of the two.
    Both are tested on the components that are candidates in each of them.
    """
    tested = np.intersect1d(candidates(first, min_prevalence), candidates(second, min_prevalence))
    found = specificity_test(first, alpha=alpha, tested=tested).specific
    again = specificity_test(second, alpha=alpha, tested=tested).p <= 0.05
    discovered, confirmed = found.sum(1), (found & again).sum(1)
    others, by_chance = (~found).sum(1), (again & ~found).sum(1)
    return Confirmation(
        found_in=found_in,
        tested_in=tested_in,
        discovered=discovered,
        confirmed=confirmed,
        chance=float(by_chance.sum() / max(others.sum(), 1)),
        chances=by_chance / np.maximum(others, 1),
    )
