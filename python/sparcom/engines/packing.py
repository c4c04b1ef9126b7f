"""Packing prompts into passes of one fixed shape.

A matrix product may round its rows differently when their number changes, and a sign near zero
then flips. So every pass has the same number of rows, whatever prompts it holds: the counts of a
prompt do not depend on its neighbours. The rows that no prompt fills are wasted; packing the
longest first wastes little.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One forward pass: which prompts it holds, in order, and how many rows it has."""

    prompts: tuple[int, ...]
    rows: int


def plan_passes(
    lengths: Sequence[int], batch_tokens: int, slots: int, solo_above: int | None = None
) -> list[Pass]:
    """Passes that hold every prompt once (first fit, longest first).

    lengths: tokens of each prompt, all at least 1.
    batch_tokens: rows of a pass. A longer prompt has a pass of its own, with the smallest multiple
        of `batch_tokens` that holds it.
    slots: prompts in a pass at most.
    solo_above: prompts longer than this have a pass of their own (models whose rotary embedding
        depends on the longest position of the pass).
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    open_passes: list[tuple[int, list[int]]] = []  # (free rows, prompts)
    passes: list[Pass] = []
    for i in order:
        if lengths[i] > min(batch_tokens, solo_above or batch_tokens):
            passes.append(Pass((i,), -(-lengths[i] // batch_tokens) * batch_tokens))
            continue
        for at, (free, packed) in enumerate(open_passes):
            if lengths[i] <= free and len(packed) < slots:
                packed.append(i)
                open_passes[at] = (free - lengths[i], packed)
                break
        else:
            open_passes.append((batch_tokens - lengths[i], [i]))
    return passes + [Pass(tuple(packed), batch_tokens) for _, packed in open_passes]
