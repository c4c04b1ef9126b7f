"""The operations by name, and what their functions share."""

from collections.abc import Callable

import numpy as np

from sass_machine.machine import Machine, Step
from sass_machine.operands import UnknownError

Operation = Callable[[Machine, Step], "np.ndarray | int | None"]
OPERATIONS: dict[str, Operation] = {}
ONES = np.uint64(0xFFFFFFFF)
BITS = np.uint64(32)


def operation(*names: str, modifiers: str = "") -> Callable[[Operation], Operation]:
    """Register a function under names; it knows these modifiers, separated by blanks."""
    known = set(modifiers.split())

    def register(function: Operation) -> Operation:
        def checked(m: Machine, s: Step) -> "np.ndarray | int | None":
            if not known.issuperset(s.modifiers):
                raise UnknownError(f"sass_machine: {s.text!r} is not known")
            return function(m, s)

        for name in names:
            OPERATIONS[name] = checked
        return function

    return register


def u64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).astype(np.uint64)


def u32(x: np.ndarray) -> np.ndarray:
    return (x & ONES).astype(np.uint32)


def signed(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).view(np.int32)
