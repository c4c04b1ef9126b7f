"""The schema of an instruction, and what makes a record valid."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields

import pyarrow as pa

from sparcom.errors import InputError
from sparcom.formatting import shorten

CATEGORIES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")
"""The six categories of HexaInst (arXiv 2505.21191)."""

REQUIRED = frozenset(("id", "category", "instruction"))


@dataclass(frozen=True)
class Instruction:
    """One record of a corpus.

    id: unique in its corpus.
    category: what kind of instruction it is.
    source: who wrote it: "human", "ai", or any word of the user.
    origin: where it was taken from.
    license: licence of the text.
    instruction: the request; never blank.
    input: passage, code or other context; may be empty.
    reference: a reference answer; may be empty.
    cluster: the group of records it is alike with whatever their categories, such as a template;
        if empty, its origin says (`sparcom.clusters`).
    """

    id: str
    category: str
    _: KW_ONLY
    source: str = ""
    origin: str = ""
    license: str = ""
    instruction: str = ""
    input: str = ""
    reference: str = ""
    cluster: str = ""

    @property
    def text(self) -> str:
        """What the user says: the instruction; if there is input, a blank line and the input."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


FIELDS = tuple(field.name for field in fields(Instruction))
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in FIELDS])


def problem_of(
    record: object, categories: Sequence[str] | None = CATEGORIES, row: object = None
) -> str | None:
    """Why a record is not an instruction, naming the field; None if it is one.

    categories: the allowed ones; None allows any non-blank category.
    row: what the record was made of, if it is not the record; its fields are named.
    """
    if not isinstance(record, Mapping):
        return f"expected an object with the fields {', '.join(FIELDS)}, got {_short(record)}"
    if missing := missing_fields(record):
        named = f"field {missing[0]!r} is" if len(missing) == 1 else _fields_are(missing)
        return f"{named} missing (fields here: {names_of(row or record)})"
    for name in FIELDS:
        value = record.get(name)
        if isinstance(value, str):
            if name in REQUIRED and (not value or value.isspace()):
                return f"field {name!r} is blank"
            if not value.isascii() and (at := _lone_surrogate(value)) is not None:
                return f"field {name!r} is not valid Unicode: half a surrogate pair at {at}"
        elif value is not None:
            return f"field {name!r} must be text, got {_short(value)}"
    if categories is not None and record["category"] not in categories:
        near = difflib.get_close_matches(record["category"], categories, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return (
            f"field 'category' must be one of {', '.join(categories)}, got "
            f"{_short(record['category'])}{hint}"
        )
    return None


def missing_fields(record: Mapping) -> list[str]:
    """The required fields that a record does not have, in the order of the schema."""
    return [name for name in FIELDS if name in REQUIRED and record.get(name) is None]


def _fields_are(names: Sequence[str]) -> str:
    *first, last = map(repr, names)
    return f"fields {', '.join(first)} and {last} are"


def parse_categories(text: str) -> tuple[str, ...] | None:
    """The allowed categories of a `--categories A,B,C` argument; "any" allows every one.

    Raises InputError if a name is blank or repeated.
    """
    if text == "any":
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"categories: expected distinct names as A,B,C, or 'any', got {text!r}")
    return names


def to_instruction(record: Mapping) -> Instruction:
    """The instruction of a row that `problem_of` passed; other fields of the row are dropped."""
    return Instruction(**{name: record.get(name) or "" for name in FIELDS})


def to_table(instructions: Sequence[Instruction]) -> pa.Table:
    """Instructions as an Arrow table with the columns of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(item) for item in instructions], schema=SCHEMA)


def to_jsonl(instructions: Sequence[Instruction]) -> str:
    """Instructions as JSON lines, in the order of the schema's fields."""
    return "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in instructions)


def names_of(row: object) -> str:
    """The names of a row's fields, for messages: at most eight."""
    names = sorted(map(str, row)) if isinstance(row, Mapping) else []
    shown = ", ".join(shorten(name, 30) for name in names[:8])
    return (shown or "none") + (", ..." if len(names) > 8 else "")


def _short(value: object) -> str:
    return f"{type(value).__name__} {shorten(repr(value), 40)}"


def _lone_surrogate(text: str) -> int | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None
