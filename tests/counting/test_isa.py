"""The kernel tests on every instruction set that this machine has, not only the best."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparcom import native

HERE = Path(__file__).parent
TESTS = [
    HERE / "test_act_mul_count.py",
    HERE / "test_accuracy.py",
    HERE.parent / "selection" / "test_bits.py",
]
INFO = "from sparcom import native; print(native.build_info()['isa'])"


def python(isa: str, *arguments: str) -> subprocess.CompletedProcess:
    """In its own process, since a process chooses its set once."""
    environment = {**os.environ, "SPARCOM_ISA": isa}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512gather", "neon"])
def test_the_kernel_tests_pass(isa: str) -> None:
    if isa == native.build_info()["isa"]:
        pytest.skip(f"all other tests run on {isa}")
    known = python(isa, "-c", INFO)
    if "SPARCOM_ISA must be one of" in known.stderr:
        pytest.skip(f"this machine has no {isa}: {known.stderr.strip().splitlines()[-1]}")
    assert known.stdout.strip() == isa, known.stderr
    done = python(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, TESTS))
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_unknown_set_is_named() -> None:
    done = python("sse9", "-c", INFO)
    assert done.returncode != 0
    assert "SPARCOM_ISA must be one of" in done.stderr
    assert "got sse9" in done.stderr
