"""Compiled mode counts, and its caches never mix counting and bare graphs."""

import pytest
import torch
from vllm_tools import SHAPE, by_id, make_prompts, reference, share_of_differing_cells

from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import SparcomError
from tiny_models import save_tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed")

LENGTHS = [1, 2, 128, 60, 33, 5, 90]
pytestmark = pytest.mark.slow


def test_bare_counting_bare_on_one_cache(tmp_path, monkeypatch):
    """A counting engine that ran a bare graph would fail its conservation, and a bare one that ran
    a counting graph would find no recorder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    folder = save_tiny_model(
        tmp_path / "model", "llama", torch.float32, **SHAPE, num_hidden_layers=2
    )
    prompts = make_prompts(LENGTHS)

    def load(count: bool) -> VllmEngine:
        return VllmEngine(
            VllmOptions(
                str(folder), dtype="float32", batch_tokens=64, slots=4, verify=True,
                compile=True, count=count,
            )
        )  # fmt: skip

    for count in (False, True, False):
        engine = load(count)
        try:
            if count:
                ours = by_id(engine.count(prompts))
                assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4
            else:
                assert engine.read(prompts) == len(prompts)
                with pytest.raises(SparcomError, match="loaded with count=False"):
                    engine.count_parts(prompts)
        finally:
            engine.close()
    assert any(cache.rglob("*"))
