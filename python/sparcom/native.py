"""The compiled parts: loads them, keeps the reason if one could not be loaded, tells what runs."""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

from sparcom.errors import SparcomError


def _load(name: str) -> tuple[ModuleType | None, str]:
    """(module, "") or (None, the cause)."""
    try:
        return importlib.import_module(f"sparcom.{name}"), ""
    except ImportError as error:
        return None, f"{type(error).__name__}: {error}"


_cpu, _cpu_cause = _load("_native")
_cuda, _cuda_cause = _load("_native_cuda")


@functools.cache
def cpu() -> ModuleType:
    """The CPU kernels. Raises SparcomError with the cause if they could not be loaded."""
    if _cpu is None:
        raise SparcomError(
            f"sparcom: the CPU extension must be importable, got {_cpu_cause}; build it with "
            "`pip install .` or `python setup.py build_ext --inplace`"
        )
    return _cpu


@functools.cache
def cuda() -> ModuleType:
    """The CUDA kernels. Raises SparcomError with the cause if they cannot run."""
    cause = cuda_cause()
    if _cuda is None or cause:
        raise SparcomError(f"sparcom: tensors on CUDA need the CUDA kernels, got {cause}")
    return _cuda


@functools.cache
def pdl() -> bool:
    """Whether the CUDA kernels use programmatic dependent launch: True with SPARCOM_PDL=1.

    They may then start while the kernel before them ends, on devices of compute capability 9.0 and
    later; on others it makes no difference. Off unless it is asked for, as long as no device has
    run it. Raises SparcomError if SPARCOM_PDL is not 0 or 1.
    """
    wanted = os.environ.get("SPARCOM_PDL", "")
    if wanted not in ("", "0", "1"):
        raise SparcomError(f"sparcom: SPARCOM_PDL must be 0, 1 or unset, got {wanted!r}")
    return wanted == "1"


def cuda_cause() -> str:
    """Why the CUDA kernels cannot run here, and what to do; "" if they can."""
    if _cuda is None:
        return (
            f"{_cuda_cause}; build them with nvcc: `SPARCOM_CUDA=1 pip install "
            "--no-build-isolation .`"
        )
    versions = _cuda.info()
    return driver_cause(versions["cuda_driver"], versions["cuda_runtime"])


def driver_cause(driver: int, runtime: int) -> str:
    """What is wrong with a driver for a runtime; "" if nothing.

    driver, runtime: versions of CUDA, 1000 * major + 10 * minor; driver 0: none. Within one major
    version every driver runs every build (CUDA's minor version compatibility).
    """
    if driver == 0:
        return "no CUDA driver; install NVIDIA's driver, or run on a machine with a GPU"
    if driver // 1000 < runtime // 1000:
        return (
            f"a driver for CUDA {_version(driver)}, too old for kernels built by CUDA "
            f"{_version(runtime)}; update the driver, or rebuild with CUDA {driver // 1000}"
        )
    return ""


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def build_info() -> dict[str, object]:
    """What runs here, for `sparcom doctor` and the manifests of runs.

    Keys: `cpu` (whether the CPU kernels are loaded), `cpu_cause` (why not), and, if they are, `isa`
    and `bits_isa` (the vector instructions of the kernels and of the bit kernels), `openmp` (the
    library whose threads run the loops; "": serial), `threads`, `compiler`; `cuda` (whether the
    CUDA kernels can run), `cuda_cause` (why not), and, if they are built, `cuda_runtime`,
    `cuda_driver` (13000 is 13.0, 0 is none), `cuda_architectures` and `cuda_pdl` (see `pdl`).

    >>> build_info()["isa"]
    'avx512'
    """
    info: dict[str, object] = {"cpu": _cpu is not None, "cpu_cause": _cpu_cause}
    if _cpu is not None:
        info |= _cpu.info()
    cause = cuda_cause()
    info |= {"cuda": not cause, "cuda_cause": cause}
    if _cuda is not None:
        info |= {**_cuda.info(), "cuda_pdl": pdl()}
    return info
