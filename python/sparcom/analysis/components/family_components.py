"""Everything that is said of the components of one index: general, unique, enriched, specific."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.components.conditional import ConditionalFrequency
from sparcom.analysis.components.confirmation import Confirmation, confirmations
from sparcom.analysis.components.enrichment import Enrichment, enrichment
from sparcom.analysis.components.generality import (
    Generality,
    RelabelledCounts,
    classify,
    relabelled_counts,
)
from sparcom.analysis.components.lape import Lape
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.sites import family_sites
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.exchange import make_nodes
from sparcom.components import ComponentSpace


@dataclass(frozen=True, kw_only=True)
class FamilyComponents:
    """family: "neurons" or "experts".
    generality: thresholded and graded scores of all components.
    frequency: [C, components] summed c / summed T of each category.
    always_on: [components] bool; always_on_in: what was looked at, in words.
    test: enriched, depleted and specific components; None if the run retains no counts.
    confirmations: what each source discovers, tested in each other one.
    lape: the LAPE rule on summed counts; None if fewer than two categories have counted tokens.
    conditional: conditional frequency of routed neurons; None for experts, and for a model without
        routed neurons.
    relabelled: how many are general and unique under permuted clusters; None if pairs are sampled,
        there are no sets, or too few clusters.
    """

    family: str
    generality: Generality
    frequency: np.ndarray
    always_on: np.ndarray
    always_on_in: str
    test: Enrichment | None
    confirmations: tuple[Confirmation, ...]
    lape: Lape | None
    conditional: ConditionalFrequency | None = None
    relabelled: RelabelledCounts | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the tests of a family act on.

    labels, strata: of all instructions. frequencies: of some of them; None if not retained.
    bits: [n, bytes] the sets of all of them; None if they were not all read.
    """

    labels: Labels
    strata: Strata
    frequencies: Frequencies | None
    bits: np.ndarray | None


def family_components(
    family: str,
    membership: Membership,
    space: ComponentSpace,
    evidence: Evidence,
    lape: Lape | None,
    frequency: np.ndarray,
    always_on: tuple[np.ndarray, str],
    options: AnalysisOptions,
    *,
    conditional: ConditionalFrequency | None = None,
) -> FamilyComponents:
    """Scores and tests of all components of a family; arguments as in `FamilyComponents`."""
    sites = family_sites(space, family)
    widths = np.array([site.width for site in sites])
    count, members = membership.by_category()
    held = np.add.reduceat(members, [site.part.start for site in sites], axis=1, dtype=np.int64)
    fill = held / np.maximum(count, 1)[:, None] / widths
    return FamilyComponents(
        family=family,
        generality=classify(
            membership.categories, count, members, fill, widths, high=options.high, low=options.low
        ),
        frequency=frequency,
        always_on=always_on[0],
        always_on_in=always_on[1],
        test=_test(evidence, options),
        confirmations=_confirmations(evidence, options),
        lape=lape,
        conditional=conditional,
        relabelled=_relabelled(evidence, len(count), options),
    )


def _test(evidence: Evidence, options: AnalysisOptions) -> Enrichment | None:
    labels, found = evidence.labels, evidence.frequencies
    if found is None or len(labels.categories) < 2:
        return None
    return enrichment(
        found.chunks, labels.codes[found.rows], labels.categories, labels.clusters[found.rows],
        evidence.strata.codes[found.rows], alpha=options.alpha, least=options.least_difference,
    )  # fmt: skip


def _confirmations(evidence: Evidence, options: AnalysisOptions) -> tuple[Confirmation, ...]:
    labels, found, strata = evidence.labels, evidence.frequencies, evidence.strata
    if found is None or len(labels.categories) < 2 or len(strata.sources) < 2:
        return ()
    return confirmations(
        found, labels.take(found.rows), strata.take(found.rows), alpha=options.alpha
    )


def _relabelled(
    evidence: Evidence, categories: int, options: AnalysisOptions
) -> RelabelledCounts | None:
    """The numbers of general and unique components under permuted clusters."""
    labels, rng = evidence.labels, np.random.default_rng(options.seed)
    if evidence.bits is None:
        return None
    nodes = make_nodes(labels.codes, labels.clusters, evidence.strata.sources_of, labels.tokens)
    if not nodes.enough:
        return None
    draws = nodes.permuted(options.small_draws, rng)
    return relabelled_counts(
        evidence.bits, nodes, draws, categories, high=options.high, low=options.low
    )
