"""Scope response: generated tokens count once, up to the end of the sequence, preempted or not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from vllm_tools import SHAPE, by_id, make_prompts, reference, share_of_differing_cells

from sparcom.corpus.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from tiny_models import save_tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed")

NEW = 40


def generate(folder: Path, prompt: Prompt) -> list[int]:
    """NEW + 1 tokens, greedily, by transformers, whatever ends the sequence."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([prompt.token_ids]),
            attention_mask=torch.ones(1, len(prompt.token_ids), dtype=torch.int64),
            max_new_tokens=NEW + 1, do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return out[0, len(prompt.token_ids) :].tolist()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    made = make_prompts([1, 9, 30, 60, 88, 100, 110, 115, 120, 127, 125, 122], skip=0)
    return [replace(p, generate=NEW) for p in made]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prompts) -> Path:
    """A model that ends a sequence at a token which some, not all, answers reach in the middle."""
    folder = tmp_path_factory.mktemp("talker")
    shape = {**SHAPE, "max_position_embeddings": 256}
    made = save_tiny_model(folder, "llama", torch.float32, **shape)
    texts = [generate(made, p)[:NEW] for p in prompts]
    reached = {t: sum(t in text[2:-2] for text in texts) for text in texts for t in text}
    ends = min(reached, key=lambda t: abs(reached[t] - len(prompts) / 2))
    assert 0 < reached[ends] < len(prompts)
    (made / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return made


def whole(folder: Path, prompts: list[Prompt], scope: str) -> list[Prompt]:
    """Prompts with their responses as text, the response or all of it counted."""
    end = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    found = []
    for prompt in prompts:
        response = generate(folder, prompt)[:NEW]
        if end in response:
            response = response[: response.index(end)]
        ids = prompt.token_ids + tuple(response)
        start = 0 if scope == "all" else len(prompt.token_ids)
        found.append(Prompt(prompt.id, ids, ((start, len(ids)),)))
    return found


@pytest.fixture(scope="module")
def engine(folder):
    """A KV cache of four blocks of 128 for eight requests, of which most grow into a second
    block while they write: requests must be preempted and read anew."""
    made = VllmEngine(
        VllmOptions(
            str(folder), dtype="float32", batch_tokens=64, slots=8, verify=True,
            kv_cache_tokens=512,
        )
    )  # fmt: skip
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["response", "all"])
def test_counts_equal_the_same_text_read_as_a_prompt(engine, folder, prompts, scope):
    """Decode steps mixed with chunks of prefill; sequences that end early, and ones that do not."""
    asked = prompts if scope == "all" else [replace(p, counted=()) for p in prompts]
    texts = [t for t in whole(folder, prompts, scope) if t.n_counted]
    ours = by_id(engine.count(asked))
    for name in ours.keys() - {t.id for t in texts}:
        assert ours[name][0] == 0
    ours = {t.id: ours[t.id] for t in texts}
    assert len({tokens for tokens, _ in ours.values()}) > 2, "all responses are equally long"
    assert share_of_differing_cells(ours, reference(folder, texts)) <= 1e-4


@pytest.mark.slow
def test_preempted_requests_count_once(engine, prompts):
    before = engine.recomputed
    many = [replace(p, id=f"{p.id}-{i}") for i in range(4) for p in prompts]
    ours = by_id(engine.count(many))
    assert engine.recomputed > before, "nothing was preempted: the test proves nothing"
    alone = by_id(engine.count(prompts[:1]))[prompts[0].id]
    for i in range(4):
        np.testing.assert_array_equal(ours[f"{prompts[0].id}-{i}"][1], alone[1])
