"""The resources and machine code of sparcom._native_cuda, read by cuobjdump."""

import collections
import functools
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from sparcom import native


def missing() -> str:
    """Why the CUDA part cannot be read here; "" if it can."""
    if native._cuda is None:
        return f"the CUDA part is not built: {native.cuda_cause()}"
    if find_cuobjdump() is None:
        return "no cuobjdump; install the CUDA toolkit or triton, which have it"
    return ""


def find_cuobjdump() -> str | None:
    """From the path, the toolkit, or triton, which includes one."""
    folders = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    triton = importlib.util.find_spec("triton")
    if triton and triton.origin:
        folders.append(str(Path(triton.origin).parent / "backends/nvidia/bin"))
    return shutil.which("cuobjdump", path=os.pathsep.join(folders))


def _dump(*options: str) -> str:
    command = [find_cuobjdump(), *options, str(native._cuda.__file__)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def usage() -> dict[str, dict[str, dict[str, int]]]:
    """architecture -> kernel -> REG, STACK, LOCAL, ... as cuobjdump names them."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    architecture = name = ""
    for line in _dump("-res-usage").splitlines():
        if match := re.match(r"\s*arch = (sm_\d+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (\S*act_mul_count\S*):", line):
            name = match[1]
        elif name and "REG:" in line:
            numbers = {k: int(v) for k, v in re.findall(r"([A-Z]+(?:\[\d\])?):(\d+)", line)}
            found.setdefault(architecture, {})[name] = numbers
            name = ""
    return found


def cubin(architecture: str) -> bytes:
    """The ELF file with the machine code of an architecture."""
    library = str(Path(native._cuda.__file__).resolve())
    with tempfile.TemporaryDirectory() as folder:
        command = [find_cuobjdump(), "-xelf", "all", "-arch", architecture, library]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


@functools.cache
def sections(architecture: str) -> dict[str, bytes]:
    """The sections of `cubin`, by name."""
    elf = cubin(architecture)
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, of_names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + size * k) for k in range(count)]
    names = elf[headers[of_names][4] :]
    return {
        names[name : names.index(b"\0", name)].decode(): elf[offset : offset + length]
        for name, kind, _, _, offset, length in headers
        if kind != 8  # which has no bytes in the file
    }


@functools.cache
def ptx() -> dict[int, dict[str, str]]:
    """Of the PTX that later devices translate: compute capability (90 is 9.0) -> kernel -> text."""
    found: dict[int, dict[str, str]] = {}
    for text in re.split(r"(?m)^\.version ", _dump("-ptx"))[1:]:
        (target,) = re.findall(r"(?m)^\.target sm_(\d+)", text)
        bodies = re.split(r"\.entry (\w*act_mul_count\w*)\(", text)[1:]
        found[int(target)] = dict(zip(bodies[::2], bodies[1::2], strict=True))
    return found


def parameters_at(architecture: str, kernel: str) -> tuple[int, int]:
    """(offset, size) of a kernel's parameters in constant bank 0, from its .nv.info."""
    info, at = sections(architecture)[f".nv.info.{kernel}"], 0
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        if (form, attribute) == (4, 0x0A):  # EIATTR_PARAM_CBANK: a symbol, then the two
            offset, size = struct.unpack_from("<HH", info, at + 8)
            return offset, size
        at += 4 + (value if form == 4 else 0)
    raise ValueError(f"sass: {kernel} does not say where its parameters are")


@functools.cache
def code(architecture: str) -> dict[str, list["Instruction"]]:
    """kernel -> its machine code, in order."""
    found = {}
    pattern = r"/\*([0-9a-f]{4,5})\*/\s+(@!?U?P\w+)?\s*([A-Z][\w.]*)([^;]*);"
    for text in re.split(r"\n\s*Function : ", _dump("-sass", "-arch", architecture))[1:]:
        name = text.split("\n", 1)[0].strip()
        if "act_mul_count" in name:
            found[name] = [
                Instruction(int(address, 16), guard, operation, operands.strip())
                for address, guard, operation, operands in re.findall(pattern, text)
            ]
    return found


class Instruction(NamedTuple):
    """One line of machine code."""

    address: int
    guard: str  # "@P0", "@!P0", or "" if it is always executed
    operation: str  # with its modifiers
    operands: str

    @property
    def target(self) -> int | None:
        """The address that a branch leads to; None for other instructions."""
        match = re.search(r"0x([0-9a-f]+)\s*$", self.operands)
        return int(match[1], 16) if match and self.operation.startswith("BRA") else None


def instructions(architecture: str) -> dict[str, list[str]]:
    """kernel -> the operations of its machine code, in order, with their modifiers."""
    return {name: [i.operation for i in lines] for name, lines in code(architecture).items()}


SILU = {2: "act_mul_countINS_4Bf16ELi8ELi0ELNS_4CallE0E", 4: "act_mul_countIfLi4ELi0ELNS_4CallE0E"}


def instructions_per_element(architecture: str, size: int = 2, access: int = 16) -> float:
    """How many instructions silu, gated, issues per element while the bin does not change.

    size: bytes of an element, 2 of bf16, 4 of fp32. access: bytes of a store, 16 or 32.

    They are those of the shortest path through the loop with the most such stores, which leaves out
    the adding of a finished run, divided by the elements of these stores.
    """
    (lines,) = (c for name, c in code(architecture).items() if SILU[size] in name)
    paths = (shortest_loop(lines, i, line.target) for i, line in enumerate(lines))
    loops = [path for path in paths if path]
    stores = [
        sum(x.operation.startswith("STG") and x.operation.endswith(f".{8 * access}") for x in path)
        for path in loops
    ]
    return len(loops[stores.index(max(stores))]) / (access // size * max(stores))


def reached_without(operation: str, lines: list[Instruction]) -> list[Instruction]:
    """The instructions of a kernel that can be executed before the first of this operation.

    Raises ValueError if one of them leads where its text does not say.
    """
    index = {line.address: i for i, line in enumerate(lines)}
    found, queue = set(), [0]
    while queue:
        i = queue.pop()
        if i in found or lines[i].operation == operation:
            continue
        found.add(i)
        queue += followers(lines, index, i)
        if lines[i].operation.startswith(("BRX", "CALL", "RET")):
            raise ValueError(f"sass: {lines[i]} leads elsewhere")
    return [lines[i] for i in sorted(found)]


def followers(lines: list[Instruction], index: dict[int, int], i: int) -> list[int]:
    """What may be executed next: a branch's target, and the next one. index: of each address."""
    line = lines[i]
    steps = [] if line.target is None else [index[line.target]]
    conditional = line.guard or "," in line.operands  # @P0 BRA 0x50, or BRA.U UP0, 0x50
    if conditional or not line.operation.startswith(("BRA", "EXIT", "RET")):
        steps.append(i + 1)
    return steps


def shortest_loop(
    lines: list[Instruction], last: int, first_address: int | None
) -> list[Instruction]:
    """The fewest instructions from a backward branch's target to the branch; [] for all others."""
    if first_address is None or first_address >= lines[last].address:
        return []
    index = {line.address: i for i, line in enumerate(lines)}
    first = index[first_address]
    before: dict[int, int | None] = {first: None}  # each one's predecessor, breadth first
    queue = collections.deque([first])
    while queue and last not in before:
        i = queue.popleft()
        for step in followers(lines, index, i):
            if first <= step <= last and step not in before:
                before[step] = i
                queue.append(step)
    path, at = [], last if last in before else None
    while at is not None:
        path.append(lines[at])
        at = before[at]
    return path[::-1]
