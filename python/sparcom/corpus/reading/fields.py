"""Field maps: how rows of another shape become records of our schema.

`instruction=prompt` takes a field of ours from a field of theirs; `reference=answers.text.0` goes
into objects and lists. A set value, `category=QA`, is the same for every row; `{row}` and `{file}`
in it stand for the row's number and its file's name. Rows in chat form (`messages`, or ShareGPT's
`conversations`) need no map (see `chat`).
"""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparcom.corpus.reading.chat import CHAT_FIELDS, first_exchange
from sparcom.corpus.schema import FIELDS, names_of
from sparcom.errors import InputError
from sparcom.formatting import shorten

MISSING = object()


@dataclass(frozen=True)
class FieldMap:
    """Where each field of a record comes from; an empty map takes rows as they are.

    takes: field of ours (or "messages") -> path of theirs, split at its dots.
    fills: field of ours -> text for every row.
    """

    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fills: Mapping[str, str] = field(default_factory=dict)

    def record(
        self, row: object, file: str, number: int, notes: Counter[str]
    ) -> tuple[object, str | None]:
        """`(record, problem)` of a row; `notes` counts what is left out on purpose."""
        if not isinstance(row, Mapping):
            return row, None
        chat = self._chat(row)
        if not (self.takes or self.fills or chat is not None):
            return row, None
        record = {name: row[name] for name in FIELDS if name in row}
        if chat is not None:
            turns, problem = first_exchange(chat, notes)
            if problem:
                return None, problem
            record |= turns
        for name, path in self.takes.items():
            if name == "messages":
                continue
            value = value_at(row, path)
            if value is MISSING:
                return None, (
                    f"field {'.'.join(path)!r}, mapped to {name!r}, is missing (fields here: "
                    f"{names_of(row)})"
                )
            record[name] = value
        for name, text in self.fills.items():
            record[name] = text.replace("{row}", str(number)).replace("{file}", file)
        return record, None

    def _chat(self, row: Mapping) -> object | None:
        if "messages" in self.takes:
            turns = value_at(row, self.takes["messages"])
            return () if turns is MISSING else turns
        if "instruction" in self.takes or "instruction" in row:
            return None
        return next((row[name] for name in CHAT_FIELDS if name in row), None)


def parse_fields(maps: Sequence[str] = (), fills: Sequence[str] = ()) -> FieldMap:
    """The field map of `--map OURS=THEIRS` and `--fill OURS=TEXT` arguments.

    >>> parse_fields(["instruction=prompt"], ["category=QA", "id=web-{row}"])

    Raises InputError for an argument of another form, an unknown field, or a field given twice.
    """
    takes = {ours: tuple(theirs.split(".")) for ours, theirs in _pairs("map", maps).items()}
    fixed = _pairs("fill", fills)
    if both := sorted(set(takes) & set(fixed)):
        raise InputError(f"fill: field {both[0]!r} is mapped too; give one of the two")
    return FieldMap(takes, fixed)


def _pairs(option: str, arguments: Sequence[str]) -> dict[str, str]:
    known = (*FIELDS, "messages") if option == "map" else FIELDS
    pairs: dict[str, str] = {}
    for argument in arguments:
        ours, equals, theirs = argument.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"{option}: expected FIELD=VALUE, got {shorten(argument, 60)!r}")
        if ours not in known:
            near = difflib.get_close_matches(ours, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{option}: the schema has no field {shorten(ours, 40)!r} (it has "
                f"{', '.join(known)}){hint}"
            )
        if ours in pairs:
            raise InputError(f"{option}: field {ours!r} is given twice")
        pairs[ours] = theirs
    return pairs


def numbers_as_text(record: object, notes: Counter[str]) -> dict[str, object] | None:
    """The record with the numbers in its fields as text; None if no field holds a number.

    Ids and labels are often numbers. `notes` counts the fields that were read so.
    """
    if not isinstance(record, Mapping):
        return None
    found = {name: str(record[name]) for name in FIELDS if _is_number(record.get(name))}
    for name in found:
        notes[f"rows whose number in the field {name!r} was read as text"] += 1
    return {**record, **found} if found else None


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def value_at(row: object, path: Sequence[str]) -> object:
    """The value at a path of names and list positions, or `MISSING`."""
    for step in path:
        if isinstance(row, Mapping) and step in row:
            row = row[step]
        elif isinstance(row, list) and step.isdecimal() and int(step) < len(row):
            row = row[int(step)]
        else:
            return MISSING
    return row
