"""What the effects of targets and of their random sets bear: numbers in, verdicts out.

A target is one draw among its random sets if it is nothing special. So its rank among them is a
p-value, whatever the effects' distribution. *Cells* are the figures of one target that are tested:
its selectivity for one category, or for each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from scipy import stats

ALPHA = 0.05
FEWEST_FOR_INTERVAL = 39
"""Random sets without which the central 95 % cannot be told from their whole range."""
FEWEST_CLUSTERS = 4
"""Clusters without which an interval over them is not given."""


@dataclass(frozen=True)
class Trial:
    """The tested figures of one target and of its random sets.

    observed: [cells]. draws: [sets, cells], in the order drawn. stopped: True if the drawing
    stopped early, because every cell had enough sets at least as extreme (`enough`).
    """

    observed: np.ndarray
    draws: np.ndarray
    stopped: bool = False


def draw_sets(
    observed: np.ndarray, draw: Callable[[int], np.ndarray], sets: int, *, early: bool = True
) -> Trial:
    """Draw random sets, and stop where the answer is plain (Besag and Clifford 1991).

    observed: [cells]. draw: number of the set, from 0 -> its [cells]. sets: how many at most.
    early: stop once every cell has `enough(sets)` draws at least as extreme: no p can then reach
        `ALPHA`.
    """
    drawn: list[np.ndarray] = []
    exceeded = np.zeros(len(observed), np.int64)
    for number in range(sets):
        drawn.append(np.asarray(draw(number), np.float64))
        exceeded += _at_least(drawn[-1], observed)
        if early and number + 1 < sets and (exceeded >= enough(sets)).all():
            return Trial(observed, np.array(drawn), stopped=True)
    return Trial(observed, np.array(drawn).reshape(len(drawn), len(observed)))


def enough(sets: int) -> int:
    """Draws at least as extreme as the target that leave no p of at most `ALPHA`.

    >>> enough(99)
    5
    """
    return floor(ALPHA * sets + 1e-9) + 1


def corrected_p(trials: Sequence[Trial]) -> list[np.ndarray]:
    """[cells] p-values of each target, corrected over all cells of all targets.

    Over the cells of a target, by the max statistic: cells are standardised over the target and
    its draws, z, and M is the largest z of a draw, so that the draws are the joint null of the
    cells. With n draws,

        p = (1 + #{M >= z}) / (1 + n)        or #{M >= z} / n if its drawing stopped early

    Over the targets, by Holm (1979), whose family is the targets given: a maximum over targets
    would need as many draws of each, and early stops leave fewer. A p is NaN if its target has too
    few draws for any p to reach `ALPHA` (`fewest_sets`).

    >>> one = Trial(np.array([9.0]), np.arange(99.0)[:, None] / 99)
    >>> corrected_p([one])[0].tolist()
    [0.01]
    """
    alone = [_within(trial) for trial in trials]
    out = [np.full(len(p), np.nan) for p in alone]
    least, steps = 0.0, len(trials)
    for number in sorted(range(len(trials)), key=lambda k: alone[k].min()):
        trial = trials[number]
        if trial.stopped or len(trial.draws) >= fewest_sets(len(trials)):
            out[number] = np.maximum(least, np.minimum(1, steps * alone[number]))
        least = max(least, min(1.0, steps * float(alone[number].min())))
        steps -= 1
    return out


def fewest_sets(targets: int) -> int:
    """Random sets of each target without which no p can reach `ALPHA` after correction.

    >>> fewest_sets(1), fewest_sets(6)
    (19, 119)
    """
    return ceil(targets / ALPHA - 1e-9) - 1


def _within(trial: Trial) -> np.ndarray:
    """[cells] p-values of one target, corrected over its cells."""
    z, maxima = _standardised(trial)
    beaten = np.array([_at_least(maxima, one).sum() for one in z])
    extra = 0 if trial.stopped else 1
    out: np.ndarray = (extra + beaten) / (extra + len(maxima))
    return out


def _standardised(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """([cells] z of the target, [sets] largest z of each draw)."""
    everything = np.concatenate([trial.observed[None], trial.draws])
    spread = everything.std(0)
    z = (everything - everything.mean(0)) / np.where(spread > 0, spread, 1)
    return z[0], z[1:].max(1, initial=-np.inf)


def _at_least(draws: np.ndarray, observed: np.ndarray | float) -> np.ndarray:
    """Which draws are at least as large, rounding apart."""
    tolerance = 1e-12 * np.maximum(1.0, np.abs(observed))
    out: np.ndarray = draws >= observed - tolerance
    return out


def prediction_interval(draws: np.ndarray) -> tuple[float | None, float | None]:
    """The interval into which another random set falls in 95 % of cases; (None, None) if unknown.

    draws: [sets] effects. Quantiles at position p (n + 1), which hold for any distribution.

    >>> prediction_interval(np.arange(99.0))
    (1.5, 96.5)
    """
    if len(draws) < FEWEST_FOR_INTERVAL:
        return None, None
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2], method="weibull")
    return float(low), float(high)


def weights_of(codes: np.ndarray, categories: int, category: int | None) -> np.ndarray:
    """[n] weights of instructions whose weighted sum is the figure of a category.

        None      the mean over all categories, each counted alike
        c         selectivity: the mean of c less the mean of the other categories' means

    codes: [n] category of each instruction, in [0, categories); each has an instruction.

    >>> weights_of(np.array([0, 0, 1]), 2, 0).tolist()
    [0.5, 0.5, -1.0]
    """
    size = np.bincount(codes, minlength=categories)
    if category is None:
        share = np.full(categories, 1 / categories)
    else:
        share = np.full(categories, -1 / max(categories - 1, 1))
        share[category] = 1
    out: np.ndarray = (share / size)[codes]
    return out


def cluster_interval(
    effects: np.ndarray, weights: np.ndarray, codes: np.ndarray, clusters: np.ndarray
) -> tuple[float | None, float | None]:
    """95 % interval of a weighted sum of effects over new clusters; (None, None) if they are too
    few, or all alike, as answers are that stay right: these say nothing of others.

    With u_g the sum over cluster g of weight * (effect - mean of its category), the variance is
    the sum of u_g^2, k / (k - 1) for a category of k clusters, and Student's t has the degrees of
    freedom of the category with the largest weights.

    effects, weights: [n]. codes: [n] categories. clusters: [n], which may span categories.
    Sampling of instructions alone: it says nothing of other sets of neurons.
    """
    used = weights != 0
    effects, weights, codes, clusters = (a[used] for a in (effects, weights, codes, clusters))
    parts, degrees = np.zeros(len(effects)), {}
    for code in np.unique(codes):
        of = codes == code
        k = len(np.unique(clusters[of]))
        if k < FEWEST_CLUSTERS:
            return None, None
        centred = effects[of] - effects[of].mean()
        parts[of] = weights[of] * centred * np.sqrt(k / (k - 1))
        degrees[np.abs(weights[of]).sum(), -k] = k - 1
    u = np.bincount(np.unique(clusters, return_inverse=True)[1], parts)
    if not u.any():
        return None, None
    value = float(weights @ effects)
    half = float(stats.t.ppf(1 - ALPHA / 2, degrees[max(degrees)]) * np.sqrt((u**2).sum()))
    return value - half, value + half
