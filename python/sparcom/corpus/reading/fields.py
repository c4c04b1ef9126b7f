"""Field maps: how rows of another shape become records of our schema.

`instruction=prompt` takes a field of ours from a field of theirs; `reference=answers.text.0` goes
into objects and lists. A set value, `category=QA`, is the same for every row; `{row}` and `{file}`
in it stand for the row's number and its file's name. Rows in chat form (`messages`, or ShareGPT's
`conversations`) need no map: the first user turn is the instruction, the answer to it the
reference.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparcom.corpus.schema import FIELDS
from sparcom.errors import InputError

CHAT_FIELDS = ("messages", "conversations")
MISSING = object()
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class FieldMap:
    """Where each field of a record comes from; an empty map takes rows as they are.

    takes: field of ours (or "messages") -> path of theirs, split at its dots.
    sets: field of ours -> text for every row.
    """

    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)

    def record(
        self, row: object, file: str, number: int, notes: Counter[str]
    ) -> tuple[object, str | None]:
        """`(record, problem)` of a row; what is left aside on purpose is counted in `notes`."""
        if not isinstance(row, Mapping):
            return row, None
        chat = self._chat(row)
        if not (self.takes or self.sets or chat is not None):
            return row, None
        record = {name: row[name] for name in FIELDS if name in row}
        if chat is not None:
            turns, problem = _turns(chat, notes)
            if problem:
                return None, problem
            record |= turns
        for name, path in self.takes.items():
            if name == "messages":
                continue
            value = value_at(row, path)
            if value is MISSING:
                near = ", ".join(sorted(map(str, row))[:8]) or "none"
                return None, (
                    f"field {'.'.join(path)!r}, mapped to {name!r}, is missing (fields here: "
                    f"{near})"
                )
            record[name] = str(value) if type(value) in (int, float) else value
        for name, text in self.sets.items():
            record[name] = text.replace("{row}", str(number)).replace("{file}", file)
        return record, None

    def _chat(self, row: Mapping) -> object | None:
        if "messages" in self.takes:
            turns = value_at(row, self.takes["messages"])
            return () if turns is MISSING else turns
        if "instruction" in self.takes or "instruction" in row:
            return None
        return next((row[name] for name in CHAT_FIELDS if name in row), None)


def parse_fields(maps: Sequence[str] = (), sets: Sequence[str] = ()) -> FieldMap:
    """The field map of `--map OURS=THEIRS` and `--set OURS=TEXT` arguments.

    >>> parse_fields(["instruction=prompt"], ["category=QA", "id=web-{row}"])

    Raises InputError for an argument of another form, an unknown field, or one given twice.
    """
    takes = {ours: tuple(theirs.split(".")) for ours, theirs in _pairs("map", maps).items()}
    fixed = _pairs("set", sets)
    if both := sorted(set(takes) & set(fixed)):
        raise InputError(f"set: field {both[0]!r} is mapped too; give one of the two")
    return FieldMap(takes, fixed)


def _pairs(option: str, arguments: Sequence[str]) -> dict[str, str]:
    known = (*FIELDS, "messages") if option == "map" else FIELDS
    pairs: dict[str, str] = {}
    for argument in arguments:
        ours, equals, theirs = argument.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"{option}: expected FIELD=VALUE, got {argument!r}")
        if ours not in known:
            near = difflib.get_close_matches(ours, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{option}: the schema has no field {ours!r} (it has {', '.join(known)}){hint}"
            )
        if ours in pairs:
            raise InputError(f"{option}: field {ours!r} is given twice")
        pairs[ours] = theirs
    return pairs


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


def _turns(chat: object, notes: Counter[str]) -> tuple[dict[str, str], str | None]:
    """The first exchange of a conversation as `instruction` and `reference`, or a problem."""
    if not isinstance(chat, list | tuple) or not all(isinstance(turn, Mapping) for turn in chat):
        return {}, "the chat messages must be a list of objects with role and content"
    turns = []
    for turn in chat:
        role = turn.get("role", turn.get("from"))
        text = _content(turn.get("content", turn.get("value")))
        if not isinstance(role, str) or text is None:
            return {}, "a chat message must have a role, and content that is text"
        turns.append((_ROLES.get(role, role), text))
    notes["system messages not used (give --system)"] += any(r == "system" for r, _ in turns)
    asked = next((at for at, (role, _) in enumerate(turns) if role == "user"), None)
    if asked is None:
        return {}, "the chat messages hold no user turn"
    record = {"instruction": turns[asked][1]}
    if asked + 1 < len(turns) and turns[asked + 1][0] == "assistant":
        record["reference"] = turns[asked + 1][1]
    later = any(role == "user" for role, _ in turns[asked + 1 :])
    notes["conversations cut to their first turn"] += later
    return record, None


def _content(content: object) -> str | None:
    """Text of a message: a string, or a list of text parts; None where it is anything else."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        return "".join(parts) if parts and all(isinstance(p, str) for p in parts) else None
    return content if isinstance(content, str) else None
