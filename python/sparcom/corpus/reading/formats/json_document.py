"""Rows of a JSON file: a list of records, or an object that holds one in a shape that is known.

    [{...}, {...}]                                  a list of records
    {...} {...}                                     records one after another
    {"version": 1, "data": [{...}]}                 the only list of records in an object
    {"id": "a", "instruction": ...}                 one record
    {"id": ["a", "b"], "category": [...]}           lists of values (pandas: list)
    {"id": {"0": "a"}, "category": {"0": ...}}      pandas: columns
    {"0": {"id": "a", ...}, "1": {...}}             pandas: index
    {"columns": ["id", ...], "data": [["a", ...]]}  pandas: split
    {"schema": {...}, "data": [{...}]}              pandas: table

An object is read twice: once for its outline, which says what each field holds, and once for the
rows. What the outline leaves open is an error that names the shape and what to give.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sparcom.corpus.reading.chat import CHAT_FIELDS
from sparcom.corpus.reading.formats.json_shapes import (
    ADVICE,
    KNOWN,
    column_rows,
    listed,
    rows_of_objects,
    split_rows,
)
from sparcom.corpus.reading.formats.json_stream import JsonStream
from sparcom.corpus.reading.formats.row import Row
from sparcom.formatting import shorten


@dataclass
class Field:
    """What one field of the document holds.

    kind: "text", "value", "list of objects" (some are), "list of lists", "list of values" (also the
        empty list), "object of objects", "object".
    size: how many items. names: of the fields of the first object in a list, or of the object.
    """

    kind: str
    size: int = 0
    names: list[str] = field(default_factory=list)


def json_document_rows(open_stream: Callable[[], JsonStream], records: str | None) -> Iterator[Row]:
    """The rows of a JSON file; their numbers count from 1.

    records: the field of the document that holds them; None finds it.
    Raises ValueError if the file is not JSON, or does not say which of its parts are the records.
    """
    stream = open_stream()
    if stream.take("["):
        if records is not None:
            raise ValueError(f"--records {records}: the file is a list, not an object with fields")
        yield from _numbered(stream, stream.items())
        _check_end(stream)
        return
    if not stream.take("{"):
        raise ValueError(f"expected a list of records or an object that holds one; {ADVICE}")
    outline = _outline(stream)
    if stream.peek():
        yield from _sequence(open_stream(), records)
        return
    yield from _Document(open_stream, outline).rows(records)


def _numbered(stream: JsonStream, items: Iterator[object]) -> Iterator[Row]:
    for number, item in enumerate(items, 1):
        problem = stream.take_problem()
        yield number, (None if problem else item), problem


def _sequence(stream: JsonStream, records: str | None) -> Iterator[Row]:
    """Objects one after another, each a record."""
    if records is not None:
        raise ValueError(f"--records {records}: the file is a sequence of objects, not one object")

    def values() -> Iterator[object]:
        while stream.peek():
            yield stream.value()

    yield from _numbered(stream, values())


def _check_end(stream: JsonStream) -> None:
    if stream.peek():
        raise ValueError(f"more text follows the list of records, at {stream.place()}")


def _outline(stream: JsonStream) -> dict[str, Field]:
    """What each field of an object holds; its brace was taken. No value is kept."""
    found: dict[str, Field] = {}
    for name in stream.members():
        if name in found:
            raise ValueError(f"the field {shorten(name, 60)!r} comes twice ({stream.place()})")
        if stream.take("["):
            found[name] = _list_field(stream)
        else:
            found[name] = _value_field(stream.value())
    stream.take_problem()  # of values; the second reading names the rows
    return found


def _list_field(stream: JsonStream) -> Field:
    kinds: set[str] = set()
    result = Field("list of values")
    for item in stream.items():
        kinds.add(_kind(item))
        if not result.names and isinstance(item, dict):
            result.names = list(item)
        result.size += 1
    if "object" in kinds:  # one bad item does not make it another shape
        result.kind = "list of objects"
    elif kinds == {"list"}:
        result.kind = "list of lists"
    return result


def _kind(item: object) -> str:
    return "object" if isinstance(item, dict) else "list" if isinstance(item, list) else "value"


def _value_field(value: object) -> Field:
    if not isinstance(value, dict):
        return Field("text" if isinstance(value, str) else "value")
    nested = bool(value) and all(isinstance(inner, dict) for inner in value.values())
    return Field("object of objects" if nested else "object", len(value), list(value))


class _Document:
    """A document of one object, whose outline is known."""

    def __init__(self, open_stream: Callable[[], JsonStream], outline: dict[str, Field]) -> None:
        self._open, self._outline = open_stream, outline

    def rows(self, records: str | None) -> Iterator[Row]:
        """The rows of the shape that the outline has."""
        if records is not None:
            return self._of_field(records)
        lists = [name for name, f in self._outline.items() if f.kind == "list of objects"]
        if self._is_record():
            return self._one_record()
        if self._is_split():
            return self._split_rows()
        if self._is_columns_of_lists(lists):
            return column_rows(self._whole())
        if len(lists) == 1:
            return self._of_field(lists[0])
        if len(lists) > 1:
            raise ValueError(
                f"an object with several lists of records ({listed(lists)}); choose one with "
                f"--records, as in --records {shorten(lists[0], 40)}"
            )
        if self._outline and all(f.kind.startswith("object") for f in self._outline.values()):
            return rows_of_objects(self._whole(), None)
        raise ValueError(
            f"expected a list of records; this is an object with the fields "
            f"{listed(self._outline)}, and none of them holds records in a shape that is known; "
            f"choose one with --records FIELD, {ADVICE}"
        )

    def _is_record(self) -> bool:
        """True for one record: only values, text as its instruction, or a chat of its own."""
        outline = self._outline
        kinds = {found.kind for found in outline.values()}
        if kinds and kinds <= {"text", "value"}:
            return True
        if "instruction" in outline and outline["instruction"].kind == "text":
            return True
        return any(
            name in outline and {"role", "from"} & set(outline[name].names) for name in CHAT_FIELDS
        )

    def _is_split(self) -> bool:
        columns, data = self._outline.get("columns"), self._outline.get("data")
        return (
            columns is not None and columns.kind == "list of values" and columns.size > 0
            and data is not None and data.kind == "list of lists"
        )  # fmt: skip

    def _is_columns_of_lists(self, lists: Sequence[str]) -> bool:
        """True if every field is a list, all of one length, and not each of them of records."""
        fields = self._outline.values()
        if not fields or not all(f.kind.startswith("list") for f in fields):
            return False
        if len({f.size for f in fields}) > 1 or len(lists) == len(fields):
            return False
        return not lists or bool(KNOWN & set(self._outline))

    def _at(self, name: str) -> JsonStream:
        """A stream that stands before the value of a field."""
        stream = self._open()
        stream.take("{")
        for found in stream.members():
            if found == name:
                break
            stream.value() if not stream.take("[") else _drain(stream)
        stream.take_problem()
        return stream

    def _of_field(self, name: str) -> Iterator[Row]:
        if name not in self._outline:
            raise ValueError(
                f"--records {shorten(name, 40)}: the file has no such field (fields here: "
                f"{listed(self._outline)})"
            )
        stream, kind = self._at(name), self._outline[name].kind
        if kind.startswith("list"):
            stream.take("[")
            yield from _counted(_numbered(stream, stream.items()), self._outline[name].size)
            return
        value = stream.value()
        if problem := stream.take_problem():
            raise ValueError(problem)
        if isinstance(value, Mapping) and value:
            if all(isinstance(inner, list) for inner in value.values()):
                yield from column_rows(value)
                return
            if kind == "object of objects":
                yield from rows_of_objects(value, name)
                return
        raise ValueError(
            f"--records {shorten(name, 40)}: expected a list of records, got {kind}; {ADVICE}"
        )

    def _one_record(self) -> Iterator[Row]:
        stream = self._open()
        record = stream.value()
        problem = stream.take_problem()
        yield 1, (None if problem else record), problem

    def _split_rows(self) -> Iterator[Row]:
        columns = self._at("columns").value()
        stream, size = self._at("data"), self._outline["data"].size
        stream.take("[")
        return split_rows(columns, _counted(_numbered(stream, stream.items()), size))

    def _whole(self) -> Mapping[str, Any]:
        stream = self._open()
        document = cast(dict[str, Any], stream.value())
        if problem := stream.take_problem():
            raise ValueError(problem)
        return document


def _drain(stream: JsonStream) -> None:
    for _ in stream.items():
        pass


def _counted(rows: Iterator[Row], size: int) -> Iterator[Row]:
    """The rows, checked to be as many as the outline counted."""
    found = 0
    for row in rows:
        found += 1
        yield row
    if found != size:
        raise ValueError(f"{size} records were found at first, then {found}; did it change?")
