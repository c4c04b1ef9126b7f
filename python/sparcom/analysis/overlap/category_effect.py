"""The category effect: how much more two instructions of one type overlap than two of different.

The raw effect is that of all pairs. Inference is about pairs of two clusters (`pair_design`), and
the primary figure is the *adjusted* effect: with length, source and shared tokens held fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.overlap.pair_design import Effects, PairDesign, dyadic_error, t_bounds
from sparcom.analysis.overlap.pair_draws import PairDraws
from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.stats.exchange import Nodes
from sparcom.analysis.stats.multiple import max_statistic


@dataclass(frozen=True, kw_only=True)
class CategoryEffects:
    """raw: mean of all same-type pairs minus that of all different-type pairs; value alone.
    between: the same among pairs of two clusters. by_length, by_stratum: with length, or length
        and source, held fixed. adjusted: with shared tokens held fixed as well; the primary figure.
    explained: 1 - adjusted / between, the share that length, source and tokens explain; explained
        by length alone. None if the effect between clusters is not positive.
    informative: share of the same-type pairs whose strata have different-type pairs too.
    """

    raw: Estimate
    between: Estimate
    by_length: Estimate
    by_stratum: Estimate
    adjusted: Estimate
    explained: Estimate
    explained_by_length: Estimate
    informative: float


@dataclass(frozen=True, kw_only=True)
class Designs:
    """The designs of a family. small: as `adjusted`, with `small_draws` relabellings."""

    between: PairDesign
    by_length: PairDesign
    by_stratum: PairDesign
    adjusted: PairDesign
    small: PairDesign


def make_designs(
    strata: Strata, tokens: np.ndarray, lexical: np.ndarray, draws: PairDraws
) -> Designs:
    """tokens: [n] T; lexical: [n, n] share of tokens that two instructions have in common."""
    apart = _apart(tokens)
    nodes, codes = draws.nodes, np.unique(strata.codes, return_inverse=True)[1]
    length = np.unique(strata.lengths_of, return_inverse=True)[1]
    return Designs(
        between=PairDesign(nodes, 0 * codes, draws.relabelled),
        by_length=PairDesign(nodes, length, draws.relabelled, [apart]),
        by_stratum=PairDesign(nodes, codes, draws.relabelled, [apart]),
        adjusted=adjusted_design(strata, tokens, lexical, nodes, draws.relabelled),
        small=adjusted_design(strata, tokens, lexical, nodes, draws.few_relabelled),
    )


def adjusted_design(
    strata: Strata, tokens: np.ndarray, lexical: np.ndarray, nodes: Nodes, relabelled: np.ndarray
) -> PairDesign:
    """The design of the primary figure. relabelled: [draws, nodes]; the others as above."""
    codes = np.unique(strata.codes, return_inverse=True)[1]
    return PairDesign(nodes, codes, relabelled, [_apart(tokens), lexical])


def _apart(tokens: np.ndarray) -> np.ndarray:
    """[n, n] float32 |log T_I - log T_K|: what two lengths differ in within their bins."""
    size = np.log(np.maximum(tokens, 1)).astype(np.float32)
    return np.abs(size[:, None] - size)


def category_effects(values: np.ndarray, codes: np.ndarray, designs: Designs) -> CategoryEffects:
    """The effects on a measure of pairs. values: [n, n]; codes: [n]."""
    between, by_length, adjusted = (
        getattr(designs, name).effects(values) for name in ("between", "by_length", "adjusted")
    )
    return CategoryEffects(
        raw=Estimate(raw_effect(values, codes)),
        between=effect_estimate(between, designs.between),
        by_length=effect_estimate(by_length, designs.by_length),
        by_stratum=effect_estimate(designs.by_stratum.effects(values), designs.by_stratum),
        adjusted=effect_estimate(adjusted, designs.adjusted),
        explained=_explained(adjusted, between, designs.adjusted),
        explained_by_length=_explained(by_length, between, designs.by_length),
        informative=designs.adjusted.informative,
    )


def raw_effect(values: np.ndarray, codes: np.ndarray) -> float | None:
    """Mean over same-type pairs minus mean over different-type pairs; None without either."""
    rows, columns = np.triu_indices(len(codes), 1)
    alike, pairs = codes[rows] == codes[columns], values[rows, columns]
    if alike.all() or not alike.any():
        return None
    return float(pairs[alike].mean() - pairs[~alike].mean())


def effect_estimate(found: Effects, design: PairDesign) -> Estimate:
    """An effect with its t interval over clusters, its null and its one-sided p.

    Interval, null and p are None where there are too few clusters to reach p = 0.05.
    """
    if not np.isfinite(found.value):
        return Estimate(None)
    known = np.isfinite(found.studentised)
    if not design.nodes.enough or known.sum() < 2:
        return Estimate(found.value)
    score, null = found.studentised[0], found.studentised[1:][known[1:]]
    effects = found.null[np.isfinite(found.null)]
    low, high = np.quantile(effects, [0.025, 0.975])
    p = (1 + int((null >= score - 1e-9 * max(1.0, abs(score))).sum())) / (1 + len(null))
    return Estimate(
        found.value, *t_bounds(found.value, found.error, found.freedom),
        float(effects.mean()), float(low), float(high), p,
    )  # fmt: skip


def _explained(adjusted: Effects, whole: Effects, design: PairDesign) -> Estimate:
    """1 - adjusted / whole, with the delta method's interval."""
    if not np.isfinite(adjusted.value) or not whole.value > 0:
        return Estimate(None)
    ratio = adjusted.value / whole.value
    if not design.nodes.enough:
        return Estimate(1 - ratio)
    pairs = (adjusted.pairs - ratio * whole.pairs) / whole.value
    bounds = t_bounds(1 - ratio, *dyadic_error(pairs, design.nodes.drawn_from))
    return Estimate(1 - ratio, *bounds)


@dataclass(frozen=True, kw_only=True)
class LayerEffect:
    """The adjusted category effect within one site; its p holds for all sites together."""

    layer: int
    kind: str
    effect: Estimate


def layer_effects(
    sites: Sequence[FamilySite], found: Sequence[Effects], design: PairDesign
) -> tuple[LayerEffect, ...]:
    """The effects of all sites, p corrected by the maximum over them."""
    estimates = [effect_estimate(one, design) for one in found]
    scores = np.array([one.studentised for one in found])
    corrected = max_statistic(scores[:, 0], scores[:, 1:].T, two_sided=False)
    return tuple(
        LayerEffect(layer=site.layer, kind=site.kind, effect=_with_p(item, p))
        for site, item, p in zip(sites, estimates, corrected, strict=True)
    )


def _with_p(item: Estimate, p: float) -> Estimate:
    known = item.p is not None and np.isfinite(p)
    return Estimate(item.value, item.low, item.high, item.chance, item.chance_low,
                    item.chance_high, float(p) if known else None)  # fmt: skip
