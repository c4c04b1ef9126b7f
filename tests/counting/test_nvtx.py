"""Ranges for profilers: named on a device, nothing without one."""

from contextlib import contextmanager

import pytest
import torch

from sparcom.counting import nvtx


def test_without_a_device_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda.nvtx, "range", lambda name: pytest.fail("opened"))
    with nvtx.step(1), nvtx.site("layer3.dense"):
        pass


def test_steps_and_sites_are_named_and_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @contextmanager
    def opened(name: str):
        seen.append(name)
        yield
        seen.append(f"end of {name}")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range", opened)
    with nvtx.step(12), nvtx.site("layer3.dense"):
        pass
    assert seen == ["step 12", "layer3.dense", "end of layer3.dense", "end of step 12"]


@pytest.mark.gpu
def test_ranges_open_on_a_device() -> None:
    with nvtx.step(0), nvtx.site("layer3.dense"):
        torch.ones(1, device="cuda")
