"""Builds the CPU kernels for AArch64 and runs them in qemu; its call is like the op's."""

import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sparcom.counting import ops
from sparcom.errors import InputError

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SOURCES = [
    "bindings/act_mul_count_stream.cpp", "check.cpp", "counted_ranges.cpp", "cpu/dispatch.cpp",
    "cpu/parallel.cpp", "cpu/activation/launcher.cpp", "cpu/activation/table.cpp",
    "cpu/isa_portable.cpp", "cpu/isa_neon.cpp",
]  # fmt: skip
POINTERS, OTHERS = 10, "=7q2i4fid"  # the numbers of csrc/bindings/call.h
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi"]


def missing() -> str:
    """Why these kernels cannot run here; "" if they can."""
    absent = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    if not absent:
        return ""
    return f"no {' and no '.join(absent)}: `apt-get install g++-aarch64-linux-gnu qemu-user`"


@cache
def program() -> Path:
    """csrc/bindings/act_mul_count_stream.cpp, built once for each state of the sources."""
    digest = hashlib.sha256(" ".join([*FLAGS, *SOURCES]).encode())
    for path in sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp")):
        digest.update(path.read_bytes())
    built = ROOT / "build" / f"aarch64-{digest.hexdigest()[:16]}" / "act_mul_count_stream"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_suffix(f".{os.getpid()}")
        sources = [str(ROOT / "csrc" / s) for s in SOURCES]
        subprocess.run([COMPILER, *FLAGS, *sources, "-ldl", "-o", str(unfinished)], check=True)
        unfinished.replace(built)
    return built


def run(isa: str, message: bytes) -> bytes:
    """The program's output for this input. isa: the instruction set that must run."""
    command = [EMULATOR, "-L", "/usr/aarch64-linux-gnu", "-E", f"SPARCOM_ISA={isa}", program()]
    done = subprocess.run(command, input=message, capture_output=True)
    ran, _, error = done.stderr.decode().partition("\n")
    if done.returncode == 1 and error:
        raise InputError(error)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert ran == isa
    return done.stdout


def act_mul_count(
    gate, up, bins, counts, rows, *, activation="silu", threshold=0.0, signal="gate", keep=None,
    fill=None, expert=None, signs=None, out=None, isa="neon",
) -> Tensor:  # fmt: skip
    """Writes out, counts, rows and signs as the op does."""
    out = torch.empty_like(gate, memory_format=torch.contiguous_format) if out is None else out
    options = (activation, threshold, signal, keep, fill, expert, signs)
    inputs = (gate, up, bins, counts, rows, *options, out)
    ops._fake_out(*inputs)
    tensors = (gate, up, bins, counts, rows, signs, keep, fill, expert, out)
    at = {x.data_ptr(): x for x in tensors if x is not None}
    answer = b""

    def kernel(*numbers) -> None:
        nonlocal answer
        pointers, others = numbers[:POINTERS], struct.pack(OTHERS, *numbers[POINTERS:])
        sent = [sized(memory(at.get(address))) for address in pointers]
        if ops._take_turns(gate, up):
            size = gate.element_size()
            sent[:2] = sized(memory(gate) + memory(up)[-size:]), struct.pack("=q", -size)
        answer = run(isa, b"".join(sent) + others)

    ops.launch(kernel, (), *inputs)
    for x in (out, counts, rows) if signs is None else (out, counts, rows, signs):
        size = x.numel() * x.element_size()
        ctypes.memmove(x.data_ptr(), answer[:size], size)
        answer = answer[size:]
    assert not answer
    return out


def sized(message: bytes) -> bytes:
    """A buffer as the program reads it, behind its size."""
    return struct.pack("=q", len(message)) + message


def memory(x: Tensor | None) -> bytes:
    """The bytes from a tensor's first element to its last, with those between its rows."""
    if x is None or x.numel() == 0:
        return b""
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return ctypes.string_at(x.data_ptr(), (last + 1) * x.element_size())
