"""The result of an ablation: what each target does to each category, beside its random sets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa

from sparcom.ablation.how import How
from sparcom.ablation.matching import Balance
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.plain_text import PlainControl
from sparcom.ablation.scoring import Effects
from sparcom.ablation.target import CrossTarget
from sparcom.ablation.verdict import (
    ALPHA,
    FEWEST_FOR_INTERVAL,
    Trial,
    cluster_interval,
    corrected_p,
    fewest_sets,
    prediction_interval,
    weights_of,
)
from sparcom.errors import InputError

ALL = "all"
MATTERS, NOT_SHOWN, UNFAIR, UNDETERMINED = (
    "matters", "not shown", "no fair comparison", "undetermined"
)  # fmt: skip
"""What may be said of a tested figure."""


@dataclass(frozen=True)
class Scored:
    """The instructions that were scored, one entry for each.

    categories: names, in order; codes: [n] index into them. clusters: [n] names.
    loss: [n] of the whole model, nats per answer token.
    """

    categories: tuple[str, ...]
    codes: np.ndarray
    clusters: np.ndarray
    loss: np.ndarray

    def cells(self, target: CrossTarget) -> list[int | None]:
        """What is tested of a target: its selectivity for its own category; for a target without
        one, its effect on all (None) and its selectivity for each category."""
        several = len(self.categories) > 1
        if target.category is not None:
            known = several and target.category in self.categories
            return [self.categories.index(target.category)] if known else []
        return [None, *(range(len(self.categories)) if several else ())]

    def figures(self, effects: np.ndarray, cells: Sequence[int | None]) -> np.ndarray:
        """[..., cells] the figures of effects [..., n]."""
        weights = [weights_of(self.codes, len(self.categories), cell) for cell in cells]
        return effects @ np.array(weights).reshape(len(cells), len(self.codes)).T


@dataclass(frozen=True, kw_only=True)
class Dose:
    """What was measured of one target, ablated in one way.

    effects: of the target. draws: [sets, n] of its random sets, in the order drawn. plain: None if
        that control was not made.
    """

    how: How
    effects: Effects
    draws: Effects
    plain: PlainControl | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one target.

    doses: one for each way to ablate, all with the same random sets. stopped: drawing them stopped
        early. balance: None without random sets.
    """

    target: CrossTarget
    doses: tuple[Dose, ...]
    stopped: bool
    balance: Balance | None

    @property
    def sets(self) -> int:
        """Random sets drawn."""
        return len(self.doses[0].draws.loss)

    def trial(self, scored: Scored) -> Trial:
        """Its tested figures: every cell of every dose, for which one random set is one draw."""
        cells = scored.cells(self.target)
        hows = [dose.how for dose in self.doses]
        observed, draws = (
            tested_figures(scored, cells, hows, [getattr(dose, name).loss for dose in self.doses])
            for name in ("effects", "draws")
        )
        return Trial(observed, draws, self.stopped)


def tested_figures(
    scored: Scored, cells: Sequence[int | None], hows: Sequence[How], losses: Sequence[np.ndarray]
) -> np.ndarray:
    """[..., doses * cells] what is ranked, the cells of the first dose first.

    losses: [..., n] effects on the loss, of each dose. A set that is made weaker may raise the
    loss; one that is amplified may raise or lower it, so that the figure without its sign counts.
    """
    parts = []
    for how, loss in zip(hows, losses, strict=True):
        figures = scored.figures(loss, cells)
        parts.append(np.abs(figures) if how.amplifies else figures)
    return np.concatenate(parts, -1)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One target and one category; None where nothing is known. docs/reference/tables.md says what
    each field means."""

    target: str
    family: str
    how: str
    factor: float | None
    engine: str
    found: str
    own: str | None
    size: int
    category: str
    instructions: int
    clusters: int
    loss: float
    effect: float
    effect_low: float | None
    effect_high: float | None
    random: float | None
    random_low: float | None
    random_high: float | None
    selectivity: float | None
    selectivity_low: float | None
    selectivity_high: float | None
    selectivity_random: float | None
    selectivity_random_low: float | None
    selectivity_random_high: float | None
    verdict: str | None
    p: float | None
    random_sets: int
    sets_needed: int
    stopped: bool
    kl: float | None
    kl_random: float | None
    changed: float | None
    changed_random: float | None
    frequency: float | None
    frequency_random: float | None
    frequency_difference: float | None
    contribution: float | None
    contribution_random: float | None
    contribution_difference: float | None
    plain_sets: int
    plain_size: float | None
    plain_rise: float | None
    plain_rise_random: float | None
    plain_effect: float | None
    plain_selectivity: float | None


def schema() -> pa.Schema:
    """The columns of `Ablation.table`, one for each field of a `Finding`."""
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    hints = get_type_hints(Finding)
    return pa.schema(
        [
            pa.field(f.name, next(kind for t, kind in kinds.items() if t in _parts(hints[f.name])))
            for f in fields(Finding)
        ]
    )


def behaviour_schema() -> pa.Schema:
    """The columns of `Ablation.table` for behaviour: metric and score in the place of the loss."""
    columns = []
    for one in schema():
        if one.name == "loss":
            columns += [pa.field("metric", pa.string()), pa.field("score", pa.float64())]
        elif not one.name.startswith(("kl", "plain")):
            columns.append(one)
    return pa.schema(columns)


def _parts(hint: type) -> tuple[type, ...]:
    return getattr(hint, "__args__", (hint,))


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The findings of an ablation.

    targets: what was ablated. findings: one for each target, way to ablate and category, "all"
    last.
    warnings: what limits the figures. metrics: of behaviour, category -> the metric of its answers;
    a finding's loss is then the share of wrong ones. {}: the loss was measured.
    """

    targets: tuple[CrossTarget, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    metrics: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """One row for each finding; written to analysis/ablation.parquet or behaviour.parquet."""
        rows = [asdict(one) for one in self.findings]
        if not self.metrics:
            return pa.Table.from_pylist(rows, schema())
        for row in rows:
            row["metric"] = self.metrics.get(row["category"], "mean of the categories")
            row["score"] = 1 - row["loss"]
        return pa.Table.from_pylist(rows, behaviour_schema())

    def of(self, target: str, category: str, how: str | None = None) -> Finding:
        """The finding of a target, by its name, in a category or in "all".

        how: which of several doses, such as "scale:0.5". Raises InputError unless there is one
        such finding.

        >>> result.of("specific:20:MATH", "MATH").verdict
        """
        found = [
            one
            for one in self.findings
            if (one.target, one.category) == (target, category) and how in (None, one.how)
        ]
        if len(found) != 1:
            have = ", ".join(dict.fromkeys(f"{one.target} ({one.how})" for one in self.findings))
            raise InputError(
                f"ablate: expected one finding of {target!r}, {category!r}, how {how}; got "
                f"{len(found)} (ablated: {have})"
            )
        return found[0]


def summarise(
    scored: Scored,
    measured: Sequence[Measured],
    options: AblationOptions,
    warnings: Sequence[str] = (),
    metrics: Mapping[str, str] | None = None,
) -> Ablation:
    """The findings, and what may be said of each, from effects per instruction.

    metrics: of behaviour (`Ablation`).
    """
    tested = sum(_is_tested(scored, one) for one in measured)
    needed = max(FEWEST_FOR_INTERVAL, fewest_sets(max(tested, 1)))
    findings = [
        _finding(scored, one, dose, cell, options, said.get((number, cell)), needed)
        for one, said in zip(measured, verdicts(scored, measured), strict=True)
        for number, dose in enumerate(one.doses)
        for cell in (*range(len(scored.categories)), None)
    ]
    return Ablation(
        targets=tuple(one.target for one in measured),
        findings=tuple(findings),
        warnings=tuple(warnings),
        metrics=metrics or {},
    )


Verdict = tuple[str, float | None]
Cell = tuple[int, int | None]
"""(number of the dose, category or None for all)"""


def verdicts(scored: Scored, measured: Sequence[Measured]) -> list[dict[Cell, Verdict]]:
    """For each target: tested cell -> (what may be said, corrected p or None).

    The family of the correction is every tested cell of every dose of every target that has a fair
    comparison.
    """
    tested = [number for number, one in enumerate(measured) if _is_tested(scored, one)]
    p_of = dict(
        zip(tested, corrected_p([measured[at].trial(scored) for at in tested]), strict=True)
    )
    out: list[dict[Cell, Verdict]] = []
    for number, one in enumerate(measured):
        cells = [(at, cell) for at in range(len(one.doses)) for cell in scored.cells(one.target)]
        if number in p_of:
            said = [
                _said(float(p), one.doses[at], scored, cell)
                for p, (at, cell) in zip(p_of[number], cells, strict=True)
            ]
        else:
            unfair = one.balance is not None and not one.balance.fair
            said = [(UNFAIR if unfair else UNDETERMINED, None)] * len(cells)
        out.append(dict(zip(cells, said, strict=True)))
    return out


def _is_tested(scored: Scored, one: Measured) -> bool:
    fair = one.balance is not None and one.balance.fair
    return fair and one.sets > 0 and len(scored.cells(one.target)) > 0


def _said(p: float, dose: Dose, scored: Scored, cell: int | None) -> Verdict:
    """A target matters if its p says so, it raises the loss (unless it is amplified), and the page
    can show its random sets' prediction interval."""
    if np.isnan(p):
        return UNDETERMINED, None
    if p <= ALPHA and prediction_interval(dose.draws.loss[:, 0])[0] is None:
        return UNDETERMINED, None
    changed = dose.how.amplifies or dose.effects.loss @ _mean(scored, cell) > 0
    return (MATTERS if p <= ALPHA and changed else NOT_SHOWN), p


def _mean(scored: Scored, cell: int | None) -> np.ndarray:
    """[n] weights of the mean over a category; None: over all, categories counted alike."""
    if cell is None:
        return weights_of(scored.codes, len(scored.categories), None)
    inside = scored.codes == cell
    return inside / inside.sum()


def _finding(
    scored: Scored,
    one: Measured,
    dose: Dose,
    cell: int | None,
    options: AblationOptions,
    verdict: Verdict | None,
    needed: int,
) -> Finding:
    rows = np.arange(len(scored.codes)) if cell is None else np.flatnonzero(scored.codes == cell)
    size = len(scored.categories)
    mean = _mean(scored, cell)
    effect = _figure(scored, dose, mean)
    selective: dict[str, Any] = dict.fromkeys(effect)
    plain_selectivity = None
    if cell is not None and size > 1:
        weights = weights_of(scored.codes, size, cell)
        selective = _figure(scored, dose, weights)
        plain_selectivity = _plain(dose, weights)
    target, plain, balance = one.target, dose.plain, one.balance
    return Finding(
        target=target.name,
        family=target.family,
        how=dose.how.name,
        factor=dose.how.factor,
        engine=options.engine,
        found="as listed" if target.listed else "on the other half",
        own=target.category,
        size=target.size,
        category=ALL if cell is None else scored.categories[cell],
        instructions=len(rows),
        clusters=len(np.unique(scored.clusters[rows])),
        loss=float(mean @ scored.loss),
        **_named("effect", "random", effect),
        **_named("selectivity", "selectivity_random", selective),
        verdict=verdict[0] if verdict else None,
        p=verdict[1] if verdict else None,
        random_sets=one.sets,
        sets_needed=needed,
        stopped=one.stopped,
        kl=_known(mean @ dose.effects.kl),
        kl_random=_known((dose.draws.kl @ mean).mean()) if one.sets else None,
        changed=_known(mean @ dose.effects.changed),
        changed_random=_known((dose.draws.changed @ mean).mean()) if one.sets else None,
        **(asdict(balance) if balance else dict.fromkeys(Balance.__dataclass_fields__)),
        plain_sets=plain.sets if plain else 0,
        plain_size=plain.size if plain else None,
        plain_rise=plain.rise if plain else None,
        plain_rise_random=plain.random_rise if plain else None,
        plain_effect=_plain(dose, mean),
        plain_selectivity=plain_selectivity,
    )


def _figure(scored: Scored, one: Dose, weights: np.ndarray) -> dict[str, Any]:
    """A weighted sum of effects, its interval, and the same of random sets."""
    draws = one.draws.loss @ weights
    low, high = cluster_interval(one.effects.loss, weights, scored.codes, scored.clusters)
    random_low, random_high = prediction_interval(draws)
    return {
        "value": float(weights @ one.effects.loss),
        "low": low,
        "high": high,
        "random": float(draws.mean()) if len(draws) else None,
        "random_low": random_low,
        "random_high": random_high,
    }


def _named(name: str, random: str, figure: dict[str, Any]) -> dict[str, Any]:
    """A figure under the names of its columns."""
    keys = (name, f"{name}_low", f"{name}_high", random, f"{random}_low", f"{random}_high")
    return dict(zip(keys, figure.values(), strict=True))


def _plain(one: Dose, weights: np.ndarray) -> float | None:
    return None if one.plain is None else float((one.plain.effects.loss @ weights).mean())


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
