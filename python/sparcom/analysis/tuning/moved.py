"""Which categories tuning moved: beyond the noise floor, and more than the other categories."""

from dataclasses import replace

import numpy as np
from scipy import stats

from sparcom.analysis.components.contrast import Contrast
from sparcom.analysis.components.enrichment import q_values
from sparcom.analysis.stats.estimate import Estimate, known
from sparcom.analysis.stats.multiple import max_statistic
from sparcom.analysis.tuning.pairing import Pairing

ONE_SIDED, TWO_SIDED = 5, 6
"""Clusters whose swaps can reach p = 0.05: 2^-5, and 2 * 2^-6 if both signs are as extreme."""


def beyond_floor(excess: np.ndarray, pairing: Pairing) -> tuple[Estimate, ...]:
    """[C + 1] mean excess of each category and of all, with its one-sided p.

    If tuning moves an instruction as far as rounding does, the two may be swapped. Clusters are
    swapped as wholes, and p of the categories is corrected by the largest of them (max statistic).

    excess: [n] Jaccard of the noise floor minus Jaccard of base and tuned.
    """
    null = pairing.swapped(excess[:, None])[:, :, 0]
    return corrected(pairing.estimates(excess), null, pairing.cluster_counts, ONE_SIDED)


def corrected(
    found: tuple[Estimate, ...], null: np.ndarray, clusters: np.ndarray, least: int
) -> tuple[Estimate, ...]:
    """[C + 1] the estimates with one-sided p, that of the C categories by their max statistic.

    null: [draws, C + 1]; clusters: [C + 1]. With fewer than `least` clusters p is None; it is 1 if
    swaps change nothing.
    """
    value = np.array([np.nan if one.value is None else one.value for one in found])
    value[clusters < least] = np.nan
    p = np.concatenate(
        [
            max_statistic(value[at], null[:, at], two_sided=False)
            for at in (slice(0, -1), slice(-1, None))
        ]
    )
    p[np.isfinite(value) & np.isnan(p)] = 1.0
    return tuple(replace(one, p=known(each)) for one, each in zip(found, p, strict=True))


def against_others(
    change: np.ndarray, pairing: Pairing
) -> tuple[tuple[Estimate, ...], tuple[Estimate, ...]]:
    """([C] how much more each category moved than the others, [C] its effective instructions).

    The stratified difference of `Contrast`: within length bins and sources, with the slope over log
    T within them taken off, and an error over clusters. p is two-sided, Benjamini-Hochberg over the
    categories. Too few clusters to reach p = 0.05: the value alone.

    change: [n] how far each instruction's set moved.
    """
    x = without_length(change, pairing)[:, None].astype(np.float32)
    everyone = np.ones(len(change), bool)
    found, p, effective = [], [], []
    for code in range(len(pairing.categories)):
        side = Contrast(pairing.codes, code, everyone, pairing.clusters, pairing.strata)
        effective.append(Estimate(side.effective))
        one = side.differences(x)
        value, error = float(one.value[0]), float(one.error[0])
        if not side.determined or not np.isfinite(value):
            found.append(Estimate(known(value)))
            p.append(np.nan)
            continue
        half = float(stats.t.isf(0.025, side.freedom)) * error
        found.append(Estimate(value, value - half, value + half))
        p.append(float(side.p_values(one)[0]))
    q = q_values(np.array(p))
    tested = tuple(replace(one, p=known(each)) for one, each in zip(found, q, strict=True))
    return tested, tuple(effective)


def without_length(change: np.ndarray, pairing: Pairing) -> np.ndarray:
    """[n] change - slope * log T, the slope within strata and categories: bins are not points."""
    cells = np.unique(np.stack([pairing.strata, pairing.codes]), axis=1, return_inverse=True)[
        1
    ].reshape(-1)
    size = np.bincount(cells)
    length, within = (
        values - (np.bincount(cells, values) / size)[cells]
        for values in (pairing.log_tokens, change)
    )
    square = float(length @ length)
    slope = float(length @ within) / square if square > 1e-9 else 0.0
    return change - slope * (pairing.log_tokens - pairing.log_tokens.mean())
