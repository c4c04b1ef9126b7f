"""Whether a delimited file uses quotes: decided by the whole file, before its first row is taken.

Read with quotes, an unclosed quote swallows the rows after it; read without, a quoted field breaks
into pieces. Both readings are tried. One that fits the header's columns where the other does not is
evidence. With evidence for both, the file is read with quotes and its bad lines are named. With
none, CSV uses quotes (RFC 4180) and TSV does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparcom.corpus.reading.formats.delimited import Record, records
from sparcom.corpus.reading.formats.lines import Lines


@dataclass
class _Evidence:
    """quoted: a record that fits only with quotes. literal: a line that fits only without.

    ambiguous: the first record of several lines of which each fits by itself, without quotes.
    """

    quoted: bool = False
    literal: bool = False
    ambiguous: Record | None = None


def uses_quotes(open_lines: Callable[[], Lines], delimiter: str) -> bool:
    """True if a file is to be read with quotes.

    open_lines: gives the lines from the first on.
    Raises ValueError if a quoted field may as well be several rows.
    """
    evidence = _gather(open_lines(), delimiter)
    if evidence.quoted:
        return True
    if evidence.literal:
        return not _fits_without(open_lines(), delimiter)
    if evidence.ambiguous is not None:
        first, last = evidence.ambiguous.first, evidence.ambiguous.last
        raise ValueError(
            f"lines {first} to {last} are one row if quotes enclose fields, and "
            f"{last - first + 1} rows if they do not; quote the header's names too, or save the "
            "rows as JSON lines"
        )
    return delimiter == ","


def _gather(lines: Lines, delimiter: str) -> _Evidence:
    """Evidence up to the first record of several lines that is not closed properly."""
    found, width = _Evidence(), 0
    for record in records(lines, delimiter, quotes=True):
        if record.broken or (record.lines and record.problem and not width):
            found.literal = True
            break
        if record.blank:
            continue
        if not width:
            width = len(record.fields)
            found.quoted = bool(record.lines)  # no name of a column has quotes of its own
        elif record.lines:
            _weigh(found, record, _fits(record.lines, delimiter, width), width)
    return found


def _weigh(found: _Evidence, record: Record, literally: bool, width: int) -> None:
    """Add what one record with quotes in it tells. literally: each of its lines fits by itself."""
    if record.problem is not None or len(record.fields) != width:
        found.literal |= literally
    elif not literally or (record.first == record.last and _doubled(record)):
        found.quoted = True
    elif record.last > record.first and found.ambiguous is None:
        found.ambiguous = record


def _doubled(record: Record) -> bool:
    return any('"' in value for value in record.fields)


def _fits(lines: Sequence[str], delimiter: str, width: int) -> bool:
    return all(line.count(delimiter) == width - 1 for line in lines)


def _fits_without(lines: Lines, delimiter: str) -> bool:
    """True if every line has the header's columns without quotes, and none needs them."""
    width = 0
    for record in records(lines, delimiter, quotes=False):
        if record.blank:
            continue
        width = width or len(record.fields)
        if (
            record.problem is not None
            or len(record.fields) != width
            or any(
                len(value) > 2 and value[0] == value[-1] == '"' and '""' in value[1:-1]
                for value in record.fields
            )
        ):
            return False
    return True
