"""The keys of `RunConfig` as flags."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from types import NoneType
from typing import Any

from sparcom.cli.renamed import add_renamed
from sparcom.config import RENAMED, RunConfig, flag
from sparcom.config_file import load_config
from sparcom.config_values import kinds_of, words_of


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for every key, in the groups of the config."""
    parser.add_argument("--config", help="TOML file with the keys below; flags override it")
    parser.add_argument("--resume", action="store_true", help="finish a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run")
    parser.add_argument(
        "--check",
        action="store_true",
        help="with --resume: read every stored file to its end, not its footer alone",
    )
    target: Any = parser
    for f in fields(RunConfig):
        if "group" in f.metadata:
            target = parser.add_argument_group(f.metadata["group"])
        add_field(target, f)
    for old, new in RENAMED.items():
        add_renamed(parser, flag(old), flag(new))


def add_field(target: Any, f: Any) -> None:
    """A flag for one config field; an absent one leaves no trace: the config's value stays."""
    text = f"vllm: {f.metadata['help']}" if f.metadata.get("vllm") else f.metadata["help"]
    if f.type is bool:
        target.add_argument(
            flag(f.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
            help=text,
        )  # fmt: skip
        return
    if f.type == tuple[str, ...]:
        target.add_argument(
            flag(f.name), action="append", default=argparse.SUPPRESS, metavar="OURS=X",
            help=f"{text} (may be given several times)",
        )  # fmt: skip
        return
    kind = next(k for k in kinds_of(f.type) if k is not NoneType)
    words = words_of(f.type)
    default = f" (default: {f.default})" if f.default is not None else ""
    target.add_argument(
        flag(f.name), type=_reader(kind, words), choices=f.metadata.get("choices"),
        default=argparse.SUPPRESS,
        metavar=None if f.metadata.get("choices") else "|".join((kind.__name__.upper(), *words)),
        help=text.replace("%", "%%") + default,
    )  # fmt: skip


def _reader(kind: type, words: tuple[str, ...]) -> Callable[[str], Any]:
    """What turns the text of a flag into a value: one of the words, or of the type."""

    def read(text: str) -> Any:
        return text if text in words else kind(text)

    read.__name__ = " or ".join((kind.__name__, *words))  # argparse names it in its errors
    return read


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """The config that the file and the flags give."""
    given = {f.name: getattr(arguments, f.name) for f in fields(RunConfig) if f.name in arguments}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return load_config(arguments.config, given)
