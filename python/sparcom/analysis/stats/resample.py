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
    """[draws, n] how much each instruction counts in each resample.

    m - 1 of a group's m units are drawn and count m / (m - 1) each, so that the draws of a mean
    vary as much as the mean does (Rao and Wu 1988), also where m is small. One unit stays.

    groups: [n] codes (groups are categories). units: [n] codes of what is drawn as a whole within
    a group, such as clusters, whose instructions then come and go together.
    """
    weights = np.zeros((draws, len(groups)))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        names, unit = np.unique(units[rows], return_inverse=True)
        m = len(names)
        times = rng.multinomial(max(m - 1, 1), np.full(m, 1 / m), size=draws)
        weights[:, rows] = times[:, unit] * (m / max(m - 1, 1))
    return weights
