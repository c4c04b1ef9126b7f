"""A corpus of any size: files, folders of files, and `hub:` data sets, read row by row.

Every row is checked as it streams by. Problems are collected with file, line and field, so one
reading names all of a corpus's problems (up to a limit) and passes over none. Memory holds one row
at a time and a 16-byte digest of each id, but no text.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from sparcom.corpus.reading import hub
from sparcom.corpus.reading.fields import FieldMap
from sparcom.corpus.reading.files import corpus_files, suffix_of
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.reading.rows import Row, read_rows
from sparcom.corpus.schema import CATEGORIES, Instruction, problem_of, to_instruction
from sparcom.errors import InputError

ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """How a corpus is read.

    categories: the allowed categories; None allows any.
    fields: where the fields of a record come from.
    on_error: "stop" names every bad row, then fails; "skip" leaves bad rows out and logs them.
    limit: keep the first `limit` instructions of each category; None keeps all.
    """

    categories: Sequence[str] | None = CATEGORIES
    fields: FieldMap = field(default_factory=FieldMap)
    on_error: str = "stop"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise InputError(f"on-error: expected {' or '.join(ON_ERROR)}, got {self.on_error!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(
                f"limit: must be at least 1 instruction per category, got {self.limit}"
            )


@dataclass
class Corpus:
    """A corpus that can be read once or several times.

    location: a file, a folder of files, or hub:OWNER/NAME[:CONFIG][@SPLIT].
    log: the problems of the last reading. rows: how many rows it read. notes: what it left out on
        purpose, such as later turns of a conversation.

    >>> for instruction in Corpus("corpus.jsonl"):
    ...     print(instruction.id)

    Iterating raises InputError at once if the location cannot be read; after the last good row if
    rows were bad and `on_error` is "stop"; and if no row was good.
    """

    location: str | Path
    options: ReadOptions = field(default_factory=ReadOptions)
    log: ProblemLog = field(default_factory=ProblemLog)
    rows: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Instruction]:
        seen = _SeenIds()
        taken: Counter[str] = Counter()
        categories = self.options.categories
        for source in self._sources():
            for number, row, problem in source.rows:
                self.rows += 1
                if problem is None:
                    record, problem = self.options.fields.record(
                        row, source.stem, number, self.notes
                    )
                problem = problem or problem_of(record, categories)
                if problem is None and (first := seen.add(record["id"], source, number)):
                    problem = f"field 'id' repeats {record['id']!r} of {first}"
                if problem is not None:
                    self.log.add(source.place(number), problem)
                    continue
                taken[record["category"]] += 1
                if self.options.limit is None or taken[record["category"]] <= self.options.limit:
                    yield to_instruction(record)
        good = self.rows - self.log.count
        if self.log.count and (self.options.on_error == "stop" or not good):
            raise self.log.error()
        if not good:
            raise InputError(f"corpus {self.location}: no instructions in it")

    def _sources(self) -> Iterator["_Source"]:
        self.rows, self.log.count = 0, 0
        self.log.kept.clear()
        self.notes.clear()
        if hub.is_hub(self.location):
            data = hub.parse_hub(str(self.location))
            yield _Source(str(self.location), data.name, "row ", hub.read_rows(data))
            return
        for file in corpus_files(self.location):
            unit = "" if suffix_of(file) in (".jsonl", ".csv", ".tsv") else "row "
            yield _Source(str(file), file.name.split(".")[0], unit, read_rows(file))


@dataclass(frozen=True)
class _Source:
    """One file or data set: its name in messages, its stem for `{file}`, its rows."""

    name: str
    stem: str
    unit: str
    rows: Iterator[Row]

    def place(self, number: int) -> str:
        return f"{self.name}:{self.unit}{number}"


class _SeenIds:
    """Where each id was first seen, by digest: about 170 bytes an id, however long it is."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._places: dict[bytes, int] = {}

    def add(self, identifier: str, source: _Source, number: int) -> str | None:
        """Record an id; returns the place where it was seen before, or None."""
        if not self._sources or self._sources[-1] is not source:
            self._sources.append(source)
        digest = blake2b(identifier.encode("utf-8"), digest_size=16).digest()
        place = self._places.setdefault(digest, (number << 20) | (len(self._sources) - 1))
        first = self._sources[place & 0xFFFFF]
        if first is source and place >> 20 == number:
            return None
        return first.place(place >> 20)
