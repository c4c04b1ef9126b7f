"""The kernels for AMX where there is no AMX: the tests that need it, run with a build of their own.

In that build loops stand for the instructions on tiles (`tests/helpers/amx_emulation.h`); the rest
of `csrc/cpu/experts/isa_amx.cpp` is what runs on AMX, and needs AVX-512 for bf16.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EMULATION = ROOT / "tests/helpers/amx_emulation.h"
CPU = Path("/proc/cpuinfo")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CPU.exists() or "avx512_bf16" not in CPU.read_text(),
        reason="this processor has no AVX-512 for bf16",
    ),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this package, and that build in the place of the usual one."""
    folder = tmp_path_factory.mktemp("emulated")
    build = [sys.executable, "setup.py", "-q", "build_ext"]
    where = ["--build-lib", folder, "--build-temp", folder / "objects"]
    env = {**os.environ, "CXXFLAGS": f"-include {EMULATION}", "SPARCOM_CUDA": "0"}
    subprocess.run([*build, *where], cwd=ROOT, env=env, check=True)
    for path in (ROOT / "python/sparcom").iterdir():
        if path.suffix not in (".so", ".pyc"):
            (folder / "sparcom" / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("tests", ["experts", "vllm/test_moe.py"])
def test_what_needs_amx_passes_with_loops_in_its_place(package: Path, tests: str) -> None:
    here = ROOT / "tests/engines" / tests
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", here]
    leave = ["--deselect", Path(__file__).relative_to(ROOT)]
    env = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(
        [*command, *leave], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "AMX" not in done.stdout  # nothing was left out
