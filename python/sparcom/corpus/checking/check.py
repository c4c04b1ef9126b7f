"""What is wrong with a corpus: every bad row by file, row and field, in one pass."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.errors import InputError
from sparcom.formatting import shorten

_TICK = 1000


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found.

    rows: read; records: valid ones, by category. problems: the bad rows. notes: what is left
    aside on purpose. unused: allowed categories that no record has.
    unreadable: why the corpus as a whole cannot be read; None where it can.
    """

    corpus: str
    rows: int
    records: Counter[str]
    problems: ProblemLog
    notes: Counter[str]
    unused: tuple[str, ...]
    unreadable: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every row is an instruction, and there is one."""
        return not self.problems.count and self.unreadable is None

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "corpus": self.corpus,
            "ok": self.ok,
            "rows": self.rows,
            "records": dict(self.records),
            "problems": self.problems.count,
            "first_problems": [problem._asdict() for problem in self.problems.kept],
            "notes": dict(self.notes),
            "unused_categories": list(self.unused),
            "unreadable": self.unreadable,
        }

    def render(self) -> str:
        """A report for people: the problems first, the verdict last."""
        lines = [self.problems.render()] if self.problems.count else []
        if self.unreadable is not None:
            lines.append(self.unreadable)
        lines += [f"note: {n} {what}" for what, n in self.notes.items() if n]
        if self.unused and self.ok:
            lines.append(f"note: no record of category {', '.join(self.unused)}")
        parts = [f"{shorten(name, 30)} {n}" for name, n in islice(self.records.items(), 20)]
        if (more := len(self.records) - len(parts)) > 0:
            parts.append(f"and {more} more")
        verdict = "ok" if self.ok else f"{self.problems.count} bad rows"
        lines.append(
            f"{shorten(self.corpus, 200)}: {verdict}; {self.records.total()} of {self.rows} rows "
            f"are instructions ({', '.join(parts) or 'none'})"
        )
        return "\n".join(lines)


def check(corpus: Corpus, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Read a whole corpus and report what is wrong with it; nothing of it is kept in memory.

    progress: called with the number of good records so far, now and then.
    Raises InputError only if the corpus is missing (no such file, no network).
    """
    records: Counter[str] = Counter()
    unreadable = None
    try:
        for n, item in enumerate(corpus, 1):
            records[item.category] += 1
            if progress is not None and n % _TICK == 0:
                progress(n)
    except InputError as error:
        if not corpus.rows:
            raise
        unreadable = None if corpus.log.count else str(error)
    allowed = corpus.options.categories or ()
    return CheckReport(
        corpus=str(corpus.location),
        rows=corpus.rows,
        records=records,
        problems=corpus.log,
        notes=corpus.notes,
        unused=tuple(name for name in allowed if name not in records),
        unreadable=unreadable,
    )
