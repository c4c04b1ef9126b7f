"""The measurements of an ablation: targets, their random sets, and the control on plain text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sparcom.ablation.ablation import Dose, Measured, Scored, tested_figures, verdicts
from sparcom.ablation.ablator import Ablator, neurons_of
from sparcom.ablation.behaviour import BehaviourScorer, Tasks
from sparcom.ablation.how import How
from sparcom.ablation.matching import Balance, balance, matched_sets, worst_of
from sparcom.ablation.measures import (
    Answered,
    choose,
    open_transformers,
    open_vllm,
    options_of_engine,
    plain_prompts,
)
from sparcom.ablation.options import FEWEST_SETS, AblationOptions
from sparcom.ablation.plain_text import PlainControl, enlarged
from sparcom.ablation.resample import donors_of
from sparcom.ablation.scoring import Editions, Effects, Scorer, stacked
from sparcom.ablation.target import CrossTarget, Target
from sparcom.ablation.use import Use, measure_use, output_norms
from sparcom.ablation.verdict import ALPHA, draw_sets, fewest_sets
from sparcom.config import RunConfig
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError
from sparcom.models import weights_fingerprint
from sparcom.planning.prompts import PromptMaker, prompts_of
from sparcom.store import Run

MOST_MEASURED = 20
"""Instructions of each category and half on which the use of components is measured."""

Progress = Callable[[int, int], None]
"""Called after each pass over the scored instructions: how many are done, how many are planned."""


class Experiment:
    """Measures targets and their random sets.

    known: the instructions that may be scored. found: the targets. tasks: how written answers are
    scored; {}: the loss is. warnings: filled by `measure`.
    """

    def __init__(
        self,
        run: Run,
        options: AblationOptions,
        known: Answered,
        found: Sequence[CrossTarget],
        rng: np.random.Generator,
        progress: Progress,
        tasks: Tasks,
    ) -> None:
        self._run, self._options, self._rng = run, options, rng
        self._known, self._found, self._tasks = known, found, tasks
        self._config = RunConfig.from_json(run.manifest["config"])
        self._done, self._planned, self._progress = 0, 0, progress
        self.warnings: list[str] = []

    def measure(self) -> tuple[list[Measured], Scored]:
        """What was measured of each target, and the instructions that were scored.

        Raises InputError if the model has other weights than the run.
        """
        engine = self._options.engine
        engine_of = options_of_engine(self._config, self._options, engine)
        if weights_fingerprint(engine_of.model) != self._run.manifest["model"]["weights"]:
            raise InputError(
                f"ablate: model {engine_of.model}: its weights are not those of the run"
            )
        maker = PromptMaker(self._config, engine_of)
        how = self._options.hows[0].name
        if engine == "transformers":
            with open_transformers(engine_of, how) as ablator:
                return self._score(ablator, maker, self._draw(ablator.engine, maker))
        # vLLM shows neither |h| nor the weights.
        plain = options_of_engine(self._config, self._options, "transformers")
        with open_transformers(plain, "zero") as ablator:
            drawn = self._draw(ablator.engine, maker)
        with open_vllm(engine_of, how) as other:
            return self._score(other, maker, drawn)

    def _draw(self, engine: TransformersEngine, maker: PromptMaker) -> list["_Drawn"]:
        """The random sets of each target."""
        norms = output_norms(engine.ffns, engine.space)
        uses: dict[tuple[int, str | None], Use] = {}
        out = []
        most = self._sets(len(self._found))
        for target in self._found:
            editions, balances = [], []
            for half, one in enumerate(target.found):
                key = half, target.category
                if key not in uses:
                    items = self._known.of(*key)[:: self._every(*key)]
                    prompts = prompts_of(maker, self._config, items, scope="all")
                    uses[key] = measure_use(engine, prompts, norms, one.family)
                drawn = matched_sets(one, uses[key], self._run.space, most, self._rng)
                editions.append(drawn)
                balances.append(balance(one, drawn, uses[key], self._run.space))
            out.append(_Drawn(target, editions, worst_of(balances)))
        return out

    def _every(self, half: int, category: str | None) -> int:
        """The step that leaves about `MOST_MEASURED` instructions a category."""
        most = MOST_MEASURED * (1 if category else len(self._known.categories))
        return max(1, round(len(self._known.of(half, category)) / most))

    def _sets(self, targets: int) -> int:
        """Random sets of each target."""
        return self._options.random_sets or max(FEWEST_SETS, fewest_sets(targets))

    def _score(
        self, ablator: Ablator, maker: PromptMaker, drawn: Sequence["_Drawn"]
    ) -> tuple[list[Measured], Scored]:
        options = self._options
        chosen = self._known.take(choose(self._known, options.limit))
        if ablator.how.kind == "mean":
            ablator.calibrate(prompts_of(maker, self._config, chosen.items, scope="all"))
        if ablator.how.kind == "resample":
            self._read_donors(ablator, maker, chosen)
        fair = sum(one.balance.fair for one in drawn)
        sets = self._sets(max(fair, 1))
        self._planned = 1 + (len(drawn) + fair * sets) * len(options.hows)
        scorer = self._scorer(ablator, maker, chosen)
        self.warnings += scorer.warnings
        scored = Scored(chosen.categories, chosen.codes, chosen.clusters, scorer.loss)
        self._tick()
        measured = [self._measured(scorer, scored, one, sets) for one in drawn]
        in_routing = ablator.how.shift is not None  # of which too few components are left
        if options.plain_sets and not self._tasks and not in_routing:
            measured = list(self._with_plain(ablator, maker, scorer, scored, measured))
        return measured, scored

    def _read_donors(self, ablator: Ablator, maker: PromptMaker, chosen: Answered) -> None:
        """The scored instructions are each other's donors; of one category alone, plain text is."""
        most = self._options.behaviour or self._options.answer_tokens
        answer = {"scope": "response", "max_tokens": most}
        prompts = prompts_of(maker, self._config, chosen.items, **answer)
        categories = [item.category for item in chosen.items]
        if len(chosen.categories) == 1:
            texts = plain_prompts(maker, self._config)
            prompts, categories = [*prompts, *texts], [*categories, *[""] * len(texts)]
        # Random sets are of the same sites.
        index = [neurons_of(one, self._run.space) for t in self._found for one in t.found]
        donors = donors_of(prompts, categories, self._options.seed)
        ablator.read_donors(donors, np.unique(np.concatenate(index)))

    def _scorer(self, ablator: Ablator, maker: PromptMaker, chosen: Answered) -> Scorer:
        options = self._options
        if not self._tasks:
            answer = {"scope": "response", "max_tokens": options.answer_tokens}
            prompts = prompts_of(maker, self._config, chosen.items, **answer)
            return Scorer(ablator, prompts, chosen.half)
        prompts = prompts_of(maker, self._config, chosen.items, scope="prompt")
        scorer = BehaviourScorer(
            ablator, prompts, chosen.half, self._tasks, maker.decode, options.behaviour
        )
        for code, name in enumerate(chosen.categories):
            if scorer.loss[chosen.codes == code].all():
                self.warnings.append(f"{name}: no answer of the whole model is right, so that no "
                                     "ablation can lower its score")  # fmt: skip
        return scorer

    def _measured(self, scorer: Scorer, scored: Scored, one: "_Drawn", sets: int) -> Measured:
        """One target and, if a fair comparison exists, its random sets."""
        cells = scored.cells(one.target)
        editions = one.target.scored_on(0), one.target.scored_on(1)
        # The random sets are of the target's own sites, hence of its layers.
        prefixes = scorer.prefixes(editions) if one.balance.fair else (None, None)
        hows = self._options.hows

        def measure(some: Editions) -> list[Effects]:
            """The effects of one set, in each way."""
            found = []
            for how in hows:
                found.append(scorer.effects(some, prefixes, how))
                self._tick()
            return found

        effects = measure(editions)
        draws: list[list[Effects]] = []

        def draw(number: int) -> np.ndarray:
            draws.append(measure(one.random(number)))
            return tested_figures(scored, cells, hows, [one.loss for one in draws[-1]])

        stopped = False
        if one.balance.fair:
            observed = tested_figures(scored, cells, hows, [one.loss for one in effects])
            stopped = draw_sets(observed, draw, sets, early=self._options.early).stopped
            self._planned -= (sets - len(draws)) * len(hows)
        doses = tuple(
            Dose(
                how=how,
                effects=effects[at],
                draws=stacked([each[at] for each in draws], len(scored.codes)),
            )
            for at, how in enumerate(hows)
        )
        return Measured(target=one.target, doses=doses, stopped=stopped, balance=one.balance)

    def _with_plain(
        self,
        ablator: Ablator,
        maker: PromptMaker,
        scorer: Scorer,
        scored: Scored,
        measured: Sequence[Measured],
    ) -> Iterator[Measured]:
        """The targets that matter get the control on plain text, at every dose at which they do."""
        claimed = [
            {at for (at, _), (_, p) in said.items() if p is not None and p <= ALPHA}
            for said in verdicts(scored, measured)
        ]
        self._planned += sum(map(len, claimed)) * self._options.plain_sets
        prompts = plain_prompts(maker, self._config) if any(claimed) else []
        whole = ablator.losses(prompts) if prompts else np.zeros(0)

        def rise(how: How, target: Target) -> float:
            with ablator.ablated(target, how):
                return float((ablator.losses(prompts) - whole).mean())

        for one, matters in zip(measured, claimed, strict=True):
            doses = [
                replace(dose, plain=self._plain(scorer, one, dose.how, partial(rise, dose.how)))
                if at in matters
                else dose
                for at, dose in enumerate(one.doses)
            ]
            yield replace(one, doses=tuple(doses))

    def _plain(
        self, scorer: Scorer, one: Measured, how: How, rise: Callable[[Target], float]
    ) -> PlainControl | None:
        """The control of one target; None if plain text does not suffer, or too little may be
        ablated for it to suffer as much."""
        wanted = [rise(edition) for edition in one.target.found]
        found: list[Effects] = []
        sizes, rises = [], []
        for _ in range(self._options.plain_sets):
            pair = [
                enlarged(edition, self._run.space, rise, most, self._rng)
                for edition, most in zip(one.target.found, wanted, strict=True)
            ]
            if pair[0] is None or pair[1] is None:
                self._planned -= self._options.plain_sets - len(found)
                return None
            (first, first_rise), (second, second_rise) = pair[0], pair[1]
            found.append(scorer.effects((second, first), how=how))
            sizes += [len(first.index), len(second.index)]
            rises += [first_rise, second_rise]
            self._tick()
        return PlainControl(
            rise=float(np.mean(wanted)), random_rise=float(np.mean(rises)), sets=len(found),
            size=float(np.mean(sizes)), effects=stacked(found, len(found[0].loss)),
        )  # fmt: skip

    def _tick(self) -> None:
        self._done += 1
        self._progress(self._done, self._planned)


class _Drawn:
    """A target with its random sets.

    editions: [2] of [sets, size] flat indices, matched with the target found on each half.
    """

    def __init__(self, target: CrossTarget, editions: Sequence[np.ndarray], found: Balance) -> None:
        self.target, self.balance = target, found
        self._editions = editions

    def random(self, number: int) -> Editions:
        """A random set, in the editions that the first and the second half are scored with."""
        name = f"random for {self.target.name}"
        found = [Target(name, self.target.family, edition[number]) for edition in self._editions]
        return found[1], found[0]
