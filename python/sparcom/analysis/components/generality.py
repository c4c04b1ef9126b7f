"""How general or how unique a component is: prevalence thresholds and graded scores.

q [C, components] is the prevalence: the share of a category's instructions whose set holds the
component (`Membership.prevalence`).
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparcom.analysis.data.bitsets import column_counts
from sparcom.analysis.stats.exchange import Nodes
from sparcom.errors import InputError

_SCORE_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Generality:
    """Thresholded and graded scores of all components.

    categories: [C]; high, low: the bounds.
    general: [components] bool, q >= high in every category.
    unique: [components] int8, the category c with q_c >= high and q <= low in all others; -1: none.
    tau, entropy: [components], see `tau_index` and `prevalence_entropy`; NaN where never held.
    tau_excess, entropy_excess: [components] the same less what a component held as often has on
        average if its instructions are dealt out at random (`expected_scores`).
    general_chance: how many general components random sets of the same sizes per site would have.
    """

    categories: tuple[str, ...]
    high: float
    low: float
    general: np.ndarray
    unique: np.ndarray
    tau: np.ndarray
    entropy: np.ndarray
    tau_excess: np.ndarray
    entropy_excess: np.ndarray
    general_chance: float

    def unique_counts(self) -> np.ndarray:
        """[C] int64: components unique to each category."""
        return np.bincount(self.unique[self.unique >= 0], minlength=len(self.categories))


def tau_index(q: np.ndarray) -> np.ndarray:
    """[components] tau = sum_c (1 - q_c / max q) / (C - 1): 0 used alike by all, 1 by one alone.

    NaN if the component is never held, or there is one category only. Yanai et al. 2005
    (doi:10.1093/bioinformatics/bti042), with prevalence in the place of expression.

    >>> tau_index(np.array([[0.8, 0.5], [0.0, 0.5], [0.0, 0.5]]))
    array([1., 0.])
    """
    top = q.max(0)
    total = len(q) - np.divide(q.sum(0), top, out=np.zeros_like(top), where=top > 0)
    return np.where((top > 0) & (len(q) > 1), total / max(len(q) - 1, 1), np.nan)


def prevalence_entropy(q: np.ndarray) -> np.ndarray:
    """[components] entropy of q_c / sum q over categories, by log C: 1 general, 0 one category.

    NaN if the component is never held, or there is one category only.
    """
    total = q.sum(0)
    out = np.zeros_like(total)
    for row in q:
        share = np.divide(row, total, out=np.zeros_like(row), where=total > 0)
        out -= share * np.log(np.where(share > 0, share, 1.0))
    return np.where((total > 0) & (len(q) > 1), out / np.log(max(len(q), 2)), np.nan)


def classify(
    categories: tuple[str, ...],
    count: np.ndarray,
    members: np.ndarray,
    fill: np.ndarray,
    widths: np.ndarray,
    *,
    high: float = 0.5,
    low: float = 0.1,
) -> Generality:
    """General and unique components with graded scores and chance levels.

    count: [C]; members: [C, components] of `Membership.by_category`.
    fill: [C, sites] mean share of a site that a set of the category holds; widths: [sites].
    Raises InputError unless 0 <= low < high <= 1.
    """
    if not 0 <= low < high <= 1:
        raise InputError(f"general/unique: expected 0 <= low < high <= 1, got {low} and {high}")
    q = members / np.maximum(count, 1)[:, None]
    inhabited = count > 0
    above, below = q >= high, q <= low
    general = above[inhabited].all(0)
    unique = np.full(q.shape[1], -1, np.int8)
    for c in np.flatnonzero(inhabited):
        others = inhabited.copy()
        others[c] = False
        if others.any():
            unique[above[c] & below[others].all(0)] = c
    tau, entropy = tau_index(q[inhabited]), prevalence_entropy(q[inhabited])
    expected = expected_scores(count[inhabited], members.sum(0, dtype=np.int64))
    return Generality(
        categories=categories,
        high=high,
        low=low,
        general=general,
        unique=unique,
        tau=tau,
        entropy=entropy,
        tau_excess=tau - expected[0],
        entropy_excess=entropy - expected[1],
        general_chance=_general_chance(count[inhabited], fill[inhabited], widths, high),
    )


def expected_scores(count: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tau, entropy) [components] expected if m instructions of all are drawn at random.

    A component held once has tau = 1 whatever it does; this is what to compare with. Means of
    `_SCORE_DRAWS` multivariate hypergeometric draws for each m. count: [C]; totals: [components] m.
    """
    rng = np.random.default_rng(0)
    levels, at = np.unique(totals, return_inverse=True)
    means = np.full((2, len(levels)), np.nan)
    for level, m in enumerate(levels):
        drawn = rng.multivariate_hypergeometric(count, m, _SCORE_DRAWS) / np.maximum(count, 1)
        means[:, level] = tau_index(drawn.T).mean(), prevalence_entropy(drawn.T).mean()
    return means[0][at], means[1][at]


@dataclass(frozen=True, kw_only=True)
class RelabelledCounts:
    """How many components are general, and unique to each category, under permuted clusters.

    general: (mean, low, high); unique: [C] the same.
    """

    general: tuple[float, float, float]
    unique: tuple[tuple[float, float, float], ...]


def relabelled_counts(
    bits: np.ndarray,
    nodes: Nodes,
    relabelled: np.ndarray,
    categories: int,
    *,
    high: float = 0.5,
    low: float = 0.1,
) -> RelabelledCounts:
    """The counts under relabelled nodes. bits: [n, bytes]; relabelled: [draws, nodes]."""
    size = np.bincount(nodes.node).astype(np.float32)
    codes = nodes.category[nodes.node]
    least = high * np.bincount(codes, minlength=categories)[np.unique(codes)].min()
    near = np.flatnonzero(column_counts(bits) >= least)
    held = np.zeros((len(size), len(near)), np.float32)
    for node in range(len(size)):
        part = bits[nodes.node == node][:, near // 8] >> (near % 8).astype(np.uint8) & 1
        held[node] = part.sum(0)
    general, unique = [], []
    for labels in relabelled:
        label = (labels == np.arange(categories)[:, None]).astype(np.float32)
        count = label @ size
        inhabited = count > 0
        found = _counts((label @ held / np.maximum(count, 1)[:, None])[inhabited], high, low)
        general.append(found[0])
        every = np.zeros(categories)
        every[inhabited] = found[1]
        unique.append(every)
    return RelabelledCounts(
        general=_spread(np.array(general)), unique=tuple(map(_spread, np.array(unique).T))
    )


def _spread(draws: np.ndarray) -> tuple[float, float, float]:
    """(mean, 2.5 %, 97.5 %)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(draws.mean()), float(low), float(high)


def _counts(q: np.ndarray, high: float, low: float) -> tuple[np.ndarray, np.ndarray]:
    """(general [draws], unique [C, draws]): how many of q [C, draws, components] are."""
    above, below = q >= high - 1e-6, q <= low + 1e-6  # q of draws is in single precision
    others = [np.delete(below, c, 0) for c in range(len(q))]
    unique = [(above[c] & rest.all(0)).sum(-1) * (len(rest) > 0) for c, rest in enumerate(others)]
    return above.all(0).sum(-1), np.stack(unique)


def _general_chance(count: np.ndarray, fill: np.ndarray, widths: np.ndarray, high: float) -> float:
    """Expected general components of random sets: sum_site w prod_c P(Bin(N_c, fill) >= high N_c).

    The sizes of a category's sets vary, so membership is Poisson-binomial; the binomial with the
    mean share has the heavier tail above its mean, so the figure errs on the high side.
    """
    chance = np.ones(fill.shape[1])
    for n, share in zip(count, fill, strict=True):
        chance *= stats.binom.sf(np.ceil(high * n - 1e-9) - 1, n, share)
    return float((chance * widths).sum())
