"""Which native parts run here, and why not."""

import contextlib
import types

import pytest
import torch

from sparcom import native
from sparcom.counting import ops, quant_ops
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


@pytest.mark.parametrize(("given", "pdl"), [("", False), ("1", True), ("0", False)])
def test_the_environment_switches_early_launches_on(
    given: str, pdl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a device: what a stand-in for the compiled module is told."""
    told = []
    module = types.SimpleNamespace(
        act_mul_count=lambda *numbers: told.append(numbers[-1]),
        act_mul_count_quant=lambda *numbers: told.append(numbers[-1]),
    )
    monkeypatch.setenv("SPARCOM_PDL", given)
    monkeypatch.setattr(native, "cuda", lambda: module)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    stream = types.SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    native.pdl.cache_clear()
    gate = torch.zeros(1, 128, dtype=torch.bfloat16)
    bins, counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1,), (1, 128), (1,)))
    inputs = (gate, gate.clone(), bins, counts, rows, "silu", 0.0, "gate", None, None, None, None)
    ops._cuda(*inputs)
    q, scales = torch.zeros(1, 128, dtype=torch.int8), torch.zeros(1, 1)
    quant_ops._cuda(*inputs, q, scales)
    native.pdl.cache_clear()
    assert told == [pdl, pdl]


def test_another_value_of_the_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARCOM_PDL", "off")
    native.pdl.cache_clear()
    with pytest.raises(SparcomError, match="SPARCOM_PDL must be 0, 1 or unset, got 'off'"):
        native.pdl()
