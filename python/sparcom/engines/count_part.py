"""Counting some prompts on an engine, in their order; an instruction that fails is isolated."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import Magnitudes
from sparcom.engines.base import Engine, PromptError
from sparcom.errors import CountError


@dataclass(frozen=True)
class Failure:
    """An instruction that was set aside."""

    id: str
    reason: str


def count_part(
    engine: Engine, prompts: Sequence[Prompt], under_way: Callable[[int], None] = lambda _: None
) -> tuple[Counted, list[Failure]]:
    """Counts of prompts, in their order, and the instructions that the model fails on.

    under_way: is told how many instructions the engine holds, whenever that changes.

    A group that fails is bisected until the instruction is named, tried once more alone, and set
    aside. Counts do not depend on the grouping (engines/packing.py), so the others lose nothing.
    Raises CountError if the engine returns an id twice, an id it was not given, or not all of them.
    """
    rows = _Rows(engine, prompts)
    failures: list[Failure] = []
    groups: list[list[Prompt]] = [list(prompts)]
    tried: set[str] = set()
    while groups:
        group = groups.pop()
        try:
            under_way(local := len(group))
            for counted in engine.count(group):
                rows.put(counted, group)
                under_way(local := local - len(counted.ids))
            _check_all(group, rows.done)
        except PromptError as error:
            under_way(0)
            suspects = [p for p in group if p.id in error.ids and p.id not in rows.done]
            if not suspects:
                raise
            others = [p for p in group if p.id not in error.ids and p.id not in rows.done]
            if others:
                groups.append(others)
            if len(suspects) > 1:
                middle = len(suspects) // 2
                groups += [suspects[:middle], suspects[middle:]]
            elif suspects[0].id in tried:
                failures.append(Failure(suspects[0].id, error.reason))
            else:
                tried.add(suspects[0].id)
                groups.append(suspects)
    return rows.counted(), failures


class _Rows:
    """The counts of prompts, written to their rows as they come.

    done: ids that are counted.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Prompt]) -> None:
        n, space = len(prompts), engine.space
        self._row = {prompt.id: row for row, prompt in enumerate(prompts)}
        self._ids = tuple(prompt.id for prompt in prompts)
        self._tokens = np.zeros(n, np.int64)
        self._neurons = np.empty((n, space.neurons), np.int32)
        self._experts = np.empty((n, space.experts), np.int32)
        self._signs: np.ndarray | None = None
        self._magnitudes: Magnitudes | None = None
        self.done: set[str] = set()

    def put(self, counted: Counted, group: Sequence[Prompt]) -> None:
        ids = counted.ids
        wrong = [i for i in ids if i in self.done] or sorted(set(ids) - {p.id for p in group})
        if wrong or len(set(ids)) < len(ids):
            raise CountError(
                f"the engine returned {', '.join(wrong or ids)} twice, or was not given it: each "
                "instruction is counted exactly once"
            )
        at = [self._row[i] for i in ids]
        self._tokens[at] = counted.tokens
        self._neurons[at], self._experts[at] = counted.neurons, counted.experts
        if counted.signs is not None:
            if self._signs is None:
                self._signs = np.empty((2, *self._neurons.shape), np.int32)
            self._signs[:, at] = counted.signs
        if counted.magnitudes is not None:
            if self._magnitudes is None:
                widths = self._neurons.shape[1], self._experts.shape[1]
                self._magnitudes = Magnitudes.empty(len(self._ids), *widths)
            self._magnitudes.put(at, counted.magnitudes)
        self.done.update(ids)

    def counted(self) -> Counted:
        """What was counted, without the rows of those that were set aside."""
        whole = Counted(
            self._ids, self._tokens, self._neurons, self._experts, self._signs, self._magnitudes
        )
        if len(self.done) == len(self._ids):
            return whole
        return whole.rows([row for row, name in enumerate(self._ids) if name in self.done])


def _check_all(group: Sequence[Prompt], done: Collection[str]) -> None:
    """Raise CountError if an engine ended without counting an instruction."""
    lost = [p.id for p in group if p.id not in done]
    if lost:
        raise CountError(
            f"the engine ended without counting {len(lost)} of {len(group)} instructions, the "
            f"first: {lost[0]}"
        )
