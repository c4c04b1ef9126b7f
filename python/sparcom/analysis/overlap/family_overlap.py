"""Everything that pairs of sets say about one family of components.

The intersections are computed once, site by site; category matrices, their nulls and intervals,
the effects per layer, the adjusted effects and the reliability are products with that matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.bitsets import intersections, slice_bits
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.adjusted import Adjusted, adjusted_effect
from sparcom.analysis.overlap.category_effect import (
    LayerOverlap,
    MatrixEstimates,
    category_effect,
    effect_by_origin,
    layer_overlap,
    superiority,
)
from sparcom.analysis.overlap.category_matrix import CategoryMatrix, category_matrix
from sparcom.analysis.overlap.layer_histogram import LayerHistogram, layer_histogram
from sparcom.analysis.overlap.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.overlap.measures import chance_jaccard, corrected, pair_matrix
from sparcom.analysis.overlap.pair_draws import PairDraws, make_draws
from sparcom.analysis.overlap.reliability import Reliability, split_half
from sparcom.analysis.overlap.same_different import SameDifferent, same_different
from sparcom.analysis.overlap.sources import SourceOverlap, source_overlaps
from sparcom.analysis.stats.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class FamilyOverlap:
    """What pairs say about a family. Jaccard throughout, if nothing else is said.

    family: of `sites.families`; instructions: how many non-empty sets it rests on.
    matrix: M[a, b]; estimates: [C][C] an Estimate of each: bootstrap interval, permuted-label
        chance.
    chance: M of J0, random sets with each set's size in every site.
    corrected, overlap_coefficient, containment: M of the chance-corrected Jaccard, of the overlap
        coefficient, and of the share of a's set that lies in b's.
    distributions: same-type against different-type pairs; None if one sort is missing.
    effect: same minus different; the null permutes labels within strata (length bin x source).
    effect_by_origin: the same value with origins resampled as wholes; the null permutes labels
        among the origins of a source.
    superiority: P(a same-type pair overlaps more than a different-type one); null as in `effect`.
    adjusted: the effect with strata held fixed; by_length: with length bins alone held fixed.
    sources: within and across sources.
    by_layer: the same per site. histogram, pattern: where in depth the sets lie.
    reliability: None if no category can be halved.
    """

    family: str
    instructions: int
    matrix: CategoryMatrix
    estimates: MatrixEstimates
    chance: CategoryMatrix
    corrected: CategoryMatrix
    overlap_coefficient: CategoryMatrix
    containment: CategoryMatrix
    distributions: SameDifferent | None
    effect: Estimate
    effect_by_origin: Estimate
    superiority: Estimate
    adjusted: Adjusted
    by_length: Adjusted
    sources: tuple[SourceOverlap, ...]
    by_layer: tuple[LayerOverlap, ...]
    histogram: LayerHistogram
    pattern: LayerPattern
    reliability: Reliability | None


def family_overlap(
    family: str,
    bits: np.ndarray,
    sites: Sequence[FamilySite],
    labels: Labels,
    strata: Strata,
    options: AnalysisOptions,
) -> FamilyOverlap:
    """The pair statistics of a family.

    bits: [n, bytes] packed sets over the family's index, none of them empty.
    labels, strata: of the rows.
    """
    rng = np.random.default_rng(options.seed)
    codes, names = labels.codes, labels.categories
    draws = make_draws(labels, strata, options, rng)
    inter = np.zeros((len(codes), len(codes)), np.int64)
    sizes = np.zeros((len(codes), len(sites)), np.int64)
    by_layer = []
    for at, site in enumerate(sites):
        part = intersections(slice_bits(bits, site.part))
        inter += part
        sizes[:, at] = np.diagonal(part)
        by_layer.append(layer_overlap(site, part, labels, draws))
    widths = np.array([site.width for site in sites])
    values = pair_matrix(inter)
    chance = chance_jaccard(sizes, widths)
    effect, estimates = category_effect(values, labels, draws.permuted, draws.weights)
    adjusted, by_length = _adjusted(values, labels, strata, draws)
    return FamilyOverlap(
        family=family,
        instructions=len(codes),
        matrix=category_matrix(values, codes, names),
        estimates=estimates,
        chance=category_matrix(chance, codes, names),
        corrected=category_matrix(corrected(values, chance), codes, names),
        overlap_coefficient=category_matrix(pair_matrix(inter, "overlap"), codes, names),
        containment=category_matrix(pair_matrix(inter, "containment"), codes, names),
        distributions=same_different(values, codes),
        effect=effect,
        effect_by_origin=effect_by_origin(values, labels, draws),
        superiority=superiority(values, labels, draws),
        adjusted=adjusted,
        by_length=by_length,
        sources=tuple(_sources(values, labels, strata, draws)),
        by_layer=tuple(by_layer),
        histogram=layer_histogram(sizes, sites, codes, names, family),
        pattern=layer_pattern(sizes, widths, codes, names, draws.permuted, draws.weights),
        reliability=split_half(
            inter, values, codes, names, int(widths.sum()), draws=options.small_draws, rng=rng
        ),
    )


def _adjusted(
    values: np.ndarray, labels: Labels, strata: Strata, draws: PairDraws
) -> tuple[Adjusted, Adjusted]:
    """The effect with length and source held fixed, and with length alone."""
    codes, weights = labels.codes, draws.few_weights
    both = adjusted_effect(values, codes, strata.codes, draws.few_permuted, weights, draws.dealt)
    if len(strata.sources) < 2:
        return both, both
    dealt = strata.length[draws.dealt]
    return both, adjusted_effect(
        values, codes, strata.lengths_of, draws.within_length, weights, dealt
    )


def _sources(
    values: np.ndarray, labels: Labels, strata: Strata, draws: PairDraws
) -> list[SourceOverlap]:
    if len(strata.sources) < 2:
        return []
    return source_overlaps(
        values, labels.codes, labels.categories, strata.sources_of, strata.sources,
        draws.few_permuted, draws.few_weights,
    )  # fmt: skip
