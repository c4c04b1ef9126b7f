"""Gated and ungated families on vLLM, native and through its transformers backend."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, by_id, make_prompts, reference, share_of_differing_cells

import models
import outcomes
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


def outcome_of(family: str, folder: Path) -> outcomes.Outcome:
    """What the sweep says of a family, from a process of its own, in which vLLM runs as well."""
    kept = folder / "outcomes"
    done = subprocess.run(
        [sys.executable, models.__file__, "--engine", "vllm", "--outcomes", str(kept), family],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return outcomes.Outcome(**json.loads(kept.read_text()))


@pytest.mark.parametrize(
    "family",
    ["granitemoeshared", "ernie4_5_moe", "lfm2_moe", "llama4_text", "glm4_moe", "minimax_m2",
     "deepseek_v3", "nemotron_h", "afmoe", "gemma3n_text"],
)  # fmt: skip
def test_counts_equal_those_of_unmodified_modules(tmp_path, family) -> None:
    """A shared MLP beside experts, biased routers, short convolutions, weighed inputs, latent
    attention, experts without a gate, shared experts first, products that are no MLP."""
    outcome = outcome_of(family, tmp_path)
    assert outcome.result == outcomes.EQUAL, outcome.why
    assert outcome.differ == outcome.near


def test_counts_are_equal_but_for_a_kernel_of_bfloat16(tmp_path) -> None:
    """Gated delta rule: vLLM computes it on a CPU in bfloat16 alone."""
    outcome = outcome_of("qwen3_next", tmp_path)
    assert outcome.result == outcomes.ROUNDED, outcome.why
    assert outcome.differ == outcome.near


@pytest.mark.skipif(find_spec("torchvision") is None, reason="vLLM imports it with torchvision")
def test_a_multimodal_model_counts_on_text(tmp_path) -> None:
    outcome = outcome_of("gemma3", tmp_path)
    assert outcome.model == "Gemma3ForConditionalGeneration"
    assert outcome.result == outcomes.EQUAL, outcome.why
    assert outcome.differ == outcome.near


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_multimodal_model_without_torchvision_is_refused_by_name(tmp_path) -> None:
    outcome = outcome_of("gemma3", tmp_path)
    assert outcome.result == outcomes.REFUSED
    assert re.search(r"could not import its class .*: torchvision is not installed", outcome.why)
