"""Records of delimited text (CSV and TSV), with quotes (RFC 4180) or without.

With quotes, a field in double quotes may hold delimiters, line ends and doubled quotes. What RFC
4180 forbids (text after a closing quote, a quote inside an unquoted field, a quote that is never
closed) is a problem, because nothing says where such a field was meant to end. Without quotes, a
quote is a character as any other, and a record is a line.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sparcom.corpus.reading.formats.lines import MAX_ROW, Lines, decoded


@dataclass
class Record:
    """One record: the fields of the lines `first` to `last`, or why they cannot be read.

    lines: the text of the record's lines, if a quote is in them.
    broken: nothing says where the record ends, so the lines after it cannot be told either.
    """

    first: int
    last: int
    fields: list[str] = field(default_factory=list)
    problem: str | None = None
    broken: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def blank(self) -> bool:
        """True for an empty line."""
        return self.problem is None and self.fields == [""] and not self.lines


class _FieldError(ValueError):
    """A record that is not RFC 4180; the text says why."""

    def __init__(self, text: str, *, broken: bool = False) -> None:
        self.broken = broken
        super().__init__(text)


def records(lines: Lines, delimiter: str, *, quotes: bool) -> Iterator[Record]:
    """All records of a file, the header too; every line is part of exactly one."""
    for line in lines:
        text, problem = decoded(line)
        record = Record(lines.number, lines.number, problem=problem)
        if not (quotes and '"' in text):
            body = _body(text)
            if "\r" in body and problem is None:
                record.problem = "a carriage return inside the line; save it with plain line ends"
            record.fields = body.split(delimiter)
        else:
            record.lines.append(text)
            try:
                record.fields = list(_quoted_fields(record, lines, delimiter))
            except _FieldError as error:
                record.problem = str(error)
                record.broken = error.broken or lines.number > record.first
            record.last = lines.number
        yield record


def _body(text: str) -> str:
    """A line without its end."""
    return text.removesuffix("\n").removesuffix("\r")


def _quoted_fields(record: Record, lines: Lines, delimiter: str) -> Iterator[str]:
    """The fields of a record that starts with its only line; takes more lines as it needs them."""
    text, at = record.lines[0], 0
    while True:
        if text.startswith('"', at):
            value, text, at = _quoted_field(record, lines, at + 1)
            yield value
            rest = text[at:]
            if not _body(rest):
                return
            if not rest.startswith(delimiter):
                raise _FieldError(f"text follows the closing quote of a field: {_start(rest)}")
            at += len(delimiter)
            continue
        stop = text.find(delimiter, at)
        value = _body(text[at:]) if stop < 0 else text[at:stop]
        if '"' in value:
            raise _FieldError(f"a quote inside a field that is not quoted: {_start(value)}")
        if "\r" in value:
            raise _FieldError("a carriage return inside the line; save it with plain line ends")
        yield value
        if stop < 0:
            return
        at = stop + len(delimiter)


def _quoted_field(record: Record, lines: Lines, at: int) -> tuple[str, str, int]:
    """(value, line, position) after the closing quote of a field whose opening quote is passed."""
    text, pieces, size = record.lines[-1], [], 0
    while True:
        stop = text.find('"', at)
        if stop < 0:
            pieces.append(text[at:])
            size += len(text)
            line = next(lines, None)
            if line is None or size > MAX_ROW:
                raise _FieldError("the quote that opens here is never closed", broken=True)
            text, problem = decoded(line)
            record.problem = record.problem or problem
            record.lines.append(text)
            at = 0
        elif text.startswith('""', stop):
            pieces.append(text[at : stop + 1])
            at = stop + 2
        else:
            pieces.append(text[at:stop])
            return "".join(pieces), text, stop + 1


def _start(text: str) -> str:
    shown = repr(_body(text))
    return shown if len(shown) <= 40 else shown[:37] + "..."
