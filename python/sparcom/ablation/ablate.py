"""`ablate`: what the model loses, category by category, when a set of components is ablated."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.ablation.ablator import Ablator, check_how
from sparcom.ablation.target import Target, matched_random, targets, usage
from sparcom.analysis.stats.estimate import Estimate, estimate, estimate_table
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import FIELDS, Instruction, to_instruction
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.models import weights_fingerprint
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker
from sparcom.store import Run

BOOTSTRAPS = 1000


@dataclass(frozen=True)
class AblationOptions:
    """sets: words of `target.targets`. family: "neurons" | "experts". how: one of `ablator.HOW`.
    draws: matched random sets for each set. limit: instructions of each category; None: all.
    high, low: bounds of general and unique.
    engine: a key of `ablator.HOW`, whichever engine counted. threads: of it (of each of its
        workers); None: all cores.
    """

    sets: tuple[str, ...] = ("general",)
    family: str = "neurons"
    how: str = "zero"
    draws: int = 5
    limit: int | None = None
    high: float = 0.5
    low: float = 0.1
    seed: int = 0
    engine: str = "transformers"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.sets:
            raise InputError("ablate: sets: expected one or more, got none")
        if self.family not in ("neurons", "experts"):
            raise InputError(f"ablate: family: expected neurons or experts, got {self.family!r}")
        check_how(self.engine, self.how)
        if self.how == "route" and self.family != "experts":
            raise InputError("ablate: only experts can be routed around; use --family experts")
        if self.draws < 1:
            raise InputError(f"ablate: draws: must be at least 1, got {self.draws}")
        if not 0 <= self.low < self.high <= 1:
            raise InputError(
                f"ablate: expected 0 <= low < high <= 1, got low {self.low}, high {self.high}"
            )


@dataclass(frozen=True)
class Ablation:
    """Row [set, category]: the set is ablated, the category's loss measured.

    targets: the sets. categories: [C], "all" last; count: [C] instructions of each.
    loss: [C] mean loss of the whole model, nats per token of the reference answer.
    effect: [sets][C] loss silenced - loss; chance: that of matched random sets.
    beyond: [sets][C] effect - mean effect of the random sets, its interval over instructions and
        random sets. It matters where the interval is above 0.
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
        """One row for each set and category; written to analysis/ablation.parquet."""
        cells = [(s, c) for s in range(len(self.targets)) for c in range(len(self.categories))]
        beyond = [self.beyond[s][c] for s, c in cells]
        columns = {
            "set": [self.targets[s].name for s, _ in cells],
            "family": [self.targets[s].family for s, _ in cells],
            "size": [len(self.targets[s].index) for s, _ in cells],
            "how": [self.how] * len(cells),
            "engine": [self.engine] * len(cells),
            "random_sets": [self.random_sets] * len(cells),
            "category": [self.categories[c] for _, c in cells],
            "instructions": [int(self.count[c]) for _, c in cells],
            "loss": [float(self.loss[c]) for _, c in cells],
            "beyond": [b.value for b in beyond],
            "beyond_low": [b.low for b in beyond],
            "beyond_high": [b.high for b in beyond],
        }
        return estimate_table(columns, [self.effect[s][c] for s, c in cells])


def ablate(
    run: Run, options: AblationOptions | None = None, tick: Callable[[], None] | None = None
) -> Ablation:
    """Silence sets of a run, measure the loss on its corpus' reference answers, and store it.

    The model is read by `options.engine` in the run's dtype, whichever engine counted.
    tick: called after each measurement. Writes analysis/ablation.parquet.
    Raises InputError where the model is not there (any more), no instruction has a reference, or a
    set is empty.

    >>> result = ablate(Run("runs/chat"), AblationOptions(sets=("unique:MATH",), draws=10))
    >>> result.effect[0][-1]
    """
    options = options or AblationOptions()
    known = usage(run, options.family)
    bounds = {"high": options.high, "low": options.low}
    found = [
        t for w in options.sets for t in targets(w, known, run.space, options.family, **bounds)
    ]
    rng = np.random.default_rng(options.seed)
    drawn = [
        [matched_random(t, known, run.space, rng) for _ in range(options.draws)] for t in found
    ]
    config = RunConfig.from_json(run.manifest["config"])
    asked, warnings = _answered(run, options.limit)
    engine_of = _engine_options(config, options)
    if weights_fingerprint(engine_of.model) != run.manifest["model"]["weights"]:
        raise InputError(f"ablate: model {engine_of.model}: its weights are not those of the run")
    ablator = _load(engine_of, options)
    try:
        losses = _measure(ablator, config, engine_of, asked, found, drawn, options.how, tick)
    finally:
        ablator.engine.close()
    result = summarise(found, [item.category for item in asked], *losses, options, warnings)
    run.store.write_table("ablation", result.table())
    return result


def _answered(run: Run, limit: int | None) -> tuple[list[Instruction], list[str]]:
    """The instructions of the run, at most `limit` of each category, that have a reference answer.

    They are those that were counted, whatever has become of the corpus file since.
    """
    taken: Counter[str] = Counter()
    counted, kept, missing = set(run.labels["id"].to_pylist()), [], 0
    for record in run.store.corpus.table(FIELDS).to_pylist():
        item = to_instruction(record)
        if item.id not in counted or taken[item.category] == limit:
            continue
        taken[item.category] += 1
        if item.reference:
            kept.append(item)
        else:
            missing += 1
    if not kept:
        raise InputError(
            f"ablate: {run.store.location}: no instruction has a reference answer, on which the "
            "loss is measured; count a corpus with the field `reference`"
        )
    return kept, [f"{missing} instructions have no reference answer"] if missing else []


def _engine_options(config: RunConfig, options: AblationOptions) -> EngineOptions:
    """How the engine that measures is loaded: vLLM's in as many shards as the run says."""
    if options.engine == "transformers":
        config = replace(
            config, engine="transformers", generate=0, tensor_parallel=1, pipeline_parallel=1,
            expert_parallel=False, context=None,
        )  # fmt: skip
        return replace(engine_options(config), threads=options.threads)
    found = engine_options(replace(config, engine="vllm"))
    # CUDA graphs cannot sum what the means are made of.
    return replace(found, threads=options.threads, ablation=True,
                   compile=found.compile and options.how != "mean")  # fmt: skip


def _load(engine_of: EngineOptions, options: AblationOptions) -> Ablator:
    if options.engine == "transformers":
        from sparcom.ablation.transformers_ablator import TransformersAblator
        from sparcom.engines.transformers.engine import TransformersEngine

        return TransformersAblator(TransformersEngine(engine_of), options.how)
    from sparcom.ablation.vllm_ablator import VllmAblator
    from sparcom.engines.vllm.engine import VllmEngine

    return VllmAblator(VllmEngine(engine_of), options.how)


def _measure(
    ablator, config, engine_of, asked, found, drawn, how, tick
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """(loss [n], silenced [sets][n], of random sets [sets][draws, n])."""

    def prompts(scope: str) -> list[Prompt]:
        rule = replace(config, scope=scope, generate=0, max_tokens=None)
        return PromptMaker(rule, engine_of).prompts(asked)

    answers = prompts("response")
    if how == "mean":
        ablator.calibrate(prompts("all"))

    def loss(target: Target | None) -> np.ndarray:
        if target is None:
            out = ablator.losses(answers)
        else:
            with ablator.ablated(target):
                out = ablator.losses(answers)
        if tick:
            tick()
        return out

    whole = loss(None)
    ablated = [loss(target) for target in found]
    return whole, ablated, [np.stack([loss(one) for one in ones]) for ones in drawn]


def summarise(
    found: Sequence[Target],
    labels: Sequence[str],
    whole: np.ndarray,
    ablated: Sequence[np.ndarray],
    random: Sequence[np.ndarray],
    options: AblationOptions,
    warnings: Sequence[str] = (),
) -> Ablation:
    """The figures of an ablation from losses per instruction.

    labels: [n] categories; whole: [n]; ablated: [sets][n]; random: [sets][draws, n].
    Intervals: instructions drawn with replacement within a category (and random sets, for
    `beyond`), paired: one instruction's losses stay together.
    """
    names = tuple(dict.fromkeys(labels))
    of = np.asarray(labels)
    groups = [np.flatnonzero(of == name) for name in names]
    rng = np.random.default_rng(options.seed)
    warnings = list(warnings)
    warnings += [f"category {name} has one instruction: its interval has no width"
                 for name, rows in zip(names, groups, strict=True) if len(rows) == 1]  # fmt: skip
    if options.draws < 20:
        warnings.append(
            f"{options.draws} random sets bound every p at {1 / (1 + options.draws):.3f}"
        )
    effects, beyonds = [], []
    for one, others in zip(ablated, random, strict=True):
        pairs = [
            _cell(one - whole, others - whole, rows, rng)
            for rows in ([g] for g in groups)
        ]  # fmt: skip
        pairs.append(_cell(one - whole, others - whole, groups, rng))
        effects.append(tuple(effect for effect, _ in pairs))
        beyonds.append(tuple(beyond for _, beyond in pairs))
    everyone = [*groups, np.arange(len(of))]
    return Ablation(
        tuple(found), (*names, "all"), np.array([len(g) for g in everyone]),
        np.array([whole[g].mean() for g in everyone]), tuple(effects), tuple(beyonds),
        options.draws, options.how, options.engine, tuple(warnings),
    )  # fmt: skip


def _cell(
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
