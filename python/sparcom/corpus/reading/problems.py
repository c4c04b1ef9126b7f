"""What is wrong with a corpus, row by row: counted, kept up to a limit, written out in full."""

import json
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

from sparcom.errors import InputError
from sparcom.formatting import printable

PROBLEM_LIMIT = 20


class Problem(NamedTuple):
    """One bad row: where it stands (file and line or row), and what is wrong with it."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{printable(self.place)}: {printable(self.text)}"


@dataclass
class ProblemLog:
    """The problems of one reading.

    limit: how many are kept in `kept`; all are counted, so a corpus of bad rows takes no memory.
    sink: an open text file that takes every problem as one JSON line, without a limit.
    """

    limit: int = PROBLEM_LIMIT
    sink: TextIO | None = None
    kept: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, text: str) -> None:
        """Record one problem."""
        self.count += 1
        if len(self.kept) < self.limit:
            self.kept.append(Problem(place, text))
        if self.sink is not None:
            self.sink.write(json.dumps({"place": place, "problem": text}) + "\n")

    def render(self) -> str:
        """One line per kept problem, and how many more there are."""
        more = self.count - len(self.kept)
        lines = [str(problem) for problem in self.kept]
        return "\n".join([*lines, f"... and {more} more"] if more else lines)

    def error(self) -> InputError:
        """All of them as one error."""
        return InputError(self.render())
