"""The compiled part: loads `sparcom._native`, keeps why it could not be loaded, and says what runs."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from sparcom.errors import SparcomError


def _load(name: str) -> tuple[ModuleType | None, str]:
    """(module, "") or (None, the cause)."""
    try:
        return importlib.import_module(f"sparcom.{name}"), ""
    except ImportError as error:
        return None, f"{type(error).__name__}: {error}"


_cpu, _cpu_cause = _load("_native")


@functools.cache
def cpu() -> ModuleType:
    """The CPU kernels. Raises SparcomError with the cause where they could not be loaded."""
    if _cpu is None:
        raise SparcomError(
            f"sparcom: the CPU extension must be importable, got {_cpu_cause}; build it with "
            "`pip install .` or `python setup.py build_ext --inplace`"
        )
    return _cpu


def build_info() -> dict[str, object]:
    """What runs here, for `sparcom doctor` and the manifests of runs.

    Keys: `cpu` (bool), `cpu_cause` (why not), and, where it is loaded, `isa` (the vector
    instructions in use), `openmp` (the library whose threads the loops run on; "" = serial),
    `threads`, `compiler`.

    >>> build_info()["isa"]
    'avx512'
    """
    info: dict[str, object] = {"cpu": _cpu is not None, "cpu_cause": _cpu_cause}
    if _cpu is not None:
        info |= _cpu.info()
    return info
