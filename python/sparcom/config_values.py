"""The values of a config: of the type that a key has, and in its range."""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from sparcom.errors import InputError
from sparcom.formatting import shorten

LARGEST = (1 << 31) - 1
"""Of every whole number: torch, Ray and vLLM do not hold larger ones everywhere."""
TEXTS = tuple[str, ...]


def typed(where: str, kind: Any, value: Any) -> Any:
    """The value as the type of a config's field.

    A list becomes a tuple, a whole number a float if one is meant, a date of TOML its text. A field
    of type `int | Literal["auto"]` takes that word too.
    Raises InputError, naming `where`, if it is of another type.
    """
    if kind == TEXTS and isinstance(value, (list, tuple)):
        return tuple(typed(where, str, item) for item in value)
    words = words_of(kind)
    if type(value) is str and value in words:
        return value
    allowed = () if kind == TEXTS else kinds_of(kind)
    if float in allowed and type(value) is int and abs(value) <= LARGEST:
        return float(value)
    if str in allowed and type(value) is dt.date:
        return value.isoformat()
    if type(value) not in allowed:
        names = " or ".join((*(k.__name__ for k in allowed if k is not type(None)), *words))
        names = names or "list"
        shown = shorten(repr(value), 80)
        raise InputError(f"{where}: expected {names}, got {type(value).__name__} {shown}")
    return value


def kinds_of(kind: Any) -> tuple[type, ...]:
    """The types that a field's values have, words aside.

    >>> kinds_of(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    return tuple(k for k in getattr(kind, "__args__", (kind,)) if get_origin(k) is not Literal)


def words_of(kind: Any) -> tuple[str, ...]:
    """The words that a field takes in place of a value of its type."""
    parts = getattr(kind, "__args__", (kind,))
    return tuple(w for k in parts if get_origin(k) is Literal for w in get_args(k))


def check_value(where: str, kind: Any, metadata: Mapping[str, Any], value: Any) -> None:
    """Raise InputError, naming `where`, if a value is of another type or out of its range.

    metadata: of the field: `choices`, and `least`, the smallest allowed value.
    """
    typed(where, kind, value)
    if value is None or value in words_of(kind):
        return
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and not _is_text(text):
            raise InputError(f"{where}: expected text, got {shorten(repr(text), 80)}")
    choices, least = metadata.get("choices"), metadata.get("least")
    if choices and value not in choices:
        raise InputError(f"{where}: expected {', '.join(choices)}, got {shorten(repr(value), 80)}")
    if least is not None and not least <= value < math.inf:
        raise InputError(f"{where}: must be at least {least}, got {shorten(str(value), 40)}")
    if type(value) is int and value > LARGEST:
        raise InputError(f"{where}: must be at most {LARGEST}, got {shorten(str(value), 40)}")


def _is_text(text: str) -> bool:
    """True for text that files, paths and JSON hold: no NUL, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
