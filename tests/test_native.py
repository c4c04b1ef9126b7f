"""Which native parts run here, and why not."""

import pytest

from sparcom import native
from sparcom.errors import SparcomError


@pytest.mark.parametrize(
    ("driver", "runtime", "says"),
    [
        (13000, 13000, ""),
        (13010, 13000, ""),
        (13000, 13010, ""),  # minor versions are compatible
        (14000, 13000, ""),
        (12080, 13000, "a driver for CUDA 12.8, too old for kernels built by CUDA 13.0"),
        (0, 13000, "no CUDA driver"),
    ],
)
def test_driver_cause(driver: int, runtime: int, says: str) -> None:
    cause = native.driver_cause(driver, runtime)
    assert cause.startswith(says)
    assert bool(cause) == bool(says)


def test_build_info_says_what_runs_and_why_not() -> None:
    info = native.build_info()
    assert info["cpu"]
    assert info["cuda"] == (info["cuda_cause"] == "")
    if not info["cuda"]:
        with pytest.raises(SparcomError, match="tensors on CUDA need the CUDA kernels"):
            native.cuda()


def test_the_cause_of_a_failed_import_is_kept() -> None:
    module, cause = native._load("_no_such_part")
    assert module is None
    assert "ModuleNotFoundError" in cause
    assert "_no_such_part" in cause
