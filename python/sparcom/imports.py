"""Importing torch and transformers, which takes most of a small run's start, in less time."""

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within the block Python does not look for unreachable cycles. Imports make hundreds of
    thousands of objects that stay; looking through them again and again takes a fifth of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def import_without_sklearn() -> None:
    """Import what generates text in transformers, which imports scikit-learn with it, without that.

    It serves assisted generation alone, which tunes its threshold with it. For a process of which
    nothing else is asked than to count: there it saves a second.
    """
    utils = importlib.import_module("transformers.utils")
    known = utils.is_sklearn_available
    vars(utils)["is_sklearn_available"] = lambda: False
    try:
        importlib.import_module("transformers.generation.candidate_generator")
    finally:
        vars(utils)["is_sklearn_available"] = known
