"""What `Model.count` takes: strings, chats, instructions or a table, as instructions."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from sparcom.corpus.schema import FIELDS, Instruction
from sparcom.errors import InputError

Chat = Sequence[Mapping[str, str]]
Inputs: TypeAlias = Any
"""A string, a sequence of strings, Instructions or chats, an Arrow table or a pandas DataFrame."""

_EXPECTED = (
    "expected a string, a list of strings, of chats or of Instructions, or a DataFrame or Arrow "
    "table with a column 'instruction'"
)


def to_instructions(inputs: Inputs) -> tuple[list[Instruction], list[str | None]]:
    """(instructions, the system prompt of each or None).

    Strings and chats get their position as id ("0", "1", ...) and the category "". A chat is
    `[system, ]user[, assistant]`: the answer becomes the reference. A table may have any column of
    the instruction schema; other columns are left aside.
    Raises InputError for anything else, an empty text, or an id that comes twice.
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    if isinstance(inputs, pa.Table):
        items: list[Any] = [_record(row, at) for at, row in enumerate(inputs.to_pylist())]
    elif hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        rows = inputs.to_dict("records")
        items = [_record(row, at) for at, row in enumerate(rows)]
    elif isinstance(inputs, Sequence):
        items = list(inputs)
    else:
        raise InputError(f"count: {_EXPECTED}; got {type(inputs).__name__}")
    pairs = [_instruction(item, at) for at, item in enumerate(items)]
    _check_ids([instruction for instruction, _ in pairs])
    return [instruction for instruction, _ in pairs], [system for _, system in pairs]


def _instruction(item: Any, at: int) -> tuple[Instruction, str | None]:
    if isinstance(item, Instruction):
        instruction, system = item, None
    elif isinstance(item, str):
        instruction, system = Instruction(str(at), "", instruction=item), None
    elif isinstance(item, Sequence) and item and all(isinstance(m, Mapping) for m in item):
        instruction, system = _chat(item, at)
    else:
        raise InputError(f"count: item {at}: {_EXPECTED}; got {type(item).__name__}")
    if not instruction.instruction.strip():
        raise InputError(f"count: item {at}: its instruction is blank")
    return instruction, system


def _chat(turns: Chat, at: int) -> tuple[Instruction, str | None]:
    roles = [turn.get("role") for turn in turns]
    texts: list[Any] = [turn.get("content") for turn in turns]
    start = 1 if roles[:1] == ["system"] else 0
    if roles[start:] not in (["user"], ["user", "assistant"]):
        raise InputError(
            f"count: item {at}: expected a chat of one exchange ([system, ]user[, assistant]), got "
            f"the roles {', '.join(map(str, roles))}"
        )
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"count: item {at}: the content of every message must be text")
    user, *answer = texts[start:]
    reference = answer[0] if answer else ""
    instruction = Instruction(str(at), "", instruction=user, reference=reference)
    return instruction, texts[0] if start else None


def _record(row: Mapping[str, Any], at: int) -> Instruction:
    if not isinstance(row.get("instruction"), str):
        raise InputError(
            f"count: row {at}: the column 'instruction' must hold text, got "
            f"{row.get('instruction')!r} (columns: {', '.join(map(str, row))})"
        )
    given = {name: row[name] for name in FIELDS if isinstance(row.get(name), str)}
    return Instruction(**{"id": str(row.get("id", at)), "category": "", **given})


def _check_ids(instructions: Sequence[Instruction]) -> None:
    seen: set[str] = set()
    for instruction in instructions:
        if instruction.id in seen:
            raise InputError(f"count: the id {instruction.id!r} comes twice; each must be unique")
        seen.add(instruction.id)
