"""How much a model uses each component, against hooks on the unmodified model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM

from sparcom.ablation.use import measure_use, output_norms
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine

PROMPTS = [
    Prompt("a", tuple(range(3, 20)), ((0, 17),)),
    Prompt("b", tuple(range(40, 46)), ((0, 6),)),
]


def engine_of(folder: Path) -> TransformersEngine:
    options = EngineOptions(str(folder), dtype="float32", batch_tokens=64, slots=4, threads=1)
    return TransformersEngine(options)


def inputs_of(module: torch.nn.Module, model: torch.nn.Module) -> torch.Tensor:
    """[tokens, width] what a module reads while the model reads the prompts one by one."""
    seen: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].reshape(-1, given[0].shape[-1]).clone())
    )
    with torch.inference_mode():
        for prompt in PROMPTS:
            model(torch.tensor([prompt.token_ids]))
    hook.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_use_of_neurons(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path / family, family, torch.float32)
    engine = engine_of(folder)
    norms = output_norms(engine.ffns, engine.space)
    found = measure_use(engine, PROMPTS, norms, "neurons")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if family == "llama":
        down = model.model.layers[1].mlp.down_proj
        rows = down.weight.norm(dim=0)
        gate = model.model.layers[1].mlp.gate_proj
        fires = gate(inputs_of(gate, model)) > 0
    else:
        down = model.transformer.h[1].mlp.c_proj
        rows = down.weight.norm(dim=1)
        gate = model.transformer.h[1].mlp.c_fc
        fires = gate(inputs_of(gate, model)) > 0
    width = len(rows)
    h = inputs_of(down, model)
    expected = (h.abs().mean(0) * rows).detach().numpy()
    np.testing.assert_allclose(norms[width : 2 * width], rows.detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.contribution[width : 2 * width], expected, rtol=1e-4)
    share = fires.float().mean(0).numpy()
    np.testing.assert_allclose(found.frequency[width : 2 * width], share, atol=1e-6)


def test_use_of_experts(tmp_path: Path) -> None:
    engine = engine_of(save_tiny_model(tmp_path / "moe", "qwen2_moe", torch.float32))
    space, norms = engine.space, output_norms(engine.ffns, engine.space)
    experts = measure_use(engine, PROMPTS, norms, "experts")
    neurons = measure_use(engine, PROMPTS, norms, "neurons")
    counted = list(engine.count(PROMPTS))
    chosen = sum(one.experts.sum(0) for one in counted) / 23
    np.testing.assert_allclose(experts.frequency, chosen)
    for expert in range(space.experts):
        inside = space.neuron_experts == expert
        assert experts.contribution[expert] == pytest.approx(neurons.contribution[inside].sum())
    at = next(i for i, site in enumerate(space.sites) if site.kind == "routed")
    down = engine.model.model.layers[space.sites[at].layer].mlp.experts.down_proj
    start = space.neuron_offsets[at]
    flat = down.float().norm(dim=1).reshape(-1).detach().numpy()
    np.testing.assert_allclose(norms[start : start + len(flat)], flat, rtol=1e-5)
