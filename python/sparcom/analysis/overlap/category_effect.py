"""The category effect: mean overlap of same-type pairs minus that of different-type pairs."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.overlap.pair_draws import PairDraws
from sparcom.analysis.overlap.same_different import ridits
from sparcom.analysis.stats.estimate import Estimate, estimate, matrix_estimates
from sparcom.analysis.stats.pair_sums import Draws, bootstrap_draws, permutation_draws

MatrixEstimates = tuple[tuple[Estimate, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LayerOverlap:
    """Overlap within one site.

    effect: same minus different, of the site's own Jaccard; estimates: [C][C] an Estimate of each
    mean between categories.
    """

    layer: int
    kind: str
    effect: Estimate
    estimates: MatrixEstimates


def category_effect(
    values: np.ndarray, labels: Labels, permuted: np.ndarray, weights: np.ndarray
) -> tuple[Estimate, MatrixEstimates]:
    """(the effect, [C][C] estimates of the category matrix).

    values: [n, n] a measure of every pair; permuted, weights: [draws, n].
    """
    point, again, null = _sums(values, labels, permuted, weights)
    effect = estimate(float(point.difference()[0]), again.difference(), null.difference())
    return effect, matrix_estimates(point.means()[0], again.means(), null.means())


def effect_by_origin(values: np.ndarray, labels: Labels, draws: PairDraws) -> Estimate:
    """The effect with origins resampled and relabelled as wholes."""
    point, again, null = _sums(values, labels, draws.origin_permuted, draws.origin_weights)
    return estimate(float(point.difference()[0]), again.difference(), null.difference())


def superiority(values: np.ndarray, labels: Labels, draws: PairDraws) -> Estimate:
    """P(same > different) + P(equal) / 2: one half plus the difference of the mean ridits.

    A ridit is a value's mid-rank among all pairs, as a share; ridits stay those of the data in
    every draw, which is exact for the null and of first order for the interval.
    """
    sums = _sums(ridits(values), labels, draws.few_permuted, draws.few_weights)
    point, again, null = (0.5 + part.difference() for part in sums)
    return estimate(float(point[0]), again, null)


def layer_overlap(
    site: FamilySite, inter: np.ndarray, labels: Labels, draws: PairDraws
) -> LayerOverlap:
    """inter: [n, n] intersections within the site."""
    values = pair_matrix(inter).astype(np.float32)
    count = len(labels.categories)
    point = permutation_draws(values.astype(np.float64), labels.codes[None], count)
    again = bootstrap_draws(values, labels.codes, draws.few_weights, count)
    null = permutation_draws(values, draws.few_permuted, count)
    return LayerOverlap(
        layer=site.layer,
        kind=site.kind,
        effect=estimate(float(point.difference()[0]), again.difference(), null.difference()),
        estimates=matrix_estimates(point.means()[0], again.means(), null.means()),
    )


def _sums(
    values: np.ndarray, labels: Labels, permuted: np.ndarray, weights: np.ndarray
) -> tuple[Draws, Draws, Draws]:
    """Category sums of the data, of the resamples and of the relabellings."""
    count = len(labels.categories)
    return (
        permutation_draws(values, labels.codes[None], count),
        bootstrap_draws(values, labels.codes, weights, count),
        permutation_draws(values, permuted, count),
    )
