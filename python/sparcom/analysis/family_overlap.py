"""Everything that pairs of sets say about one family of components.

The intersections are computed once, site by site; category matrices, their nulls and intervals,
the effects per layer, the adjusted effects and the reliability are products with that matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.bitsets import intersections, slice_bits
from sparcom.analysis.confounders import Adjusted, SourceOverlap, adjusted_effect, source_overlaps
from sparcom.analysis.estimate import Estimate, estimate
from sparcom.analysis.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.layers import FamilySite, LayerHistogram, histogram_of_sizes
from sparcom.analysis.load import Labels
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap import (
    CategoryMatrix,
    SameDifferent,
    category_matrix,
    chance_jaccard,
    corrected,
    pair_matrix,
    same_different,
)
from sparcom.analysis.reliability import Reliability, split_half
from sparcom.analysis.resample import (
    bootstrap_draws,
    bootstrap_weights,
    permutation_draws,
    permuted_codes,
)


@dataclass(frozen=True)
class LayerOverlap:
    """Overlap within one site. matrix: M of its own Jaccard; effect: same minus different."""

    layer: int
    kind: str
    matrix: CategoryMatrix
    effect: Estimate


@dataclass(frozen=True)
class FamilyOverlap:
    """What pairs say about a family. Jaccard throughout, where nothing else is said.

    family: of `layers.families`; instructions: how many non-empty sets it rests on.
    matrix: M[a, b]; cells: [C][C] an Estimate of each: bootstrap interval, permuted-label chance.
    chance: M of J0, random sets with each set's size in every site.
    corrected, overlap_coefficient: M of the chance-corrected Jaccard and of the coefficient.
    distributions: same-type against different-type pairs; None where one sort is missing.
    effect: same minus different; the null permutes labels within strata (length bin x source).
    effect_by_origin: the same value with origins resampled as wholes; no null.
    adjusted: the effect with strata held fixed. sources: within and across sources.
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
    distributions: SameDifferent | None
    effect: Estimate
    effect_by_origin: Estimate
    adjusted: Adjusted
    sources: tuple[SourceOverlap, ...]
    by_layer: tuple[LayerOverlap, ...]
    histogram: LayerHistogram
    pattern: LayerPattern
    reliability: Reliability | None


@dataclass(frozen=True)
class _Draws:
    """permuted: [permutations, n] labels within strata; weights: [bootstraps, n]; by_origin:
    [bootstraps, n]; few: how many of them the repeated figures use."""

    permuted: np.ndarray
    weights: np.ndarray
    by_origin: np.ndarray
    few: int


def family_overlap(
    family: str,
    bits: np.ndarray,
    sites: Sequence[FamilySite],
    labels: Labels,
    options: AnalysisOptions,
) -> FamilyOverlap:
    """The pair statistics of a family.

    bits: [n, bytes] packed sets over the family's index, none of them empty; labels: of the rows.
    """
    rng = np.random.default_rng(options.seed)
    codes, names = labels.codes, labels.categories
    draws = _make_draws(labels, options, rng)
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
    effect, cells, by_origin = _effects(values, labels, draws)
    few = slice(draws.few)
    return FamilyOverlap(
        family,
        len(codes),
        category_matrix(values, words, names),
        cells,
        category_matrix(chance, words, names),
        category_matrix(corrected(values, chance), words, names),
        category_matrix(pair_matrix(inter, "overlap"), words, names),
        _distributions(values, words),
        effect,
        by_origin,
        adjusted_effect(
            values, codes, labels.strata.codes, draws.permuted[few], draws.weights[few]
        ),
        tuple(_sources(values, labels, draws)),
        tuple(by_layer),
        histogram_of_sizes(sizes, sites, words, family, names),
        layer_pattern(sizes, widths, codes, names, draws.permuted, draws.weights),
        _reliability(inter, values, labels, int(widths.sum()), options, rng),
    )


def _make_draws(labels: Labels, options: AnalysisOptions, rng: np.random.Generator) -> _Draws:
    codes = labels.codes
    return _Draws(
        permuted_codes(codes, labels.strata.codes, options.permutations, rng),
        bootstrap_weights(codes, np.arange(len(codes)), options.bootstraps, rng),
        bootstrap_weights(codes, labels.origins, options.bootstraps, rng),
        options.small_draws,
    )


def _effects(
    values: np.ndarray, labels: Labels, draws: _Draws
) -> tuple[Estimate, tuple[tuple[Estimate, ...], ...], Estimate]:
    """(effect, estimates of all cells, effect by origin)."""
    count = len(labels.categories)
    point = permutation_draws(values, labels.codes[None], count)
    null = permutation_draws(values, draws.permuted, count)
    again = bootstrap_draws(values, labels.codes, draws.weights, count)
    origins = bootstrap_draws(values, labels.codes, draws.by_origin[: draws.few], count)
    value = float(point.difference()[0])
    mean, null_mean, again_mean = point.means()[0], null.means(), again.means()
    cells = tuple(
        tuple(
            estimate(mean[a, b], again_mean[:, a, b], null_mean[:, a, b], tail="both")
            for b in range(count)
        )
        for a in range(count)
    )
    effect = estimate(value, again.difference(), null.difference())
    return effect, cells, estimate(value, origins.difference())


def _layer_overlap(
    site: FamilySite, inter: np.ndarray, labels: Labels, draws: _Draws
) -> LayerOverlap:
    values = pair_matrix(inter).astype(np.float32)
    count = len(labels.categories)
    point = permutation_draws(values.astype(np.float64), labels.codes[None], count)
    null = permutation_draws(values, draws.permuted[: draws.few], count)
    again = bootstrap_draws(values, labels.codes, draws.weights[: draws.few], count)
    words = [labels.categories[code] for code in labels.codes]
    return LayerOverlap(
        site.layer,
        site.kind,
        category_matrix(values.astype(np.float64), words, labels.categories),
        estimate(float(point.difference()[0]), again.difference(), null.difference()),
    )


def _sources(values: np.ndarray, labels: Labels, draws: _Draws) -> list[SourceOverlap]:
    if len(labels.strata.sources) < 2:
        return []
    few = slice(draws.few)
    return source_overlaps(
        values, labels.codes, labels.categories, labels.source, labels.strata.sources,
        draws.permuted[few], draws.weights[few],
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
