"""Tables in JSON that are no lists of records: by column, by row name, or beside their names."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sparcom.corpus.reading.chat import CHAT_FIELDS
from sparcom.corpus.reading.formats.row import Row
from sparcom.corpus.schema import FIELDS
from sparcom.formatting import shorten

ADVICE = "or write the records as JSON lines, one object on each line"
KNOWN = frozenset((*FIELDS, *CHAT_FIELDS))


def split_rows(columns: Any, rows: Iterator[Row]) -> Iterator[Row]:
    """Rows of values with the names of their columns. columns: a list of names."""
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise ValueError("a name comes twice in the list 'columns'")
    for number, values, problem in rows:
        if problem is None and not isinstance(values, list):
            problem = "expected a list of values"
        if problem is None and isinstance(values, list):
            if len(values) == len(names):
                yield number, dict(zip(names, values, strict=True)), None
                continue
            problem = f"{len(values)} values, but 'columns' names {len(names)}"
        yield number, None, problem


def column_rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    """Rows of an object of lists."""
    sizes = {len(values) for values in columns.values()}
    if len(sizes) > 1:
        raise ValueError(f"the lists of {listed(columns)} are not of one length")
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield number, dict(zip(columns, values, strict=True)), None


def rows_of_objects(document: Mapping[str, Mapping[str, Any]], name: str | None) -> Iterator[Row]:
    """Rows of an object of objects: by column, or by row."""
    first = next(iter(document.values()))
    outer, inner = set(document), set(first)
    by_column = _all_numbers(inner) and not _all_numbers(outer)
    by_row = _all_numbers(outer) and not _all_numbers(inner)
    if not (by_column or by_row):
        by_column = bool(KNOWN & outer) and not KNOWN & inner
        by_row = bool(KNOWN & inner) and not KNOWN & outer
    if by_row and not all(isinstance(value, list) for value in first.values()):
        for number, record in enumerate(document.values(), 1):
            yield number, record, None
    elif by_column:
        if any(set(column) != inner for column in document.values()):
            raise ValueError(f"the columns {listed(document)} do not have the same rows")
        for number, key in enumerate(first, 1):
            yield number, {column: values[key] for column, values in document.items()}, None
    else:
        which = "" if name is None else f"the field {name!r} is "
        raise ValueError(
            f"{which}an object of objects ({listed(document)}), which may be rows, columns or "
            f"parts of a data set; choose a part with --records FIELD, {ADVICE}"
        )


def _all_numbers(names: set[str]) -> bool:
    return all(name.isdecimal() for name in names)


def listed(names: Collection[str]) -> str:
    shown = ", ".join(shorten(str(name), 40) for name in list(names)[:8])
    return shown + (", ..." if len(names) > 8 else "") or "none"
