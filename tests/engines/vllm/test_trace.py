"""Traces of vLLM's passes: dense, routed and shared units, token for token, in chunks too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_traces import plain_traces
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, make_prompts

from sparcom.corpus.checking.show import Token
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.tracing.traces import trace_prompts

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow

LENGTHS = [1, 2, 100, 60, 33, 5, 90]  # longer than a step of 48 tokens; more prompts than slots


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("llama", {"compile": True}),
        ("llama", {"tensor_parallel": 2, "ablation": True}),
        ("qwen2_moe", {"verify": True}),
    ],
)
def test_traces_equal_plain_hooks_token_for_token(tmp_path: Path, family: str, more: dict) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32, **SHAPE)
    prompts = make_prompts(LENGTHS)
    engine = VllmEngine(
        VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=4, threads=1, **more)
    )
    try:
        slices = engine.space.neuron_slices()
        index = np.concatenate([np.arange(s.start, s.stop, 5) for s in slices])[::-1].copy()
        tokens = [tuple(Token(t, "", "text", True) for t in p.token_ids) for p in prompts]
        found = trace_prompts(engine, prompts, tokens, index)
        again = trace_prompts(engine, prompts, tokens, index[:3])
    finally:
        engine.close()
    expected = plain_traces(folder, prompts, engine.space)
    for at, prompt in enumerate(prompts):
        plain = expected[prompt.id][:, index]
        np.testing.assert_allclose(found.values[at], plain, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(again.values[at], plain[:, :3], rtol=1e-3, atol=1e-4)
