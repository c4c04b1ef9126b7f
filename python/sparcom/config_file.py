"""A config from a TOML file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparcom.config import RENAMED, RunConfig, typed_value
from sparcom.documents import parse_toml, read_document
from sparcom.errors import InputError
from sparcom.formatting import shorten


def load_config(path: str | Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """A config from a TOML file (None: the defaults) and overriding values.

    Raises InputError for a missing file, bad TOML, an unknown key (naming the nearest one), a key
    that comes twice, or a value of the wrong type.
    """
    if path is None:
        return RunConfig(**overrides)
    where = f"config {shorten(str(path), 200)}"
    values = config_values(parse_toml(read_document(path, where), where), where)
    return replace(RunConfig(**values), **overrides)


def config_values(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values that a TOML table gives to keys of a config, each of its type.

    Raises InputError, naming `where`, as `load_config`.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in RENAMED:
            raise InputError(f"{where}: {key!r} is now called {RENAMED[name]!r}")
        if name in values:
            raise InputError(f"{where}: {name!r} comes twice, with - and with _; leave one out")
        values[name] = typed_value(name, value, where)
    return values
