"""Rows of CSV and TSV files, by the names of the header."""

from collections import Counter
from collections.abc import Callable, Iterator

from sparcom.corpus.reading.formats.delimited import Record, records
from sparcom.corpus.reading.formats.lines import Lines
from sparcom.corpus.reading.formats.quoting import uses_quotes
from sparcom.corpus.reading.formats.row import Row
from sparcom.errors import CountError


def delimited_rows(open_lines: Callable[[], Lines], delimiter: str) -> Iterator[Row]:
    """The rows of a file; a number is the line on which a row starts.

    open_lines: gives the lines from the first on.
    Raises ValueError if the header cannot be used, or if nothing says where a row ends.
    """
    quotes, lines, passed = uses_quotes(open_lines, delimiter), open_lines(), 0
    header: list[str] | None = None
    for record in records(lines, delimiter, quotes=quotes):
        if record.first != passed + 1:
            raise CountError(f"lines {passed + 1} to {record.first - 1} were read as no row")
        passed = record.last
        if record.broken:
            raise ValueError(_broken(record))
        if record.blank:
            continue
        if header is None:
            header = _header(record)
        elif record.problem is not None:
            yield record.first, None, record.problem
        elif len(record.fields) == len(header):
            yield record.first, dict(zip(header, record.fields, strict=True)), None
        else:
            n = len(record.fields)
            problem = f"{n} {'value' if n == 1 else 'values'}, but the header names {len(header)}"
            yield record.first, None, problem
    if passed != lines.number:
        raise CountError(f"{lines.number} lines were read, and {passed} of them belong to rows")


def _header(record: Record) -> list[str]:
    """The names of the columns; raises ValueError if they cannot be used."""
    if record.problem is not None:
        raise ValueError(f"its header: {record.problem}")
    ((name, n),) = Counter(record.fields).most_common(1)
    if n > 1:
        raise ValueError(f"its header names the column {name!r} twice")
    return record.fields


def _broken(record: Record) -> str:
    end = f", as line {record.last} shows" if record.last > record.first else ""
    return (
        f"line {record.first} has a quoted field that does not end properly{end}: "
        f"{record.problem}; the lines from {record.first} on are unread. Close the quote, or write "
        'a quote in the text as ""'
    )
