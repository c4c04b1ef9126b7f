"""The experiment on behaviour: answers that the model writes under each condition, right or wrong.

An answer that is wrong counts as a loss of 1. So everything that holds for the loss holds here: the
effect of a target is how much of its score it costs, and it is ranked among random sets.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparcom.ablation.ablator import Ablator
from sparcom.ablation.how import How
from sparcom.ablation.measures import Answered
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.scoring import Editions, Effects, Prefixes, Scorer
from sparcom.behaviour import sandbox
from sparcom.behaviour.tasks import Task, read_aliases, task_of
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.errors import InputError

Tasks = Mapping[str, Task]
"""Id -> how its answer is scored."""


class BehaviourScorer(Scorer):
    """Scores what the model writes, with sets of components ablated.

    prompts: that ask, without an answer. half: [n] of each, 0 or 1. tasks: of every prompt.
    decode: text of token ids. tokens: of an answer, at most.
    loss: [n] 0 where the whole model's answer is right, 1 where it is wrong.
    """

    def __init__(
        self,
        ablator: Ablator,
        prompts: Sequence[Prompt],
        half: np.ndarray,
        tasks: Tasks,
        decode: Callable[[Sequence[int]], str],
        tokens: int,
    ) -> None:
        self._ablator, self._tasks, self._decode, self._tokens = ablator, tasks, decode, tokens
        self._rows = [np.flatnonzero(half == h) for h in (0, 1)]
        self._prompts = [[prompts[row] for row in rows] for rows in self._rows]
        self._judged: dict[tuple[str, str], bool] = {}
        self.warnings: list[str] = []
        self.loss = np.zeros(len(prompts))
        self._whole: dict[str, str] = {}
        for rows, some in zip(self._rows, self._prompts, strict=True):
            written = self._write(some)
            self._whole |= written
            self.loss[rows] = self._wrong(written, some)

    def prefixes(self, editions: Editions) -> Prefixes:
        """None: every answer is written from its first token."""
        return None, None

    def effects(
        self, editions: Editions, prefixes: Prefixes = (None, None), how: How | None = None
    ) -> Effects:
        """The effects of one set, in its two editions: loss, the rise of what is wrong; changed, 1
        where the answer is another than the whole model's."""
        out = Effects(*(np.full(len(self.loss), np.nan) for _ in range(3)))
        for h, target in enumerate(editions):
            rows, prompts = self._rows[h], self._prompts[h]
            with self._ablator.ablated(target, how):
                written = self._write(prompts)
            out.loss[rows] = self._wrong(written, prompts) - self.loss[rows]
            out.changed[rows] = [written[one.id] != self._whole[one.id] for one in prompts]
        return out

    def _write(self, prompts: Sequence[Prompt]) -> dict[str, str]:
        """Id -> the answer."""
        written = self._ablator.write(prompts, self._tokens)
        return {name: self._decode(ids) for name, ids in written.items()}

    def _wrong(self, written: Mapping[str, str], prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] 1 for each answer that is wrong."""
        for name, answer in written.items():
            if (name, answer) not in self._judged:
                self._judged[name, answer] = self._tasks[name].right(answer)
        return np.array([not self._judged[one.id, written[one.id]] for one in prompts], np.float64)


def with_tasks(known: Answered, options: AblationOptions) -> tuple[Answered, Tasks, list[str]]:
    """(the instructions whose answers can be scored, how, warnings).

    A category without such instructions in both halves is left out.
    Raises InputError if none is left, if code is to be run that cannot be confined, and for aliases
    of other instructions alone.
    """
    if options.run_code:
        sandbox.require()
    aliases = read_aliases(options.aliases)
    if aliases and not aliases.keys() & {one.id for one in known.items}:
        raise InputError(
            f"ablate: aliases {options.aliases}: expected ids of instructions of this run, such as "
            f"{known.items[0].id}; got none"
        )
    found = {one.id: task_of(one, aliases, run_code=options.run_code) for one in known.items}
    tasks = {name: task for name, task in found.items() if task is not None}
    rows = np.array([one.id in tasks for one in known.items])
    inside = [
        all((rows & (known.codes == code) & (known.half == h)).any() for h in (0, 1))
        for code in range(len(known.categories))
    ]
    warnings = [
        f"{name} is left out: its answers cannot be scored in both halves"
        + (" (--run-code runs code)" if name == "CODE" and not options.run_code else "")
        for name, one in zip(known.categories, inside, strict=True)
        if not one
    ]
    if not any(inside):
        raise InputError("ablate: behaviour: " + "; ".join(warnings))
    kept = known.take(np.flatnonzero(rows & np.array(inside)[known.codes]))
    left = [name for name, one in zip(known.categories, inside, strict=True) if one]
    codes = np.array([left.index(one.category) for one in kept.items])
    return Answered(kept.items, tuple(left), codes, kept.half, kept.clusters), tasks, warnings


def metrics_of(known: Answered, tasks: Tasks) -> dict[str, str]:
    """Category -> the name of its metric."""
    return {one.category: tasks[one.id].metric for one in known.items}
