"""Choosing the rows of a pass by measuring: `--batch-tokens auto`.

A pass of more rows uses the processor better, and leaves more rows empty at the end of a part.
Passes of a few sizes are timed on prompts of the run; how many of them a part needs is planned. The
size that reads the part fastest is taken.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.packing import Pass

SHARE = 0.05
"""Of the rows that an actor reads in a run, measuring reads at most this share."""
SMALLEST, LARGEST = 256, 16384
_TIMES = 2  # passes of one size; the faster one counts
_GAIN = 1.03  # a size that is faster by less may owe it to chance


class Resizable(Protocol):
    """An engine that can read passes of another size."""

    def set_batch_tokens(self, rows: int) -> None: ...
    def plan(self, lengths: Sequence[int]) -> list[Pass]: ...
    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]: ...


@dataclass(frozen=True)
class BatchSize:
    """The rows of a pass that were chosen.

    rows: of a pass. tokens_per_s: rows -> prompt tokens a second, of each size that was measured.
    why: why no more was measured; "" if nothing hindered it.
    """

    rows: int
    tokens_per_s: dict[int, float] = field(default_factory=dict)
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As run.json has it under `chosen`."""
        speeds = {str(rows): round(speed, 1) for rows, speed in self.tokens_per_s.items()}
        return {"batch_tokens": self.rows, "tokens_per_s": speeds, "why": self.why}


def least_tokens(rows: int) -> int:
    """Prompt tokens that an actor must read for measuring to pay: `rows` and twice as many are
    timed within `SHARE` of them."""
    return round(_TIMES * 3 * rows / SHARE)


def choose_batch_tokens(
    engine: Resizable,
    prompts: Sequence[Prompt],
    rows: int,
    tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchSize:
    """The size at which an engine reads prompts fastest: `rows`, or a power of two times it.

    Larger sizes are tried as long as each is faster than the last; if none is, smaller ones.
    engine: loaded; it is left at the size that was measured last.
    prompts: of one part of the run. rows: the size to begin with. tokens: that an actor reads in
    the whole run, about; measuring reads at most `SHARE` of it.
    clock: seconds.

    >>> choose_batch_tokens(engine, prompts, 1024, tokens=2_000_000).rows
    2048
    """
    if tokens < least_tokens(rows):
        return BatchSize(rows, why=too_few(rows, tokens))
    left, speeds, best, why = SHARE * tokens, dict[int, float](), rows, ""

    def faster(size: int) -> bool:
        """True if a size is faster than the best so far; measures it."""
        nonlocal left, why
        if left < _TIMES * size:
            why = f"{size} was not measured, which would have taken over {SHARE:.0%} of the run"
            return False
        left -= _TIMES * size
        try:
            speeds[size] = _tokens_per_s(engine, prompts, size, clock)
        except PromptError as error:  # what is wrong is said when the prompts are counted
            why = f"a pass of {size} failed: {error.reason}"
            return False
        return size == rows or speeds[size] > _GAIN * speeds[best]

    if faster(rows):
        for factor in (2.0, 0.5):
            while SMALLEST <= (size := int(best * factor)) <= LARGEST and faster(size):
                best = size
            if best != rows:
                break
    return BatchSize(best, speeds, why)


def too_few(rows: int, tokens: int) -> str:
    """Why nothing is measured in a small run."""
    return (
        f"{tokens:,} prompt tokens an actor are too few for measuring to pay, which needs "
        f"{least_tokens(rows):,}"
    )


def _tokens_per_s(
    engine: Resizable, prompts: Sequence[Prompt], size: int, clock: Callable[[], float]
) -> float:
    """Tokens a second at which an engine would read all prompts in passes of a size.

    Timed is one pass. Attention makes passes of long prompts slower, so it is the one whose squared
    lengths, for each row, are nearest to those of all; its time for each row holds for the others.
    """
    engine.set_batch_tokens(size)
    lengths = [len(p.token_ids) for p in prompts]
    passes = engine.plan(lengths)
    rows = sum(one.rows for one in passes)
    of_a_row = sum(n * n for n in lengths) / rows
    # A prompt that is longer than the size has a pass of another size.
    usual = [one for one in passes if one.rows == size] or passes
    typical = min(
        usual,
        key=lambda one: abs(sum(lengths[at] ** 2 for at in one.prompts) / one.rows - of_a_row),
    )
    held = [prompts[at] for at in typical.prompts]
    seconds = []
    for _ in range(_TIMES):
        started = clock()
        for _ in engine.count(held):
            pass
        seconds.append(clock() - started)
    of_all = min(seconds) * rows / typical.rows
    return sum(lengths) / of_all if of_all else float("inf")
