"""What is wrong with a corpus, row by row: counted, kept up to a limit, written out in full."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sparcom.errors import InputError
from sparcom.formatting import shorten

PROBLEM_LIMIT = 20
_PLACE, _TEXT = 180, 300  # characters shown: a line of a report stays below 500


class Problem(NamedTuple):
    """What is wrong with one row, file or prompt, and where (file and line or row)."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{shorten(self.place, _PLACE)}: {shorten(self.text, _TEXT)}"


class BadRowsError(InputError):
    """Bad rows, files or prompts; the text names them, one a line."""


@dataclass
class ProblemLog:
    """The problems of one reading.

    limit: how many are kept in `kept`. All are counted, but a corpus of bad rows takes no memory.
    sink: called with every problem as one JSON line, without a limit.
    hint: advice that concerns many of the problems; shown once.
    """

    limit: int = PROBLEM_LIMIT
    sink: Callable[[str], object] | None = None
    kept: list[Problem] = field(default_factory=list)
    count: int = 0
    hint: str | None = None

    def add(self, place: str, text: str) -> None:
        """Record one problem."""
        self.count += 1
        if len(self.kept) < self.limit:
            self.kept.append(Problem(place, text))
        if self.sink is not None:
            self.sink(json.dumps({"place": place, "problem": text}) + "\n")

    def clear(self) -> None:
        """Forget all problems, before another reading."""
        self.kept.clear()
        self.count, self.hint = 0, None

    def render(self) -> str:
        """One line per kept problem, how many more there are, and the hint."""
        lines = [str(problem) for problem in self.kept]
        if more := self.count - len(self.kept):
            lines.append(f"... and {more} more")
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def error(self) -> BadRowsError:
        """All of them as one error."""
        return BadRowsError(self.render())
