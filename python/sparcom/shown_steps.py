"""Steps that take minutes, shown: a bar on a terminal, a line every half minute elsewhere."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

SECONDS_IN_PIPES = 30.0
T = TypeVar("T")


def shown_bar(name: str, total: int | None, unit: str, *, hidden: bool = False) -> "tqdm[Any]":
    """A bar on stderr. In a pipe or a file, nothing that ends within half a minute is shown."""
    terminal = sys.stderr.isatty()
    wait = 0.0 if terminal else SECONDS_IN_PIPES
    often = 0.1 if terminal else SECONDS_IN_PIPES
    return tqdm(desc=name, total=total, unit=unit, mininterval=often, delay=wait, disable=hidden)


def shown_steps(steps: Iterable[T], total: int) -> Iterable[T]:
    """The steps of a training, shown on stderr as they pass.

    >>> for step in shown_steps(range(300), 300): ...
    """
    with shown_bar("train", total, "step") as bar:
        for step in steps:
            yield step
            bar.update()
