"""Advice for data sets that are well known, from the names of their fields."""

from collections.abc import Mapping

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


def hint_for(row: object) -> str | None:
    """The flags that read rows with the fields of this one; None if the shape is not known.

    >>> hint_for({"instruction": "Add 2 and 3.", "output": "5"})
    "these are Alpaca's fields; try --map reference=output --fill id={file}-{row} ..."
    """
    found = set(map(str, row)) if isinstance(row, Mapping) else set()
    for shape, whose, flags in _SHAPES:
        if shape <= found:
            given = [flag for flag in _flags(flags) if not _has(flag, found)]
            return f"these are {whose} fields; try {' '.join(given)}" if given else None
    for name in found if len(found) == 1 else ():
        for delimiter, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in name:
                return f"the columns seem to be separated by {what}; save the file with commas"
    return None


def _flags(text: str) -> list[str]:
    return [f"--{flag}" for flag in text.removeprefix("--").split(" --")]


def _has(flag: str, names: set[str]) -> bool:
    """True for a flag that sets a field which the rows have already."""
    return flag.startswith("--fill ") and flag.removeprefix("--fill ").partition("=")[0] in names
