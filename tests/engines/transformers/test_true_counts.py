"""Kinds of models whose counts were once wrong in silence: now right, or refused by name.

Right means: equal to transformers' own modules, loaded apart, that read each prompt alone with
eager attention in float32 (`benchmarks/models.py`).
"""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers_tools import load

from outcomes import ALONE, PACKED, REFUSED, compare, plain_counts, save_tiny
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.loading import read_model
from sparcom.errors import InputError

RIGHT = {
    # a window that the model hands to its attention in the mask alone
    "qwen2_moe": (
        PACKED,
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen2": (PACKED, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    # attention that looks ahead
    "gemma3_text": (PACKED, {"use_bidirectional_attention": True}),
    # tokens that mix outside attention
    "minimax": (ALONE, {}),
    "qwen3_next": (ALONE, {}),
    "granitemoehybrid": (ALONE, {}),
    # a shared MLP beside routed experts
    "granitemoeshared": (PACKED, {}),
    # chunks instead of windows; layers without experts
    "llama4_text": (ALONE, {"moe_layers": [], "interleave_moe_layer_step": 0}),
    # attention that chooses its keys
    "deepseek_v32": (ALONE, {}),
    "glm_moe_dsa": (ALONE, {}),
    "doge": (ALONE, {}),
    # clamped and scaled gates: with biases and interleaved, in dense layers too, hashed routing
    "gpt_oss": (PACKED, {}),
    "minimax_m3_vl_text": (PACKED, {}),
    "hy_v4": (ALONE, {}),
    "deepseek_v4": (ALONE, {}),
    # activations that are functions; layers without an FFN
    "lfm2": (ALONE, {}),
    "lfm2_moe": (ALONE, {}),
    "bloom": (ALONE, {}),
    "nemotron_h": (ALONE, {}),
}


@pytest.mark.parametrize("family", RIGHT)
def test_counts_are_those_of_transformers_own_modules(tmp_path, family: str) -> None:
    result, changes = RIGHT[family]
    save_tiny(family, tmp_path, **changes)
    outcome = compare(family, family, tmp_path)
    assert (outcome.result, outcome.differ - outcome.near) == (result, 0.0), outcome


REFUSALS = {
    "hrm_text": ({}, r"model\.H_module\.layers\.0 is a decoder layer as .*several lists of layers"),
    "mamba": ({}, r"\(MambaBlock\) is not supported: no FFN found in it or in another layer"),
    "qwen4_exp_text": ({}, r"weights of no attention, norm, router or FFN that is known"),
}


@pytest.mark.parametrize("family", REFUSALS)
def test_what_is_not_supported_is_refused_before_the_run(tmp_path, family: str) -> None:
    changes, message = REFUSALS[family]
    save_tiny(family, tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_model(EngineOptions(str(tmp_path), dtype="float32"))
    assert "\n" not in str(caught.value)


def test_an_ffn_that_only_some_layers_change_is_refused_by_its_layer(tmp_path) -> None:
    """Gemma 3n may keep the largest gates of a layer only; the same class, another function."""
    save_tiny("gemma3n_text", tmp_path, activation_sparsity_pattern=[0.0, 0.9, 0.0, 0.0])
    outcome = compare("gemma3n_text", "", tmp_path)
    assert outcome.result == REFUSED
    assert "model.layers.1.mlp (Gemma3nTextMLP)" in outcome.why
    save_tiny("gemma3n_text", tmp_path, activation_sparsity_pattern=[0.0] * 4)
    assert compare("gemma3n_text", "", tmp_path).result == PACKED


# -- rotary embeddings with a memory --------------------------------------------------------------

DYNAMIC = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0,
                 "original_max_position_embeddings": 32, "short_factor": [1.0] * 8,
                 "long_factor": [1.0 + i for i in range(8)]},
}  # fmt: skip


@pytest.mark.parametrize("kind", DYNAMIC)
def test_the_order_of_prompts_does_not_matter(tmp_path, kind: str) -> None:
    """A prompt beyond the original length, one of exactly that, and short ones after them."""
    length = 32 if kind == "dynamic" else 256
    save_tiny("llama", tmp_path, rope_parameters=DYNAMIC[kind], max_position_embeddings=length)
    engine = load(tmp_path, "float32")
    generator = torch.Generator().manual_seed(3)
    prompts = []
    for at, rows in enumerate((5, 60, 32, 31, 90, 33, 12)):
        ids = torch.randint(3, 128, (rows,), generator=generator).tolist()
        prompts.append(Prompt(f"p{at}", tuple(ids), ((0, rows),)))

    def counts(order: list[Prompt]) -> dict[str, list[int]]:
        passes = [engine.count([prompt]) for prompt in order] + [engine.count(order)]
        return {
            name: row.tolist()
            for one in passes
            for counted in one
            for name, row in zip(counted.ids, counted.neurons, strict=True)
        }

    forward = counts(prompts)
    assert counts(prompts[::-1]) == forward
    for prompt in prompts:
        plain = AutoModelForCausalLM.from_pretrained(  # which has read nothing before
            tmp_path, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        fired, near = plain_counts(plain, engine.space, prompt)
        assert (abs(forward[prompt.id] - fired) <= near).all()
