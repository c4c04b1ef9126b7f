"""Spans of parts: what a profile file covers, and when spans are ready to be merged.

A *span* is a half-open range of part numbers. Profiles are merged like a tree: `FAN` neighbours,
aligned, become one of the next level, whose neighbours are merged in turn. Each part is merged
once a level, into ever fewer cells per instruction, so that a part costs the same however many came
before it. Which parts a file covers is in its name: a listing of the folder says what is done.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from sparcom.errors import InputError

FAN = 16
_NAME = re.compile(r"parts?-(\d{5,})(?:-(\d{5,}))?\.parquet")


class Span(NamedTuple):
    """The parts first, ..., stop - 1."""

    first: int
    stop: int

    @property
    def name(self) -> str:
        """`part-00007.parquet` of one part, `parts-00000-00015.parquet` of more."""
        if self.stop - self.first == 1:
            return part_name(self.first)
        return f"parts-{self.first:05d}-{self.stop - 1:05d}.parquet"

    def holds(self, other: "Span") -> bool:
        return self.first <= other.first and other.stop <= self.stop


def part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def span_of(name: str) -> Span | None:
    """The span that a file name gives; None if it gives none."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return Span(first, last + 1) if last >= first else None


def outermost(spans: Iterable[Span]) -> list[Span]:
    """The spans that lie in no other, ascending.

    A span inside another is what a merge has left behind when it was stopped. Raises InputError
    where two spans overlap otherwise: some instruction would be counted twice.
    """
    out: list[Span] = []
    for span in sorted(set(spans), key=lambda s: (s.first, -s.stop)):
        if out and span.stop <= out[-1].stop:
            continue
        if out and span.first < out[-1].stop:
            raise InputError(
                f"profiles: {out[-1].name} and {span.name} overlap; delete one of them and finish "
                "the run with --resume"
            )
        out.append(span)
    return out


def covered(spans: Iterable[Span]) -> set[int]:
    """The parts that some span covers."""
    return {part for span in outermost(spans) for part in range(*span)}


class MergeTree:
    """Says which spans can be merged as parts get done, in any order.

    parts: of the run; spans: those that are already stored.
    """

    def __init__(self, parts: int, spans: Iterable[Span] = (), fan: int = FAN) -> None:
        self._parts, self._fan = parts, fan
        self._done: dict[Span, int] = {}  # span of a higher level -> children that are done
        for part in sorted(covered(spans)):
            self.add(part)

    def add(self, part: int) -> list[Span]:
        """Take a part that is done; the spans that can be merged now, children first."""
        ready = []
        width, first = self._fan, part
        while width <= self._parts:
            first -= first % width
            span = Span(first, first + width)
            if span.stop > self._parts:
                break
            self._done[span] = self._done.get(span, 0) + 1
            if self._done[span] < self._fan:
                break
            del self._done[span]
            ready.append(span)
            width *= self._fan
        return ready
