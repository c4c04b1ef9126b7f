"""Steps of a training, shown: a bar on a terminal, a line every half minute elsewhere."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

SECONDS_IN_PIPES = 30.0
T = TypeVar("T")


def shown_steps(steps: Iterable[T], total: int) -> Iterable[T]:
    """The steps, shown on stderr as they pass.

    >>> for step in shown_steps(range(300), 300): ...
    """
    often = 0.1 if sys.stderr.isatty() else SECONDS_IN_PIPES
    bar: Iterable[T] = tqdm(steps, "train", total, unit="step", mininterval=often)
    return bar
