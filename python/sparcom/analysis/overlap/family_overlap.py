"""Everything that pairs of sets say about one family of components.

The intersections are computed once, site by site; category matrices, the effects and their nulls,
the effects per layer and the reliability are products with that matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparcom.analysis.data.bitsets import intersections, slice_bits
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.category_effect import (
    CategoryEffects,
    LayerEffect,
    category_effects,
    effect_estimate,
    layer_effects,
    make_designs,
)
from sparcom.analysis.overlap.category_matrix import CategoryMatrix, category_matrix
from sparcom.analysis.overlap.layer_histogram import LayerHistogram, layer_histogram
from sparcom.analysis.overlap.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.overlap.matrix_cells import (
    LayerMatrix,
    MatrixEstimates,
    adjusted_cells,
    layer_matrix,
    raw_cells,
)
from sparcom.analysis.overlap.measures import chance_jaccard, corrected, pair_matrix
from sparcom.analysis.overlap.pair_draws import make_draws
from sparcom.analysis.overlap.paired import Paired, paired_effect
from sparcom.analysis.overlap.prevalence_chance import prevalence_chance
from sparcom.analysis.overlap.reliability import Reliability, split_half
from sparcom.analysis.overlap.same_different import SameDifferent, ridits, same_different
from sparcom.analysis.overlap.sources import SourceOverlap, source_overlaps
from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.stats.exchange import Nodes


@dataclass(frozen=True, kw_only=True)
class FamilyOverlap:
    """What pairs say about a family. Jaccard throughout, if nothing else is said.

    family: of `sites.families`; instructions: how many non-empty sets it rests on.
    nodes: what keeps together; determined: clusters enough to reach p = 0.05.
    matrix: M[a, b] of all pairs; estimates: [C][C] an Estimate of each, intervals over clusters.
    adjusted: [C][C] Estimate, M among pairs of two clusters, with length, source and shared tokens
        held fixed; null relabelled nodes; p corrected over all cells.
    chance: M of J0, random sets with each set's size in every site. chance_prevalence: M of J0 of
        random sets that also keep how often each component is held; corrected: M of the Jaccard
        corrected by the latter.
    overlap_coefficient, containment: M of these measures.
    distributions: same-type against different-type pairs; None if one sort is missing.
    paired: type against content, where every cluster holds every category; None elsewhere.
    effects: the category effect, raw and adjusted. superiority: P(a same-type pair overlaps more
        than a different-type one) among pairs of two clusters.
    sources: within and across sources.
    by_layer: the adjusted effect per site; layer_matrices: M per site. histogram, pattern: where in
        depth the sets lie.
    reliability: None if no category can be halved.
    """

    family: str
    instructions: int
    nodes: Nodes
    determined: bool
    matrix: CategoryMatrix
    estimates: MatrixEstimates
    adjusted: MatrixEstimates
    chance: CategoryMatrix
    chance_prevalence: CategoryMatrix
    corrected: CategoryMatrix
    overlap_coefficient: CategoryMatrix
    containment: CategoryMatrix
    distributions: SameDifferent | None
    paired: Paired | None
    effects: CategoryEffects
    superiority: Estimate
    sources: tuple[SourceOverlap, ...]
    by_layer: tuple[LayerEffect, ...]
    layer_matrices: tuple[LayerMatrix, ...]
    histogram: LayerHistogram
    pattern: LayerPattern
    reliability: Reliability | None


def family_overlap(
    family: str,
    bits: np.ndarray,
    sites: Sequence[FamilySite],
    labels: Labels,
    strata: Strata,
    lexical: np.ndarray,
    options: AnalysisOptions,
) -> FamilyOverlap:
    """The pair statistics of a family.

    bits: [n, bytes] packed sets over the family's index, none of them empty.
    labels, strata: of the rows; lexical: [n, n] share of tokens that two of them have in common.
    """
    rng = np.random.default_rng(options.seed)
    codes, names = labels.codes, labels.categories
    draws = make_draws(labels, strata, options, rng)
    designs = make_designs(strata, labels.tokens, lexical, draws)
    inter = np.zeros((len(codes), len(codes)), np.int64)
    sizes = np.zeros((len(codes), len(sites)), np.int64)
    layers, matrices = [], []
    for at, site in enumerate(sites):
        part = intersections(slice_bits(bits, site.part))
        inter += part
        sizes[:, at] = np.diagonal(part)
        of_site = pair_matrix(part)
        layers.append(designs.small.effects(of_site))
        matrices.append(layer_matrix(site, of_site, codes, names, draws.left_out))
    widths = np.array([site.width for site in sites])
    values = pair_matrix(inter)
    chance, prevalent = chance_jaccard(sizes, widths), prevalence_chance(bits)
    between = designs.between.effects(ridits(values))
    return FamilyOverlap(
        family=family,
        instructions=len(codes),
        nodes=draws.nodes,
        determined=draws.nodes.enough,
        matrix=category_matrix(values, codes, names),
        estimates=raw_cells(values, codes, names, draws.left_out),
        adjusted=adjusted_cells(values, designs.adjusted, len(names)),
        chance=category_matrix(chance, codes, names),
        chance_prevalence=category_matrix(prevalent, codes, names),
        corrected=category_matrix(corrected(values, prevalent), codes, names),
        overlap_coefficient=category_matrix(pair_matrix(inter, "overlap"), codes, names),
        containment=category_matrix(pair_matrix(inter, "containment"), codes, names),
        distributions=same_different(values, codes),
        paired=paired_effect(
            values, draws.nodes, len(names), options.permutations, options.seed
        ),
        effects=category_effects(values, codes, designs),
        superiority=_plus(effect_estimate(between, designs.between), 0.5),
        sources=tuple(source_overlaps(values, labels, strata, lexical, draws, rng)),
        by_layer=layer_effects(sites, layers, designs.small),
        layer_matrices=tuple(matrices),
        histogram=layer_histogram(sizes, sites, labels, family),
        pattern=layer_pattern(sizes, widths, codes, names, draws.permuted, draws.weights),
        reliability=split_half(
            inter, values, draws.nodes, names, int(widths.sum()), draws=options.small_draws,
            rng=rng,
        ),
    )  # fmt: skip


def _plus(item: Estimate, constant: float) -> Estimate:
    """The estimate of the figure plus a constant."""
    names = ("value", "low", "high", "chance", "chance_low", "chance_high")
    known = {name: x for name in names if (x := getattr(item, name)) is not None}
    return replace(item, **{name: x + constant for name, x in known.items()})
