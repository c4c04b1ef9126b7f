"""Counts of another engine against transformers' own modules, with a measured allowance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM
from transformers_tools import DTYPES, count_all, load

from outcomes import plain_counts
from sparcom.counting.counted import Counted
from sparcom.engines.proof import DisagreementError
from sparcom.engines.transformers.proof.end_to_end import compare_counts


@pytest.mark.parametrize("family", ["gemma2", "qwen2_moe"])
def test_what_is_expected_is_what_a_model_loaded_apart_counts(tmp_path: Path, family: str) -> None:
    """One prompt is longer than the window, which is not shortened here."""
    changes = {"use_sliding_window": True, "max_window_layers": 1} if family == "qwen2_moe" else {}
    folder = save_tiny_model(tmp_path, family, torch.float32, sliding_window=40, **changes)
    engine = load(folder, "float32")
    expected = engine.expect(longest=100)
    assert [len(p.token_ids) for p in expected.prompts] == [37, 13, 40 + 13]
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for prompt, fired in zip(expected.prompts, expected.fired, strict=True):
        counts, near = plain_counts(plain, engine.space, prompt)
        assert (np.abs(fired - counts) <= near).all()
    lengths = [len(p.token_ids) for p in expected.prompts]
    for site, base in zip(engine.space.sites, engine.space.expert_offsets, strict=False):
        if site.experts:
            rows = expected.routed[:, base : base + site.experts].sum(1)
            assert rows.tolist() == [site.top_k * n for n in lengths]
    assert max(share for own in expected.own for share in own) < 1e-3


def test_a_prompt_beyond_the_window_is_left_out_where_it_would_be_too_long(tmp_path: Path) -> None:
    engine = load(save_tiny_model(tmp_path, "mistral", torch.float32, sliding_window=90), "float32")
    assert [len(p.token_ids) for p in engine.expect(longest=100).prompts] == [37, 13]
    assert [len(p.token_ids) for p in engine.expect(longest=103).prompts] == [37, 13, 103]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_an_engine_that_rounds_otherwise_passes(tmp_path: Path, family: str, dtype: str) -> None:
    """The same model in passes of another shape, and in another dtype of the same weights."""
    folder = save_tiny_model(tmp_path, family, torch.bfloat16)
    expected = load(folder, dtype).expect(0)
    other = load(folder, dtype, batch_tokens=96, prove=False)
    proofs = compare_counts(expected, count_all(other, list(expected.prompts)))
    assert [p.site for p in proofs] == [s.name for s in expected.space.sites]
    for proof in proofs:
        assert proof.difference <= proof.tolerance
        assert proof.compared == 2 * dict(zip((s.name for s in expected.space.sites),
                                           (s.neurons for s in expected.space.sites),
                                           strict=True))[proof.site]  # fmt: skip


def test_a_layer_without_a_part_of_its_weights_is_caught_by_its_name(tmp_path: Path) -> None:
    """vLLM takes such a file without complaint: the projection keeps whatever was there."""
    engine = load(save_tiny_model(tmp_path, "llama", torch.bfloat16), "bfloat16")
    expected = engine.expect(0)
    with torch.no_grad():
        engine.model.model.layers[1].mlp.gate_proj.weight.normal_(0.0, 0.2)
    with pytest.raises(DisagreementError, match=r"layer1\.dense: \d+ % of its firings differ") as e:
        compare_counts(expected, count_all(engine, list(expected.prompts)))
    assert e.value.where == "layer1.dense"


def test_tokens_that_reach_other_experts_are_caught(tmp_path: Path) -> None:
    engine = load(save_tiny_model(tmp_path, "qwen3_moe", torch.float32), "float32")
    expected = engine.expect(0)
    counted = count_all(engine, list(expected.prompts))
    experts = counted.experts.copy()
    experts[:, 0], experts[:, 1] = experts[:, 1].copy(), experts[:, 0].copy()
    moved = Counted(counted.ids, counted.tokens, counted.neurons, experts)
    assert (experts != counted.experts).any()
    with pytest.raises(
        DisagreementError, match=r"layer0\.routed: .* % of its routed tokens differ"
    ):
        compare_counts(replace(expected, own=((0.0, 0.0),) * 3), moved)
