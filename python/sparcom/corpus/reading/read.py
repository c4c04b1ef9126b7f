"""Reading a corpus of any size: files, folders of them, and `hub:` data sets, row by row.

Every row is validated as it streams by. What is wrong is collected with file, line and field, so
that one reading names all of a corpus's problems (up to a limit), and nothing is passed over in
silence. Memory holds one row at a time and a 16-byte digest of every id, no text.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from sparcom.corpus.reading import hub
from sparcom.corpus.reading.fields import FieldMap
from sparcom.corpus.reading.problems import PROBLEM_LIMIT, ProblemLog
from sparcom.corpus.reading.rows import SUFFIXES, Row, is_corpus_file, read_rows, suffix_of
from sparcom.corpus.schema import CATEGORIES, Instruction, problem_of, to_instruction
from sparcom.errors import InputError

ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """How a corpus is read.

    categories: the allowed ones; None allows any.
    fields: where the fields of a record come from.
    on_error: "stop" (every bad row is named, then the reading fails) or "skip" (they are left out
        and recorded in the log).
    """

    categories: Sequence[str] | None = CATEGORIES
    fields: FieldMap = field(default_factory=FieldMap)
    on_error: str = "stop"

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise InputError(f"on-error: expected {' or '.join(ON_ERROR)}, got {self.on_error!r}")


@dataclass
class Corpus:
    """A corpus argument, opened for one or several streams.

    location: a file, a folder of files, or hub:OWNER/NAME[:CONFIG][@SPLIT].
    log: the problems of the last stream; rows: how many rows it read; notes: what was left aside
        on purpose, such as later turns of a conversation.

    >>> for instruction in Corpus("corpus.jsonl"):
    ...     print(instruction.id)

    Iterating raises InputError: at once where the location cannot be read, at the end (after every
    good row) where rows were bad and `on_error` is "stop", or where no row was good.
    """

    location: str | Path
    options: ReadOptions = field(default_factory=ReadOptions)
    log: ProblemLog = field(default_factory=ProblemLog)
    rows: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Instruction]:
        seen = _SeenIds()
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
                if problem is None:
                    yield to_instruction(record)
                else:
                    self.log.add(source.place(number), problem)
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
    """One file or data set: its name in messages, its stem for `{file}`, and its rows."""

    name: str
    stem: str
    unit: str
    rows: Iterator[Row]

    def place(self, number: int) -> str:
        return f"{self.name}:{self.unit}{number}"


class _SeenIds:
    """Where every id was first seen, by digest: about 170 bytes an id, however long it is."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._places: dict[bytes, int] = {}

    def add(self, identifier: str, source: _Source, number: int) -> str | None:
        """Take an id; returns the place that had it before, or None."""
        if not self._sources or self._sources[-1] is not source:
            self._sources.append(source)
        digest = blake2b(identifier.encode("utf-8"), digest_size=16).digest()
        place = self._places.setdefault(digest, (number << 20) | (len(self._sources) - 1))
        first = self._sources[place & 0xFFFFF]
        if first is source and place >> 20 == number:
            return None
        return first.place(place >> 20)


def corpus_files(path: str | Path) -> list[Path]:
    """The corpus files at a path: the file itself, or those of a folder, sorted by name."""
    path = Path(path)
    if path.is_file():
        if not is_corpus_file(path):
            raise InputError(
                f"corpus {path}: expected {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
            )
        return [path]
    if not path.is_dir():
        raise InputError(
            f"corpus {path}: no such file or folder; give a {', '.join(SUFFIXES)} file, a folder "
            "of them, hub:OWNER/NAME, or the name 'hexainst'"
        )
    files = sorted(file for file in path.iterdir() if is_corpus_file(file) and file.is_file())
    if not files:
        raise InputError(f"corpus {path}: the folder holds no {', '.join(SUFFIXES)} file")
    return files


def read_corpus(
    path: str | Path,
    categories: Sequence[str] | None = CATEGORIES,
    *,
    options: ReadOptions | None = None,
    log: ProblemLog | None = None,
) -> list[Instruction]:
    """All instructions of a corpus that fits into memory, validated (see `Corpus`).

    categories: the allowed ones; None allows any. `options`, where given, says it instead.
    log: takes what `on_error="skip"` leaves out.
    Raises InputError that lists every bad row (at most `PROBLEM_LIMIT`) as file:row: what is wrong.
    """
    options = options or ReadOptions(categories)
    return list(Corpus(path, options, log or ProblemLog(PROBLEM_LIMIT)))
