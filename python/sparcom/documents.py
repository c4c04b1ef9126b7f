"""JSON and TOML documents that come from outside: read strictly, and checked against a schema.

A document is a manifest, a model's config or a run's config. Whatever is wrong with one becomes one
`InputError` that names it: bytes that are no text, nesting without end, a key that comes twice, a
value of another type than the schema says.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparcom.errors import InputError
from sparcom.formatting import shorten

Schema = Mapping[str, Any]
"""A JSON schema (draft 2020-12)."""


def read_document(path: str | Path, where: str) -> bytes:
    """The bytes of a file; raises InputError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{where}: cannot be read: {reason}") from error


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises InputError if it is no JSON, holds something else, a NaN, or a key twice in one object.
    """
    decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant).decode
    value = _parse(data, where, "JSON", decode)
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        raise InputError(f"{where}: expected a JSON object, got {kind}")
    return value


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """The table that a TOML text holds; raises InputError if it is no TOML."""
    table: dict[str, Any] = _parse(data, where, "TOML", tomllib.loads)
    return table


def _parse(data: bytes, where: str, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(data.decode("utf-8"))
    except RecursionError as error:
        raise InputError(f"{where}: not {kind}: it is nested too deeply") from error
    except ValueError as error:  # also of bytes that are not UTF-8, and of integers without end
        raise InputError(f"{where}: not {kind}: {shorten(str(error), 200)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, n in counts.items() if n > 1)
        raise ValueError(f"the key {shorten(twice, 60)!r} comes twice in one object")
    return found


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("NaN is no number")
    return float(name)  # configs of real models have infinite limits


def check_schema(value: Any, schema: Schema, where: str, hint: str) -> None:
    """Raise InputError, naming the key, if a value does not follow a schema.

    hint: what to do about it.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    if error is not None:
        key = ".".join(str(step) for step in error.absolute_path)
        place = f"{where}: {shorten(key, 80)}" if key else where
        raise InputError(f"{place}: {shorten(error.message, 200)}; {hint}")
