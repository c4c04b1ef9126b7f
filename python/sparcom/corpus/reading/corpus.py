"""A corpus of any size: files, folders of files, and `hub:` data sets, read row by row.

Every row is checked as it streams by. Problems are collected with file, line and field, so one
reading names all of a corpus's problems (up to a limit) and passes over none: each row that was
read is either an instruction or a problem. Memory holds one row at a time and a 16-byte digest of
each id, but no text.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sparcom.corpus.reading import hub
from sparcom.corpus.reading.fields import FieldMap, numbers_as_text
from sparcom.corpus.reading.files import corpus_files, other_data
from sparcom.corpus.reading.formats.row import Row
from sparcom.corpus.reading.guard import UnreadableError
from sparcom.corpus.reading.hints import hint_for
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.reading.rows import read_rows, unit_of
from sparcom.corpus.schema import CATEGORIES, Instruction, problem_of, to_instruction
from sparcom.errors import CountError, InputError
from sparcom.formatting import shorten

ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """How a corpus is read.

    categories: the allowed categories; None allows any.
    fields: where the fields of a record come from.
    on_error: "stop" names every bad row, then fails; "skip" leaves bad rows out and logs them.
    limit: keep the first `limit` instructions of each category; None keeps all.
    records: the field of a JSON object that holds the records; None finds it.
    """

    categories: Sequence[str] | None = CATEGORIES
    _: KW_ONLY
    fields: FieldMap = field(default_factory=FieldMap)
    on_error: str = "stop"
    limit: int | None = None
    records: str | None = None

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
    log: the problems of the last reading. rows: how many rows it read. bad_rows: how many of them
        were bad. unreadable: how many files it could not read to their end. notes: what it left out
        on purpose, or read in another form.

    >>> for instruction in Corpus("corpus.jsonl"):
    ...     print(instruction.id)

    Iterating raises InputError at once if the location cannot be read; after the last good row if
    rows or files were bad and `on_error` is "stop"; and if no row was good.
    """

    location: str | Path
    options: ReadOptions = field(default_factory=ReadOptions)
    log: ProblemLog = field(default_factory=ProblemLog)
    rows: int = 0
    bad_rows: int = 0
    unreadable: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Instruction]:
        self._start()
        seen = _SeenIds()
        taken: Counter[str] = Counter()
        for source in self._sources():
            try:
                for number, row, problem in source.rows:
                    self.rows += 1
                    record, problem = self._record(source, number, row, problem)
                    if problem is None and (first := seen.add(record["id"], source, number)):
                        problem = f"field 'id' repeats {shorten(record['id'], 60)!r} of {first}"
                    if problem is not None:
                        self.bad_rows += 1
                        if not taken and self.log.hint is None:  # a good row needs no flags
                            self.log.hint = self._hint(row, record)
                        self.log.add(source.place(number), problem)
                        continue
                    taken[record["category"]] += 1
                    if self._within_limit(taken[record["category"]]):
                        yield to_instruction(record)
            except UnreadableError as error:
                self.unreadable += 1
                self.log.add(*error.problem)
        self._finish(taken.total())

    def _start(self) -> None:
        self.rows = self.bad_rows = self.unreadable = 0
        self.log.clear()
        self.notes.clear()

    def _record(
        self, source: "_Source", number: int, row: object, problem: str | None
    ) -> tuple[Any, str | None]:
        """The record of a row, and what is wrong with it."""
        if problem is not None:
            return {}, problem
        fields, categories = self.options.fields, self.options.categories
        record, problem = fields.record(row, source.stem, number, self.notes)
        if problem is None and (problem := problem_of(record, categories, row)):
            as_text = numbers_as_text(record, self.notes)
            if as_text is not None:
                record, problem = as_text, problem_of(as_text, categories, row)
        return record, problem

    def _hint(self, row: object, record: object) -> str | None:
        """The flags that would make a good record of a bad row."""
        if not isinstance(record, Mapping):
            return None
        fields = self.options.fields
        mapped = bool(fields.takes or fields.fills)
        return hint_for(row, record, self.options.categories, mapped=mapped)

    def _within_limit(self, n: int) -> bool:
        return self.options.limit is None or n <= self.options.limit

    def _finish(self, good: int) -> None:
        """Check that every row was accounted for, and raise InputError for what was bad."""
        if good + self.bad_rows != self.rows:
            raise CountError(
                f"corpus {self.location}: {self.rows} rows were read, but {good} became "
                f"instructions and {self.bad_rows} were bad"
            )
        if self.log.count and (self.options.on_error == "stop" or not good):
            raise self.log.error()
        if not good:
            raise InputError(f"corpus {shorten(str(self.location), 200)}: no instructions in it")

    def files(self) -> list[Path]:
        """The files that are read; none for a data set of the hub."""
        return [] if hub.is_hub(self.location) else corpus_files(self.location)

    def _sources(self) -> Iterator["_Source"]:
        if hub.is_hub(self.location):
            data = hub.parse_hub(str(self.location))
            yield _Source(str(self.location), data.name, "row ", hub.read_rows(data))
            return
        files = self.files()
        if others := other_data(self.location):
            shown = ", ".join(shorten(name, 40) for name in others[:3])
            self.notes[f"files of other formats in the folder not read ({shown})"] = len(others)
        for file in files:
            rows = read_rows(file, self.options.records)
            yield _Source(str(file), file.name.split(".")[0], unit_of(file), rows)


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
