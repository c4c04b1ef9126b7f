"""Hybrid, scaled and multimodal models: counts equal those of transformers' own modules."""

from pathlib import Path

import pytest
import torch

import outcomes
from sparcom.components import site_order
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers import scaled_experts
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError

GEMMA_EXPERTS = {
    "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 48
}  # fmt: skip
LATENT = {"layers_block_type": ["mamba", "moe", "full_attention", "mlp"], "moe_latent_size": 32}


def load(folder: Path) -> TransformersEngine:
    return TransformersEngine(
        EngineOptions(str(folder), dtype="float32", batch_tokens=64, threads=1, device="cpu")
    )


@pytest.mark.parametrize(
    ("family", "changes", "result"),
    [
        ("llama4_text", {}, outcomes.ALONE),
        ("hunyuan_v1_moe", {}, outcomes.PACKED),
        ("recurrent_gemma", {}, outcomes.ALONE),
        ("gemma4_text", GEMMA_EXPERTS, outcomes.PACKED),
        ("nemotron_h", LATENT, outcomes.ALONE),
        ("jamba", {}, outcomes.ALONE),  # its layers' class names hold Mamba
    ],
)
def test_counts_equal_those_of_transformers(tmp_path, family, changes, result) -> None:
    outcomes.save_tiny(family, tmp_path, **changes)
    outcome = outcomes.compare(family, "", tmp_path)
    assert (outcome.result, outcome.differ) == (result, outcome.near), outcome.why


def test_the_space_says_which_layers_have_no_ffn(tmp_path) -> None:
    """Of Nemotron-H, a layer is a mixer or an FFN: 0 and 2 mix tokens."""
    outcomes.save_tiny("nemotron_h", tmp_path, **LATENT)
    names = [site.name for site in load(tmp_path).space.sites]
    assert names == ["layer1.routed", "layer1.shared", "layer3.dense"]


def test_sites_lie_in_the_order_of_every_engine(tmp_path) -> None:
    """AFMoE's modules name a layer's shared expert before its routed ones."""
    outcomes.save_tiny("afmoe", tmp_path)
    sites = load(tmp_path).space.sites
    assert [site.name for site in sites[:3]] == ["layer0.dense", "layer1.routed", "layer1.shared"]
    assert list(sites) == sorted(sites, key=site_order)


# -- models that read images too, given text ------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "result"),
    [
        ("gemma3", outcomes.PACKED),
        ("gemma4", outcomes.PACKED),
        ("qwen2_5_vl", outcomes.PACKED),
        ("qwen3_vl_moe", outcomes.PACKED),
        ("mistral3", outcomes.PACKED),
        ("minimax_m3_vl", outcomes.PACKED),
        ("qwen3_5_moe", outcomes.ALONE),
        ("llama4", outcomes.ALONE),
    ],
)
def test_a_multimodal_model_counts_on_text(tmp_path, family, result) -> None:
    outcomes.save_tiny(family, tmp_path, whole=True)
    outcome = outcomes.compare(family, "", tmp_path)
    assert (outcome.result, outcome.differ) == (result, outcome.near), outcome.why


def test_layers_that_only_images_reach_are_refused(tmp_path) -> None:
    """Llama 3.2 Vision skips its cross attention layers, FFNs and all, if there is no image."""
    outcomes.save_tiny("mllama", tmp_path, whole=True)
    with pytest.raises(
        InputError, match=r"layers\.3\.mlp .*does not run on a prompt of text alone"
    ):
        load(tmp_path)


# -- experts that take in their token times the router's weight -----------------------------------


def test_experts_that_forget_the_weight_are_refused(tmp_path, monkeypatch) -> None:
    outcomes.save_tiny("llama4_text", tmp_path)

    def weighs_nothing(run):
        def forward(self, hidden_states):
            hidden = hidden_states.reshape(-1, hidden_states.shape[-1])
            scores, logits = self.router(hidden)
            ids, weights = scaled_experts.routing(scores)
            out = self.shared_expert(hidden) + run(hidden, ids, torch.ones_like(weights))
            return out, logits

        return forward

    monkeypatch.setattr(scaled_experts, "counting_forward", weighs_nothing)
    with pytest.raises(InputError, match=r"layers\.0\.feed_forward .*output differs"):
        load(tmp_path)


def test_two_experts_a_token_on_weighed_input_are_refused(tmp_path) -> None:
    outcomes.save_tiny("llama4_text", tmp_path, num_experts_per_tok=2)
    with pytest.raises(InputError, match="weighs the input of 2 experts a token"):
        load(tmp_path)


def test_scores_and_routing_are_each_other_s_inverse() -> None:
    ids, weights = torch.tensor([[2], [0], [3]]), torch.tensor([[0.5], [1e-30], [0.9]])
    scores = scaled_experts.scores_of(ids, weights, 4)
    assert scores[0].tolist() == [0.0, 0.0, 0.5, 0.0]
    again = scaled_experts.routing(scores)
    assert torch.equal(again[0], ids)
    assert torch.equal(again[1], weights)


def test_a_router_that_may_choose_no_expert_is_refused(tmp_path) -> None:
    outcomes.save_tiny("zaya", tmp_path)
    with pytest.raises(InputError, match=r"ZayaRouter, weighs 9 choices, but it holds 8 experts"):
        load(tmp_path)
