"""Everything that pairs of sets say about one family of components.

The intersections are computed once, site by site; category matrices, their nulls and intervals,
the effects per layer, the adjusted effects and the reliability are products with that matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.bitsets import intersections, slice_bits
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.overlap.layers import FamilySite, LayerHistogram, histogram_of_sizes
from sparcom.analysis.overlap.overlap import (
    CategoryMatrix,
    SameDifferent,
    category_matrix,
    chance_jaccard,
    corrected,
    pair_matrix,
    ridits,
    same_different,
)
from sparcom.analysis.stats.confounders import (
    Adjusted,
    SourceOverlap,
    adjusted_effect,
    source_overlaps,
)
from sparcom.analysis.stats.estimate import Estimate, cell_estimates, estimate
from sparcom.analysis.stats.reliability import Reliability, split_half
from sparcom.analysis.stats.resample import (
    bootstrap_draws,
    bootstrap_weights,
    permutation_draws,
    permuted_blocks,
    permuted_codes,
)


@dataclass(frozen=True)
class LayerOverlap:
    """Overlap within one site. matrix: M of its own Jaccard; cells: [C][C] an Estimate of each;
    effect: same minus different."""

    layer: int
    kind: str
    matrix: CategoryMatrix
    cells: tuple[tuple[Estimate, ...], ...]
    effect: Estimate


@dataclass(frozen=True)
class FamilyOverlap:
    """What pairs say about a family. Jaccard throughout, where nothing else is said.

    family: of `layers.families`; instructions: how many non-empty sets it rests on.
    matrix: M[a, b]; cells: [C][C] an Estimate of each: bootstrap interval, permuted-label chance.
    chance: M of J0, random sets with each set's size in every site.
    corrected, overlap_coefficient, containment: M of the chance-corrected Jaccard, of the overlap
        coefficient, and of the share of a's set that lies in b's.
    distributions: same-type against different-type pairs; None where one sort is missing.
    effect: same minus different; the null permutes labels within strata (length bin x source).
    effect_by_origin: the same value with origins resampled as wholes; the null permutes labels
        among the origins of a source.
    superiority: P(a same-type pair overlaps more than a different-type one); null as in `effect`.
    adjusted: the effect with strata held fixed; by_length: with length bins alone held fixed.
    sources: within and across sources.
    by_layer: the same per site. histogram, pattern: where in depth the sets lie.
    reliability: None where no category can be halved.
    """

    family: str
    instructions: int
    matrix: CategoryMatrix
    cells: tuple[tuple[Estimate, ...], ...]
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


@dataclass(frozen=True)
class _Draws:
    """permuted: [permutations, n] labels within strata; weights: [bootstraps, n].

    What is repeated has `small_draws`: few, a slice of the two above; within_length: [few, n]
    labels permuted within length bins; dealt: [few, n] strata in random order; origin_permuted,
    origin_weights: [few, n] labels and weights with origins as wholes.
    """

    permuted: np.ndarray
    weights: np.ndarray
    few: slice
    within_length: np.ndarray
    dealt: np.ndarray
    origin_permuted: np.ndarray
    origin_weights: np.ndarray


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
    draws = _make_draws(labels, strata, options, rng)
    inter = np.zeros((len(codes), len(codes)), np.int64)
    sizes = np.zeros((len(codes), len(sites)), np.int64)
    by_layer = []
    for at, site in enumerate(sites):
        part = intersections(slice_bits(bits, site.part))
        inter += part
        sizes[:, at] = np.diagonal(part)
        by_layer.append(_layer_overlap(site, part, labels, draws))
    widths = np.array([site.width for site in sites])
    values = pair_matrix(inter)
    chance = chance_jaccard(sizes, widths)
    words = [names[code] for code in codes]
    effect, cells = _effects(values, labels, draws)
    adjusted, by_length = _adjusted(values, labels, strata, draws)
    return FamilyOverlap(
        family,
        len(codes),
        category_matrix(values, words, names),
        cells,
        category_matrix(chance, words, names),
        category_matrix(corrected(values, chance), words, names),
        category_matrix(pair_matrix(inter, "overlap"), words, names),
        category_matrix(pair_matrix(inter, "containment"), words, names),
        _distributions(values, words),
        effect,
        _effect_by_origin(values, labels, draws),
        _superiority(values, labels, draws),
        adjusted,
        by_length,
        tuple(_sources(values, labels, strata, draws)),
        tuple(by_layer),
        histogram_of_sizes(sizes, sites, words, family, names),
        layer_pattern(sizes, widths, codes, names, draws.permuted, draws.weights),
        _reliability(inter, values, labels, int(widths.sum()), options, rng),
    )


def _make_draws(
    labels: Labels, strata: Strata, options: AnalysisOptions, rng: np.random.Generator
) -> _Draws:
    codes, few = labels.codes, options.small_draws
    return _Draws(
        permuted_codes(codes, strata.codes, options.permutations, rng),
        bootstrap_weights(codes, np.arange(len(codes)), options.bootstraps, rng),
        slice(few),
        permuted_codes(codes, strata.lengths_of, few, rng),
        rng.permuted(np.tile(strata.codes, (few, 1)), axis=1),
        permuted_blocks(codes, labels.origins, strata.sources_of, few, rng),
        bootstrap_weights(codes, labels.origins, few, rng),
    )


def _effects(
    values: np.ndarray, labels: Labels, draws: _Draws
) -> tuple[Estimate, tuple[tuple[Estimate, ...], ...]]:
    """(effect, estimates of all cells)."""
    count = len(labels.categories)
    point = permutation_draws(values, labels.codes[None], count)
    null = permutation_draws(values, draws.permuted, count)
    again = bootstrap_draws(values, labels.codes, draws.weights, count)
    effect = estimate(float(point.difference()[0]), again.difference(), null.difference())
    return effect, cell_estimates(point.means()[0], again.means(), null.means())


def _effect_by_origin(values: np.ndarray, labels: Labels, draws: _Draws) -> Estimate:
    count = len(labels.categories)
    return estimate(
        float(permutation_draws(values, labels.codes[None], count).difference()[0]),
        bootstrap_draws(values, labels.codes, draws.origin_weights, count).difference(),
        permutation_draws(values, draws.origin_permuted, count).difference(),
    )


def _superiority(values: np.ndarray, labels: Labels, draws: _Draws) -> Estimate:
    """P(same > different) + P(equal) / 2: one half plus the difference of the mean ridits.

    A ridit is a value's mid-rank among all pairs, as a share; ridits stay those of the data in
    every draw, which is exact for the null and of first order for the interval.
    """
    count, ranks = len(labels.categories), ridits(values)
    return estimate(
        0.5 + float(permutation_draws(ranks, labels.codes[None], count).difference()[0]),
        0.5 + bootstrap_draws(ranks, labels.codes, draws.weights[draws.few], count).difference(),
        0.5 + permutation_draws(ranks, draws.permuted[draws.few], count).difference(),
    )


def _adjusted(
    values: np.ndarray, labels: Labels, strata: Strata, draws: _Draws
) -> tuple[Adjusted, Adjusted]:
    """The effect with length and source held fixed, and with length alone."""
    codes, weights = labels.codes, draws.weights[draws.few]
    permuted = draws.permuted[draws.few]
    both = adjusted_effect(values, codes, strata.codes, permuted, weights, draws.dealt)
    if len(strata.sources) < 2:
        return both, both
    dealt = strata.length[draws.dealt]
    return both, adjusted_effect(
        values, codes, strata.lengths_of, draws.within_length, weights, dealt
    )


def _layer_overlap(
    site: FamilySite, inter: np.ndarray, labels: Labels, draws: _Draws
) -> LayerOverlap:
    values = pair_matrix(inter).astype(np.float32)
    count = len(labels.categories)
    point = permutation_draws(values.astype(np.float64), labels.codes[None], count)
    null = permutation_draws(values, draws.permuted[draws.few], count)
    again = bootstrap_draws(values, labels.codes, draws.weights[draws.few], count)
    words = [labels.categories[code] for code in labels.codes]
    return LayerOverlap(
        site.layer,
        site.kind,
        category_matrix(values.astype(np.float64), words, labels.categories),
        cell_estimates(point.means()[0], again.means(), null.means()),
        estimate(float(point.difference()[0]), again.difference(), null.difference()),
    )


def _sources(
    values: np.ndarray, labels: Labels, strata: Strata, draws: _Draws
) -> list[SourceOverlap]:
    if len(strata.sources) < 2:
        return []
    return source_overlaps(
        values, labels.codes, labels.categories, strata.sources_of, strata.sources,
        draws.permuted[draws.few], draws.weights[draws.few],
    )  # fmt: skip


def _distributions(values: np.ndarray, words: list[str]) -> SameDifferent | None:
    sizes = np.unique(words, return_counts=True)[1]
    if len(sizes) < 2 or sizes.max() < 2:
        return None
    return same_different(values, words)


def _reliability(
    inter: np.ndarray,
    values: np.ndarray,
    labels: Labels,
    components: int,
    options: AnalysisOptions,
    rng: np.random.Generator,
) -> Reliability | None:
    if np.bincount(labels.codes).max() < 4:
        return None
    return split_half(
        inter, values, labels.codes, labels.categories, components,
        draws=options.small_draws, rng=rng,
    )  # fmt: skip
