"""The fingerprint of the kernel: sources and native library."""

from pathlib import Path

import pytest

import sparcom
from sparcom.engines.vllm.worker.fingerprint import graph_files, kernel_version

PACKAGE = Path(sparcom.__file__).parent


@pytest.fixture
def package(tmp_path):
    """A copy of the files that the fingerprint reads."""
    for file in graph_files():
        copy = tmp_path / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        "counting/ops.py",
        "counting/recorder.py",
        "engines/vllm/worker/counting_op.py",
        "engines/vllm/worker/sites.py",
        "_native*.so",
    ],
)
def test_source_and_native_library_are_in_the_fingerprint_of_the_kernel(package, changed):
    before = kernel_version(package)
    assert before == kernel_version()
    file = next(package.glob(changed))
    file.write_bytes(file.read_bytes() + b"#")
    assert kernel_version(package) != before
    file.write_bytes(file.read_bytes()[:-1])
    assert kernel_version(package) == before
