"""What is wrong with a corpus: every bad row by file, row and field, in one pass."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.problems import BadRowsError, ProblemLog
from sparcom.formatting import shorten

_TICK = 1000


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found.

    rows: how many were read. records: valid ones, by category. problems: of rows and files.
    bad_rows: how many rows are bad. unreadable: how many files cannot be read to their end.
    notes: what was left out on purpose, or read in another form. unused: allowed categories that
    no record has.
    """

    corpus: str
    rows: int
    records: Counter[str]
    problems: ProblemLog
    bad_rows: int
    unreadable: int
    notes: Counter[str]
    unused: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if every row is an instruction, and there is one."""
        return not self.problems.count

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "corpus": self.corpus,
            "ok": self.ok,
            "rows": self.rows,
            "records": dict(self.records),
            "problems": self.problems.count,
            "bad_rows": self.bad_rows,
            "unreadable_files": self.unreadable,
            "first_problems": [problem._asdict() for problem in self.problems.kept],
            "hint": self.problems.hint,
            "notes": {what: n for what, n in self.notes.items() if n},
            "unused_categories": list(self.unused),
        }

    def render(self) -> str:
        """A report for people: the problems first, the verdict last."""
        lines = [self.problems.render()] if self.problems.count else []
        lines += [f"note: {n} {shorten(what, 200)}" for what, n in self.notes.items() if n]
        if self.unused and self.ok:
            lines.append(f"note: no record of category {', '.join(self.unused)}")
        parts = [f"{shorten(name, 30)} {n}" for name, n in islice(self.records.items(), 10)]
        if (more := len(self.records) - len(parts)) > 0:
            parts.append(f"and {more} more")
        lines.append(
            f"{shorten(self.corpus, 200)}: {self._verdict()}; {self.records.total()} of "
            f"{self.rows} rows are instructions ({', '.join(parts) or 'none'})"
        )
        return "\n".join(lines)

    def _verdict(self) -> str:
        found = [
            f"{n} {what}{'s' if n > 1 else ''}"
            for n, what in ((self.bad_rows, "bad row"), (self.unreadable, "unreadable file"))
            if n
        ]
        return " and ".join(found) or "ok"


def check(corpus: Corpus, progress: Callable[[int], None] | None = None) -> CheckReport:
    """Read a whole corpus and report what is wrong with it; none of its text stays in memory.

    progress: called with the number of good records so far, now and then.
    Raises InputError only if the corpus as a whole cannot be read (no such file, no network), or
    holds no row.
    """
    records: Counter[str] = Counter()
    try:
        for n, item in enumerate(corpus, 1):
            records[item.category] += 1
            if progress is not None and n % _TICK == 0:
                progress(n)
    except BadRowsError:
        pass  # the report names them
    allowed = corpus.options.categories or ()
    return CheckReport(
        corpus=str(corpus.location),
        rows=corpus.rows,
        records=records,
        problems=corpus.log,
        bad_rows=corpus.bad_rows,
        unreadable=corpus.unreadable,
        notes=corpus.notes,
        unused=tuple(name for name in allowed if name not in records),
    )
