"""Which instruction each row of an engine step belongs to, each token exactly once.

vLLM batches tokens of many requests into one step, cuts prompts into chunks, and recomputes
requests that it had to preempt. Every request says in its sampling parameters which slot it counts
into and which of its token positions count. A position counts the first time that it is computed:
`read` remembers how far each request has come, so that recomputed tokens are not counted again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparcom.errors import CountError

KEY = "sparcom"
END = 2**31 - 1


@dataclass
class _Reading:
    """A request under way. answer: position of its first generated token, END if none counts.
    read: positions below this one have been computed once."""

    slot: int
    ranges: tuple[tuple[int, int], ...]
    answer: int
    read: int = 0


def request_note(
    slot: int, counted: Sequence[tuple[int, int]], prompt_tokens: int, response: bool
) -> dict[str, Any]:
    """What a request carries in `SamplingParams.extra_args`.

    slot: where it counts.
    counted: half-open ranges of prompt positions that count.
    response: count the generated tokens too: all but the last, which is never an input.
    """
    ranges = [list(r) for r in counted]
    if response:
        ranges.append([prompt_tokens, END])
    answer = prompt_tokens if response else END
    return {KEY: {"slot": slot, "ranges": ranges, "answer": answer}}


def first_counted(note: Mapping[str, Any]) -> int:
    """The first position that a request counts, from its `request_note`; END if it counts none."""
    return min((int(start) for start, _ in note[KEY]["ranges"]), default=END)


class RowMap:
    """Slots of the rows of each step, and the progress of the requests under way.

    recomputed: tokens that came again after a preemption, so far. cached: tokens that never came,
    since vLLM had them from an earlier request. answers: [(first, stop)] the rows of the last step
    that read generated tokens which may count.
    """

    def __init__(self) -> None:
        self.recomputed = self.cached = 0
        self.answers: list[tuple[int, int]] = []
        self._ignores = False
        self._readings: dict[str, _Reading] = {}
        self._owners: dict[int, str] = {}

    def fill(
        self,
        slot_of_row: np.ndarray,
        requests: Sequence[str],
        notes: Sequence[Mapping[str, Any]],
        starts: Sequence[int],
        lengths: Sequence[int],
    ) -> None:
        """Write the slot of every row of a step, -1 if it is not counted.

        slot_of_row: [rows] int32, written.
        requests, notes: ids of the step's requests in batch order, and their `request_note`s.
        starts: position in its sequence of each request's first row; lengths: rows of each, of
            positions that follow each other.
        Raises CountError if two requests share a slot.
        """
        slot_of_row.fill(-1)
        self.answers = []
        if self._ignores:
            return
        row = 0
        for request, note, first, length in zip(requests, notes, starts, lengths, strict=True):
            reading = self._readings.get(request)
            if reading is None:
                reading = self._open(request, note)
                self.cached += first
            end = first + length
            self.recomputed += max(0, min(reading.read, end) - first)
            for low, high in reading.ranges:
                low, high = max(low, reading.read, first), min(high, end)
                if low < high:
                    slot_of_row[row + low - first : row + high - first] = reading.slot
            if reading.answer < end:
                self.answers.append((row + max(0, reading.answer - first), row + length))
            reading.read = max(reading.read, end)
            row += length

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Within the block the requests of a step are nobody's, and nothing is counted."""
        self._ignores = True
        try:
            yield
        finally:
            self._ignores = False

    def close(self, slots: Sequence[int]) -> None:
        """Forget the requests of these slots: their counts were taken, or are dropped."""
        for slot in slots:
            self._readings.pop(self._owners.pop(slot, ""), None)

    def _open(self, request: str, note: Mapping[str, Any]) -> _Reading:
        if KEY not in note:
            raise CountError(f"request {request} came without a slot to count into")
        slot = int(note[KEY]["slot"])
        if slot in self._owners:
            raise CountError(
                f"request {request} was given slot {slot}, which {self._owners[slot]} still has"
            )
        ranges = tuple((int(a), int(b)) for a, b in note[KEY]["ranges"])
        reading = _Reading(slot, ranges, int(note[KEY]["answer"]))
        self._readings[request] = reading
        self._owners[slot] = request
        return reading
