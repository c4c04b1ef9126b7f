"""What the compiler made of sparcom._native_cuda: resources and machine code, by cuobjdump."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from sparcom import native


def missing() -> str:
    """Why the CUDA part cannot be looked into here; "" where it can."""
    if native._cuda is None:
        return f"the CUDA part is not built: {native.cuda_cause()}"
    if find_cuobjdump() is None:
        return "no cuobjdump; it comes with the CUDA toolkit and with triton"
    return ""


def find_cuobjdump() -> str | None:
    """From the path, the toolkit, or triton, which brings one along."""
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


def instructions(architecture: str) -> dict[str, list[str]]:
    """kernel -> the operations of its machine code, in order, with their modifiers."""
    found = {}
    for text in re.split(r"\n\s*Function : ", _dump("-sass", "-arch", architecture))[1:]:
        name = text.split("\n", 1)[0].strip()
        if "act_mul_count" in name:
            found[name] = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", text)
    return found
