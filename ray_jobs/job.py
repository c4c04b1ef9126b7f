"""What the jobs share: the config, how a run is resumed, and the result as the last line."""

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, NoReturn

from sparcom.config import RunConfig
from sparcom.config_file import load_config
from sparcom.config_values import typed
from sparcom.errors import InputError, SparcomError


def read_config(text: str) -> tuple[RunConfig, argparse.Namespace]:
    """The config and the arguments of a job that has one of each."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="TOML config, as of `sparcom count`")
    add_session(parser)
    arguments = parser.parse_args()
    return load(arguments.config, arguments.set), arguments


def add_session(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what becomes of a run directory that exists."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="override a key of the config, its value as in TOML")  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--resume", action="store_true", help="finish what was stopped")
    what.add_argument("--overwrite", action="store_true", help="start again from nothing")
    parser.add_argument("--check", action="store_true",
                        help="with --resume: read every stored file to its end")  # fmt: skip


def session_arguments(arguments: argparse.Namespace) -> dict[str, bool]:
    return {name: getattr(arguments, name) for name in ("resume", "overwrite", "check")}


def load(path: str, changes: Sequence[str]) -> RunConfig:
    """A config with some keys overridden; the new values are TOML, or plain words."""
    config = load_config(path, {})
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: expected KEY=VALUE")
        config = _changed(config, key.strip().replace("-", "_"), value.strip())
    return config


def _changed(config: RunConfig, key: str, text: str) -> RunConfig:
    kinds = {field.name: field.type for field in fields(RunConfig)}
    if key not in kinds:
        raise InputError(f"--set {key}: no such key; known: {', '.join(kinds)}")
    value = typed(f"--set {key}", kinds[key], _value(text, kinds[key]))
    return replace(config, **{key: value})


def _value(text: str, kind: Any) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # a plain word
        return text
    words = str in getattr(kind, "__args__", (kind,)) and not isinstance(value, str)
    return text if words and kind != tuple[str, ...] else value


def run_job(main: Callable[[], int]) -> NoReturn:
    """Run a job and exit: 0 done, 1 failed, 2 wrong input; an error is one JSON line."""
    try:
        code = main()
    except SparcomError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        code = 2 if isinstance(error, InputError) else 1
    sys.exit(code)


def report(found: Any, *, failed: int) -> int:
    """Print the result as one JSON line, the last of the job's log; returns the exit code."""
    plain = asdict(found) if is_dataclass(found) else found
    print(json.dumps({"result": plain}), flush=True)
    return 1 if failed else 0
