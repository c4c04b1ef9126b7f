"""Gated and ungated families on vLLM, native and through its transformers backend."""

import re
from importlib.util import find_spec

import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, by_id, make_prompts, reference, share_of_differing_cells

import models
from sparcom.engines.transformers.loading import describe_model, load_config
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions

pytest.importorskip("vllm", reason="vLLM is not installed")

FAMILIES = {
    "qwen2": SHAPE,
    "phi3": SHAPE,
    "gemma2": {**SHAPE, "head_dim": 32},
    "gpt2": {"n_embd": 64, "n_head": 2},
    "opt": {**SHAPE, "word_embed_proj_dim": 64},
    "gpt_neox": SHAPE,
}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_the_transformers_engine(tmp_path, family):
    folder = save_tiny_model(tmp_path, family, torch.float32, **FAMILIES[family])
    prompts = make_prompts([1, 2, 128, 60, 33, 5, 90])
    engine = VllmEngine(
        VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=4, verify=True)
    )
    try:
        ours = by_id(engine.count(prompts))
        assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4
        assert engine.space == describe_model(load_config(engine.options))  # as runs are planned
    finally:
        engine.close()


@pytest.mark.parametrize(
    "family",
    ["granitemoeshared", "ernie4_5_moe", "lfm2_moe", "llama4_text", "glm4_moe", "minimax_m2",
     "deepseek_v3", "nemotron_h"],
)  # fmt: skip
def test_counts_equal_those_of_unmodified_modules(family) -> None:
    """A shared MLP beside experts, biased routers, short convolutions, weighed inputs, latent
    attention, experts without a gate."""
    outcome = models.try_family(family, "vllm")
    assert outcome.result == models.EQUAL, outcome.why
    assert outcome.differ == outcome.near


def test_counts_in_bfloat16_are_as_near_as_those_of_transformers() -> None:
    """Gated delta rule: vLLM computes it on a CPU in bfloat16 alone."""
    outcome = models.try_family("qwen3_next", "vllm")
    assert outcome.result == models.ROUNDED, outcome.why


@pytest.mark.skipif(find_spec("torchvision") is None, reason="vLLM imports them with torchvision")
@pytest.mark.parametrize("family", ["gemma3", "mistral3", "llama4"])
def test_a_multimodal_model_counts_on_text(family) -> None:
    outcome = models.try_family(family, "vllm")
    assert outcome.model.endswith("ForConditionalGeneration")
    assert outcome.result == models.EQUAL, outcome.why
    assert outcome.differ == outcome.near


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_multimodal_model_without_torchvision_is_refused_by_name() -> None:
    outcome = models.try_family("gemma3", "vllm")
    assert outcome.result == models.REFUSED
    assert re.search(r"could not import its class .*: torchvision is not installed", outcome.why)
