"""Counting one part: plain functions, which know nothing of Ray."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import Engine, PromptError
from sparcom.errors import CountError
from sparcom.store import Failure, concat_counted


def count_part(
    engine: Engine, prompts: Sequence[Prompt], under_way: Callable[[int], None] = lambda _: None
) -> tuple[Counted | None, list[Failure]]:
    """Counts of one part, in its order, and the instructions that the model fails on.

    under_way: is told how many instructions the engine holds, whenever that changes.

    A group that fails is bisected until the instruction is named, tried once more alone, and set
    aside. Counts do not depend on the grouping (engines/packing.py), so the others lose nothing.
    """
    done: dict[str, tuple[Counted, int]] = {}
    failures: list[Failure] = []
    groups: list[list[Prompt]] = [list(prompts)]
    tried: set[str] = set()
    while groups:
        group = groups.pop()
        try:
            under_way(held := len(group))
            for counted in engine.count(group):
                _check_new(counted.ids, done, group)
                under_way(held := held - len(counted.ids))
                done.update({name: (counted, row) for row, name in enumerate(counted.ids)})
            _check_all(group, done)
        except PromptError as error:
            under_way(0)
            suspects = [p for p in group if p.id in error.ids and p.id not in done]
            if not suspects:
                raise
            others = [p for p in group if p.id not in error.ids and p.id not in done]
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
    kept = [done[p.id] for p in prompts if p.id in done]
    if not kept:
        return None, failures
    one_row = [
        Counted(
            (c.ids[row],),
            c.tokens[row : row + 1],
            c.neurons[row : row + 1],
            c.experts[row : row + 1],
        )
        for c, row in kept
    ]
    return concat_counted(one_row), failures


def _check_new(ids: Sequence[str], done: Mapping[str, Any], group: Sequence[Prompt]) -> None:
    """Raise CountError where an engine counts an instruction twice, or one of no one's asking."""
    wrong = [name for name in ids if name in done] or sorted(set(ids) - {p.id for p in group})
    if wrong or len(set(ids)) < len(ids):
        raise CountError(
            f"the engine returned {', '.join(wrong or ids)} twice, or was not given it: each "
            "instruction is counted exactly once"
        )


def _check_all(group: Sequence[Prompt], done: Mapping[str, Any]) -> None:
    """Raise CountError where an engine ended without having counted an instruction."""
    lost = [p.id for p in group if p.id not in done]
    if lost:
        raise CountError(
            f"the engine ended without counting {len(lost)} of {len(group)} instructions, the "
            f"first: {lost[0]}"
        )


def no_counts(space: ComponentSpace) -> Counted:
    """The counts of a part of which nothing could be counted."""
    return Counted(
        (),
        np.zeros(0, np.int64),
        np.zeros((0, space.neurons), np.int32),
        np.zeros((0, space.experts), np.int32),
    )
