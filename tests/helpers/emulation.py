"""Builds csrc/bindings/emulation.cpp, the CUDA kernel as plain C++, and calls it like the op."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import pybind11
import torch

from sparcom.counting import layout, ops, quant_ops

ROOT = Path(__file__).parents[2]
SOURCES = ["csrc/bindings/emulation.cpp", "csrc/check.cpp", "csrc/counted_ranges.cpp"]
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
# SPARCOM_EMULATION_FLAGS adds flags, -fsanitize=undefined for one.
FLAGS += os.environ.get("SPARCOM_EMULATION_FLAGS", "").split()


@cache
def emulation() -> ModuleType:
    """The emulation, built once for each state of the sources."""
    digest = hashlib.sha256(" ".join([*FLAGS, sys.version]).encode())
    for path in sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp")):
        digest.update(path.read_bytes())
    library = ROOT / "build" / f"emulation-{digest.hexdigest()[:16]}" / "emulation.so"
    if not library.exists():
        _build(library)
    spec = importlib.util.spec_from_file_location("emulation", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(library: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}")
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    subprocess.run(
        [compiler, *FLAGS, *includes, *(str(ROOT / s) for s in SOURCES), "-o", str(unfinished)],
        check=True,
    )
    unfinished.replace(library)


def act_mul_count(
    gate, up, bins, counts, rows, *, activation="silu", threshold=0.0, signal="gate", keep=None,
    fill=None, expert=None, signs=None, out=None, multiprocessors=1, seed=0, striped=False,
    wide=False,
):  # fmt: skip
    """(out, launch parameters). multiprocessors: of the device; 0: a thread has all rows. seed: of
    the order of threads. wide: the device moves 32 bytes at once."""
    out = torch.empty_like(gate, memory_format=torch.contiguous_format) if out is None else out
    options = (activation, threshold, signal, keep, fill, expert, signs)
    inputs = (gate, up, bins, counts, rows, *options, out)
    ops._fake_out(*inputs)
    launch = []

    def kernel(*arguments):
        launch.append(emulation().act_mul_count(*arguments))

    ops.launch(kernel, (multiprocessors, seed, striped, wide), *inputs)
    return out, launch[0]


def in_order(gate, up, bins, counts, rows, *, signs=None, **options):
    """As act_mul_count, striped; counts and signs come back in order."""
    result = act_mul_count(gate, up, bins, counts, rows, signs=signs, striped=True, **options)
    for buffer in (counts, signs):
        if buffer is not None:
            buffer.copy_(layout.in_order(buffer))
    return result


def additions(gate, bins, n_bins, striped, wide=False):
    """The addresses to which each thread adds, in order; ungated silu on a device of three
    multiprocessors; wide: where a thread has all rows. Threads without rows have none."""
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((n_bins, gate.shape[1]), (n_bins,)))
    found = []

    def kernel(*arguments):
        found.extend(emulation().additions(*arguments))

    options = ("silu", 0.0, "gate", None, None, None, None, torch.empty_like(gate))
    where = (0 if wide else 3, striped, wide)
    ops.launch(kernel, where, gate, None, bins, counts, rows, *options)
    return found


def act_mul_count_quant(
    gate, up, bins, counts, rows, q, scales, *, activation="silu", threshold=0.0, signal="gate",
    keep=None, fill=None, expert=None, signs=None, ue8m0=False, multiprocessors=1, seed=0,
    striped=False, wide=False,
):  # fmt: skip
    """launch parameters. q, scales: written. The rest is as in act_mul_count."""
    options = (activation, threshold, signal, keep, fill, expert, signs)
    inputs = (gate, up, bins, counts, rows, *options)
    quant_ops.check_inputs(*inputs, q, scales, ue8m0, striped)
    launch = []

    def kernel(*arguments):
        launch.append(emulation().act_mul_count_quant(*arguments))

    where = (*quant_ops.numbers(q, scales, ue8m0), multiprocessors, seed, striped, wide)
    ops.launch(kernel, where, *inputs, q)
    return launch[0]
