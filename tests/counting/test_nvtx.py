"""Ranges for profilers: they have names on a device, and none is opened without one."""

from contextlib import contextmanager

import pytest
import torch
from tiny_models import save_tiny_model

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting import nvtx
from sparcom.engines.base import EngineOptions
from sparcom.engines.packing import Pass
from sparcom.engines.transformers.engine import TransformersEngine


def test_without_a_device_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda.nvtx, "range", lambda name: pytest.fail("opened"))
    with nvtx.step(1), nvtx.site("layer3.dense"):
        pass


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ranges that were opened and closed, in order."""
    names: list[str] = []

    @contextmanager
    def opened(name: str):
        names.append(name)
        yield
        names.append(f"end of {name}")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range", opened)
    return names


def test_steps_and_sites_are_named_and_nested(seen: list[str]) -> None:
    with nvtx.step(12), nvtx.site("layer3.dense"):
        pass
    assert seen == ["step 12", "layer3.dense", "end of layer3.dense", "end of step 12"]


def test_a_pass_of_the_engine_is_a_step_with_its_sites(tmp_path, seen: list[str]) -> None:
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    engine = TransformersEngine(
        EngineOptions(str(folder), dtype="float32", device="cpu", prove=False)
    )
    seen.clear()
    engine.forward([Prompt("a", (1, 2), ((0, 2),))], Pass((0,), 8))
    assert seen[0] == "step 1"
    assert seen[1:-1] == [t for s in engine.space.sites for t in (s.name, f"end of {s.name}")]
    assert seen[-1] == "end of step 1"


@pytest.mark.gpu
def test_ranges_open_on_a_device() -> None:
    with nvtx.step(0), nvtx.site("layer3.dense"):
        torch.ones(1, device="cuda")
