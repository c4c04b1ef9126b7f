"""The draws behind every null and interval of a family's pairs."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.resample import bootstrap_weights, permuted_blocks, permuted_codes


@dataclass(frozen=True, kw_only=True)
class PairDraws:
    """Relabellings and resamples of n instructions.

    permuted: [permutations, n] labels permuted within strata; weights: [bootstraps, n].
    The others have `small_draws` rows: few_permuted, few_weights, the first of the two above;
    within_length: labels permuted within length bins; dealt: strata in random order;
    origin_permuted, origin_weights: labels and weights with origins as wholes.
    """

    permuted: np.ndarray
    weights: np.ndarray
    few_permuted: np.ndarray
    few_weights: np.ndarray
    within_length: np.ndarray
    dealt: np.ndarray
    origin_permuted: np.ndarray
    origin_weights: np.ndarray


def make_draws(
    labels: Labels, strata: Strata, options: AnalysisOptions, rng: np.random.Generator
) -> PairDraws:
    """All draws for some instructions; the order in which they are drawn is fixed."""
    codes, few = labels.codes, options.small_draws
    permuted = permuted_codes(codes, strata.codes, options.permutations, rng)
    weights = bootstrap_weights(codes, np.arange(len(codes)), options.bootstraps, rng)
    return PairDraws(
        permuted=permuted,
        weights=weights,
        few_permuted=permuted[:few],
        few_weights=weights[:few],
        within_length=permuted_codes(codes, strata.lengths_of, few, rng),
        dealt=rng.permuted(np.tile(strata.codes, (few, 1)), axis=1),
        origin_permuted=permuted_blocks(codes, labels.clusters, strata.sources_of, few, rng),
        origin_weights=bootstrap_weights(codes, labels.clusters, few, rng),
    )
