"""Everything that prevalence says about the components of one index: general, unique, specific."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from sparcom.analysis.components.conditional import ConditionalFrequency
from sparcom.analysis.components.generality import Generality, classify, count_intervals
from sparcom.analysis.components.lape import Lape
from sparcom.analysis.components.specificity import (
    Confirmation,
    SpecificityTest,
    candidates,
    confirm,
    specificity_test,
)
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.sites import family_sites
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.resample import bootstrap_weights
from sparcom.components import ComponentSpace


@dataclass(frozen=True, kw_only=True)
class FamilyComponents:
    """family: "neurons" or "experts".
    generality: thresholded and graded scores of all components.
    test: specificity within strata (length bin x source), what "specific" means here.
    plain: the same test without strata; what it finds beyond `test` may be length or source.
    confirmations: what each source discovers, tested in each other one.
    lape: the LAPE rule on summed counts; None if fewer than two categories have counted tokens.
    conditional: conditional frequency of routed neurons; None for experts, and for a model without
        routed neurons.
    general_interval, unique_intervals: 95 % intervals of the number of general components, and of
        those unique to each category, over instructions (`count_intervals`); None if pairs are
        sampled or there are no sets.
    """

    family: str
    generality: Generality
    test: SpecificityTest
    plain: SpecificityTest
    confirmations: tuple[Confirmation, ...]
    lape: Lape | None
    conditional: ConditionalFrequency | None = None
    general_interval: tuple[float, float] | None = None
    unique_intervals: tuple[tuple[float, float], ...] | None = None


def family_components(
    family: str,
    membership: Membership,
    space: ComponentSpace,
    strata: Strata,
    lape: Lape | None,
    options: AnalysisOptions,
    *,
    conditional: ConditionalFrequency | None = None,
    sets: tuple[np.ndarray, np.ndarray] | None = None,
) -> FamilyComponents:
    """Scores and tests of all components of a family.

    sets: (bits [n, bytes], category codes [n]) of all its instructions, for the intervals of the
    counts; None if they were not read.
    """
    sites = family_sites(space, family)
    widths = np.array([site.width for site in sites])
    count, members = membership.by_category()
    held = np.add.reduceat(members, [site.part.start for site in sites], axis=1, dtype=np.int64)
    fill = held / np.maximum(count, 1)[:, None] / widths
    tested = candidates(membership, options.min_prevalence)
    intervals = (None, None) if sets is None else _count_intervals(*sets, len(count), options)
    return FamilyComponents(
        family=family,
        generality=classify(
            membership.categories, count, members, fill, widths, high=options.high, low=options.low
        ),
        test=specificity_test(membership, alpha=options.alpha, tested=tested),
        plain=specificity_test(membership.pooled(), alpha=options.alpha, tested=tested),
        confirmations=tuple(_confirmations(membership, strata, options)),
        lape=lape,
        conditional=conditional,
        general_interval=intervals[0],
        unique_intervals=intervals[1],
    )


def _count_intervals(
    bits: np.ndarray, codes: np.ndarray, categories: int, options: AnalysisOptions
) -> tuple[tuple[float, float], tuple[tuple[float, float], ...]]:
    rng = np.random.default_rng(options.seed)
    weights = bootstrap_weights(codes, np.arange(len(codes)), options.small_draws, rng)
    return count_intervals(bits, codes, weights, categories, high=options.high, low=options.low)


def _confirmations(
    membership: Membership, strata: Strata, options: AnalysisOptions
) -> list[Confirmation]:
    """Every ordered pair of sources that both hold two categories or more."""
    parts = {}
    for code, name in enumerate(strata.sources):
        part = membership.within(np.flatnonzero(strata.source == code))
        if len(np.unique(part.category)) > 1:
            parts[name] = part
    return [
        confirm(
            parts[first],
            parts[second],
            found_in=first,
            tested_in=second,
            alpha=options.alpha,
            min_prevalence=options.min_prevalence,
        )
        for first, second in permutations(parts, 2)
    ]
