"""Relabelled and resampled instructions: the draws behind nulls and intervals."""

import numpy as np


def permuted_codes(
    codes: np.ndarray, strata: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws, n] category codes, permuted within each stratum."""
    out = np.tile(codes, (draws, 1))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        out[:, rows] = rng.permuted(out[:, rows], axis=1)
    return out


def bootstrap_weights(
    groups: np.ndarray, units: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws, n] how often each instruction is drawn.

    groups: [n] codes; each group keeps its number of units (groups are categories). units: [n]
    codes of what is drawn as a whole within a group, such as clusters, whose instructions then
    come and go together.
    """
    weights = np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        names, unit = np.unique(units[rows], return_inverse=True)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        weights[:, rows] = times[:, unit]
    return weights
