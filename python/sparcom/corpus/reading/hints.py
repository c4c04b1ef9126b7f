"""Advice for data sets that are well known, from the names of their fields."""

import shlex
from collections.abc import Mapping, Sequence

from sparcom.corpus.schema import missing_fields

_SETS = "--fill id={file}-{row} --fill category=CATEGORY"
_SHAPES = (
    ({"instruction", "context", "response", "category"}, "Dolly's",
     "--map input=context --map reference=response --fill id={file}-{row} --categories any"),
    ({"instruction", "input", "output"}, "Alpaca's", f"--map reference=output {_SETS}"),
    ({"instruction", "output"}, "Alpaca's", f"--map reference=output {_SETS}"),
    ({"messages"}, "OpenAI's chat", _SETS),
    ({"conversations"}, "ShareGPT's", _SETS),
    ({"prompt", "completion"}, "OpenAI's completion",
     f"--map instruction=prompt --map reference=completion {_SETS}"),
    ({"prompt", "response"}, "a prompt-and-response",
     f"--map instruction=prompt --map reference=response {_SETS}"),
    ({"question", "answer"}, "a question-and-answer",
     f"--map instruction=question --map reference=answer {_SETS}"),
    ({"inputs", "targets"}, "FLAN's", f"--map instruction=inputs --map reference=targets {_SETS}"),
)  # fmt: skip
_ALSO_CALLED = {
    "id": ("uid", "uuid", "key", "qid", "question_id", "task_id", "index", "idx"),
    "category": ("kind", "label", "type", "task", "topic", "subject", "class", "domain"),
    "instruction": ("prompt", "question", "query", "text", "request", "problem", "inputs", "user",
                    "goal", "content"),
}  # fmt: skip
"""Names that data sets give to a required field, the likeliest first."""
_FILLED = {"id": "--fill id={file}-{row}", "category": "--fill category=CATEGORY"}


def hint_for(
    row: object,
    record: object = None,
    categories: Sequence[str] | None = None,
    *,
    mapped: bool = False,
) -> str | None:
    """The flags that read rows with the fields of this one; None if no required field is missing,
    or if nothing is known of its fields.

    record: what was made of the row; None: the row itself is it. mapped: flags were given for it,
    and those that are missing are named. categories: the allowed ones; None: any.

    >>> hint_for({"instruction": "Add 2 and 3.", "output": "5"})
    "these are Alpaca's fields; try --map reference=output --fill id={file}-{row} ..."
    """
    made = row if record is None else record
    if not (isinstance(row, Mapping) and isinstance(made, Mapping)):
        return None
    missing = missing_fields(made)
    if not missing:
        return None
    found = set(map(str, row))
    if not mapped:
        for shape, whose, flags in _SHAPES:
            if shape <= found:
                given = [flag for flag in _flags(flags) if not _has(flag, found)]
                return f"these are {whose} fields; try {' '.join(given)}" if given else None
    for name in found if len(found) == 1 else ():
        for delimiter, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in name:
                return f"the columns seem to be separated by {what}; save the file with commas"
    line = " ".join(_flags_for(row, missing, categories))
    return f"{'add' if mapped else 'try'} {line}" if line else None


def _flags_for(row: Mapping, missing: Sequence[str], categories: Sequence[str] | None) -> list[str]:
    """Flags that give each missing field, by the names of the row's; none if no field of the row
    can be the instruction."""
    names = {str(name).lower(): str(name) for name in row if row[name] is not None}
    flags = []
    for field in missing:
        theirs = next((names[name] for name in _ALSO_CALLED[field] if name in names), None)
        if theirs is not None:
            flags.append(f"--map {field}={shlex.quote(theirs)}")
            if field == "category" and categories and row[theirs] not in categories:
                flags.append("--categories any")
        elif field == "instruction":
            return []
        else:
            flags.append(_FILLED[field])
    return flags


def _flags(text: str) -> list[str]:
    return [f"--{flag}" for flag in text.removeprefix("--").split(" --")]


def _has(flag: str, names: set[str]) -> bool:
    """True for a flag that sets a field which the rows have already."""
    return flag.startswith("--fill ") and flag.removeprefix("--fill ").partition("=")[0] in names
