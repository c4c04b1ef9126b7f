"""The result of an ablation: effects of each target on each category, beside random sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.ablation.measures import Losses
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import Target
from sparcom.analysis.stats.estimate import Estimate, estimate, estimate_table

BOOTSTRAPS = 1000


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Row [target, category]: the target is ablated, the category's loss measured.

    categories: [C], "all" last; count: [C] instructions of each.
    loss: [C] mean loss of the whole model, nats per token of the reference answer.
    effect: [targets][C] loss without the target - loss; chance: that of matched random sets.
    beyond: [targets][C] effect - mean effect of the random sets, its interval over instructions
        and random sets. It matters if the interval is above 0.
    random_sets: draws behind `chance`. how, engine: as asked. warnings: what limits the figures.
    """

    targets: tuple[Target, ...]
    categories: tuple[str, ...]
    count: np.ndarray
    loss: np.ndarray
    effect: tuple[tuple[Estimate, ...], ...]
    beyond: tuple[tuple[Estimate, ...], ...]
    random_sets: int
    how: str
    engine: str
    warnings: tuple[str, ...]

    def table(self) -> pa.Table:
        """One row for each target and category; written to analysis/ablation.parquet."""
        pairs = [(t, c) for t in range(len(self.targets)) for c in range(len(self.categories))]
        beyond = [self.beyond[t][c] for t, c in pairs]
        columns = {
            "target": [self.targets[t].name for t, _ in pairs],
            "family": [self.targets[t].family for t, _ in pairs],
            "size": [len(self.targets[t].index) for t, _ in pairs],
            "how": [self.how] * len(pairs),
            "engine": [self.engine] * len(pairs),
            "random_sets": [self.random_sets] * len(pairs),
            "category": [self.categories[c] for _, c in pairs],
            "instructions": [int(self.count[c]) for _, c in pairs],
            "loss": [float(self.loss[c]) for _, c in pairs],
            "beyond": [b.value for b in beyond],
            "beyond_low": [b.low for b in beyond],
            "beyond_high": [b.high for b in beyond],
        }
        return estimate_table(columns, [self.effect[t][c] for t, c in pairs])


def summarise(
    targets: Sequence[Target],
    labels: Sequence[str],
    losses: Losses,
    options: AblationOptions,
    warnings: Sequence[str] = (),
) -> Ablation:
    """The figures of an ablation from losses per instruction.

    labels: [n] categories.
    Intervals: instructions drawn with replacement within a category (and random sets, for
    `beyond`), paired: one instruction's losses stay together.
    """
    names = tuple(dict.fromkeys(labels))
    of = np.asarray(labels)
    groups = [np.flatnonzero(of == name) for name in names]
    rng = np.random.default_rng(options.seed)
    found = [
        f"category {name} has one instruction: its interval has no width"
        for name, rows in zip(names, groups, strict=True)
        if len(rows) == 1
    ]
    if options.draws < 20:
        found.append(f"{options.draws} random sets bound every p at {1 / (1 + options.draws):.3f}")
    effects, beyonds = [], []
    for one, others in zip(losses.ablated, losses.random, strict=True):
        pairs = [
            _effects(one - losses.whole, others - losses.whole, rows, rng)
            for rows in (*([group] for group in groups), groups)
        ]
        effects.append(tuple(effect for effect, _ in pairs))
        beyonds.append(tuple(beyond for _, beyond in pairs))
    everyone = [*groups, np.arange(len(of))]
    return Ablation(
        targets=tuple(targets),
        categories=(*names, "all"),
        count=np.array([len(group) for group in everyone]),
        loss=np.array([losses.whole[group].mean() for group in everyone]),
        effect=tuple(effects),
        beyond=tuple(beyonds),
        random_sets=options.draws,
        how=options.how,
        engine=options.engine,
        warnings=(*warnings, *found),
    )


def _effects(
    effect: np.ndarray, others: np.ndarray, groups: list[np.ndarray], rng: np.random.Generator
) -> tuple[Estimate, Estimate]:
    """(effect, effect beyond random sets) over some instructions, drawn within each group."""
    rows = np.concatenate(groups)
    drawn = np.concatenate(
        [rng.choice(group, (BOOTSTRAPS, len(group))) for group in groups], axis=1
    )
    null = others[:, rows].mean(1)
    resampled = effect[drawn].mean(1)
    sets = rng.integers(0, len(others), (BOOTSTRAPS, len(others)))
    share = np.stack([np.bincount(s, minlength=len(others)) for s in sets]) / len(others)
    chance = np.stack([other[drawn].mean(1) for other in others], 1)
    beyond = resampled - (chance * share).sum(1)
    value = float(effect[rows].mean())
    return estimate(value, resampled, null), estimate(value - float(null.mean()), beyond)
