"""`attribute`: what every neuron adds to the likelihood of the reference answers of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparcom.attribution.rules import RULES
from sparcom.attribution.sums import Attribution, AttributionFiles, Group, stamp_of
from sparcom.clusters import turns, with_clusters
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import FIELDS, Instruction, to_instruction
from sparcom.errors import InputError
from sparcom.models import weights_fingerprint
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker, prompts_of
from sparcom.store import Run, RunLock

PART = 16
"""Instructions of a part, the unit that is not done again."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AttributionOptions:
    """Options of `attribute`.

    rules: of "attribution" (gradient times activation) and "relp"; each costs its own pass.
    limit: instructions of each category, clusters in turn; None: all.
    answer_tokens: of each reference answer, the first whose likelihood is attributed; None: all.
    dtype: of the model; None: the run's. threads: CPU threads; None: all cores.
    """

    rules: tuple[str, ...] = RULES
    limit: int | None = 20
    answer_tokens: int | None = 32
    dtype: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.rules or set(self.rules) - set(RULES) or len(set(self.rules)) < len(self.rules):
            raise InputError(
                f"attribute: rules: expected some of {', '.join(RULES)}, got "
                f"{', '.join(self.rules) or 'none'}"
            )
        for name in ("limit", "answer_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                shown = name.replace("_", "-")
                raise InputError(f"attribute: {shown}: must be at least 1, got {value}")


@dataclass(frozen=True)
class _Item:
    instruction: Instruction
    cluster: str


def attribute(
    run: Run,
    options: AttributionOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, planned: None,
) -> Attribution:
    """Attribute the likelihood of reference answers to neurons, and store it in attribution/.

    By the transformers engine, one forward and one backward pass for each instruction and rule
    (`gradients.attributions`), whichever engine counted. What a stopped call has stored is not done
    again. overwrite: replace what was stored with other options.
    progress: called after each instruction with (how many are done, how many are planned).
    Raises InputError if the model is not there, has other weights than the run or none that a
    gradient can be taken of, no instruction has a reference, or another attribution is stored.

    >>> attribute(Run("runs/chat"), AttributionOptions(rules=("attribution",), limit=40))
    """
    options = options or AttributionOptions()
    stamp = stamp_of(run)
    items = _chosen(run, options.limit)
    config = RunConfig.from_json(run.manifest["config"])
    dtype = options.dtype or config.dtype
    parts = [items[start : start + PART] for start in range(0, len(items), PART)]
    asked = {
        "rules": list(options.rules), "limit": options.limit, "dtype": dtype,
        "answer_tokens": options.answer_tokens, "parts": len(parts),
    }  # fmt: skip
    with RunLock(run.store.files):
        files = AttributionFiles(run.store, run.space, stamp)
        if overwrite:
            files.delete()
        elif (stored := files.options()) not in (None, asked):
            raise InputError(
                f"attribute: {run.store.location} holds an attribution with other options "
                f"({_shown(stored)}); --overwrite replaces it"
            )
        left = [
            at for at, part in enumerate(parts)
            if not files.holds(at, [item.instruction.id for item in part], asked)
        ]  # fmt: skip
        if left:
            done = sum(map(len, parts)) - sum(len(parts[at]) for at in left)
            measure = _Measure(run, config, options, dtype, done, len(items), progress)
            with measure:
                for at in left:
                    files.write(at, measure.groups(parts[at]), asked)
    return Attribution(run)


def _shown(options: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted((options or {}).items()))


def _chosen(run: Run, limit: int | None) -> list[_Item]:
    """The instructions that are attributed, by category and cluster.

    At most `limit` of a category, clusters in turn, so that as many as possible are among them.
    """
    counted = set(run.labels["id"].to_pylist())
    records = [
        record
        for record in with_clusters(run.store.corpus.table(FIELDS)).to_pylist()
        if record["id"] in counted and record["reference"]
    ]
    if not records:
        raise InputError(
            f"attribute: {run.store.location}: no instruction has a reference answer, whose "
            "likelihood is attributed; count a corpus with the field `reference`"
        )
    categories = np.array([record["category"] for record in records])
    turn = turns(categories.tolist(), [record["cluster"] for record in records])
    chosen = []
    for name in np.unique(categories):
        rows = np.flatnonzero(categories == name)
        chosen += rows[np.argsort(turn[rows], kind="stable")][:limit].tolist()
    items = [_Item(to_instruction(records[row]), records[row]["cluster"]) for row in sorted(chosen)]
    return sorted(items, key=lambda item: (item.instruction.category, item.cluster))


class _Measure:
    """Measures parts by the transformers engine, which lives within the block."""

    def __init__(
        self, run: Run, config: RunConfig, options: AttributionOptions, dtype: str,
        done: int, planned: int, progress: Progress,
    ) -> None:  # fmt: skip
        self._options, self._progress = options, progress
        self._done, self._planned = done, planned
        self._config = replace(
            config, engine="transformers", dtype=dtype, generate=0, tensor_parallel=1,
            pipeline_parallel=1, expert_parallel=False, context=None, signs=False,
            magnitudes=False, verify=False,
        )  # fmt: skip
        self._loading = replace(engine_options(self._config), threads=options.threads)
        if weights_fingerprint(self._loading.model) != run.manifest["model"]["weights"]:
            raise InputError(
                f"attribute: model {self._loading.model}: its weights are not those of the run"
            )

    def __enter__(self) -> "_Measure":
        from sparcom.attribution.gradients import Attributor
        from sparcom.engines.transformers.engine import TransformersEngine

        self._maker = PromptMaker(self._config, self._loading)
        self._engine = TransformersEngine(self._loading)
        self._rules = {rule: Attributor(self._engine, rule) for rule in self._options.rules}
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def groups(self, items: Sequence[_Item]) -> list[Group]:
        """The sums over some instructions, which lie by category and cluster."""
        groups: list[Group] = []
        prompts = self._prompts([item.instruction for item in items])
        for item, prompt in zip(items, prompts, strict=True):
            key = item.instruction.category, item.cluster
            if not groups or (groups[-1].category, groups[-1].cluster) != key:
                zero = {rule: np.zeros(self._engine.space.neurons) for rule in self._rules}
                groups.append(Group(category=key[0], cluster=key[1], ids=[], sums=zero))
            groups[-1].ids.append(item.instruction.id)
            for rule, attributor in self._rules.items():
                groups[-1].sums[rule] += attributor(prompt)
            self._done += 1
            self._progress(self._done, self._planned)
        return groups

    def _prompts(self, items: Sequence[Instruction]) -> list[Prompt]:
        answer = {"scope": "response", "max_tokens": self._options.answer_tokens}
        return prompts_of(self._maker, self._config, items, **answer)
