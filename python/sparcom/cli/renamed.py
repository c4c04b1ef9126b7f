"""Flags of older versions: one error that says what to use now."""

import argparse
from typing import Any


class _Gone(argparse.Action):
    """Ends the command with a hint."""

    def __init__(self, *names: Any, hint: str, **others: Any) -> None:
        super().__init__(*names, **others)
        self._hint = hint

    def __call__(
        self, parser: argparse.ArgumentParser, _: object, __: object, flag: str | None = None
    ) -> None:
        parser.error(f"{flag}: {self._hint}")


def add_gone(parser: argparse.ArgumentParser, flag: str, hint: str) -> None:
    """Declare a flag that is gone, with any number of values; it is not in --help.

    >>> add_gone(parser, "--floor", "renamed; use --noise-floor")
    """
    parser.add_argument(
        flag, action=_Gone, hint=hint, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def add_renamed(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Declare a flag that has another name now.

    >>> add_renamed(parser, "--count-tokens", "--max-tokens")
    """
    add_gone(parser, old, f"this flag has been renamed; use {new}")
