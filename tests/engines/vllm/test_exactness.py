"""Each token once: what engines do with prompts and responses, and what counting does about it.

One engine that preempts, cuts and mixes; its counts are right, and where its worker is told to
forget one of its ways (`vllm_workers`), they are found to be wrong.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM
from vllm_tools import (
    SHAPE,
    by_id,
    client_of,
    make_prompts,
    planned_ahead,
    reference,
    share_of_differing_cells,
    worker_class,
)

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions

pytest.importorskip("vllm", reason="vLLM is not installed")

NEW = 40
NOT_CONSERVED = r"conservation: layer\d.dense saw \d+ rows of instruction .*, expected \d+"
pytestmark = pytest.mark.slow


@cache
def talker(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@cache
def generate(folder: Path, prompt: Prompt) -> list[int]:
    """NEW + 1 tokens, greedily, by transformers, whatever ends the sequence."""
    model = talker(folder)
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


@pytest.fixture(scope="module", params=[nullcontext, planned_ahead])
def engine(folder, request):
    """A KV cache of four blocks of 128 for eight requests, of which most grow into a second
    block while they write: requests must be preempted and read again."""
    with worker_class("vllm_workers.ForgetfulWorker"), request.param():
        made = VllmEngine(
            VllmOptions(
                str(folder), dtype="float32", batch_tokens=64, slots=8, verify=True,
                kv_cache_tokens=512, threads=1,
            )
        )  # fmt: skip
    yield made
    made.close()


def broken(engine) -> list[str]:
    """What was not conserved since the last call, or not as plain torch counts it."""
    return client_of(engine).call_workers("sparcom_broken")[0]


@contextmanager
def without(engine, handling: str) -> Iterator[None]:
    """Within the block the worker counts without one of its ways."""
    client_of(engine).call_workers("sparcom_forget", handling)
    try:
        yield
    finally:
        client_of(engine).call_workers("sparcom_remember")


@pytest.fixture(autouse=True)
def nothing_broken(engine):
    assert not broken(engine)
    yield
    assert not broken(engine)


# -- right, with everything in place ---------------------------------------------------------------


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


def test_preempted_requests_count_once(engine, prompts):
    before = engine.recomputed
    alone = [by_id(engine.count([p]))[p.id] for p in prompts]
    assert engine.recomputed == before, "a request alone was preempted"
    many = [replace(p, id=f"{p.id}-{i}") for i in range(4) for p in prompts]
    ours = by_id(engine.count(many))
    assert engine.recomputed > before, "nothing was preempted: the test proves nothing"
    expected = {f"{p.id}-{i}": row for i in range(4) for p, row in zip(prompts, alone, strict=True)}
    assert share_of_differing_cells(ours, expected) <= 1e-4


def test_a_seed_decides_what_is_sampled_and_so_the_counts(engine, prompts, monkeypatch):
    asked = [replace(p, counted=()) for p in prompts]
    written: dict[str, list[int]] = {}
    client = client_of(engine)
    step = client._llm.step

    def listen():
        outputs = step()
        for output in outputs:
            if output.finished:
                name = client._prompts[output.request_id].id
                written[name] = list(output.outputs[0].token_ids)
        return outputs

    def sample(seed: int, temperature: float = 1.0):
        settings = replace(engine.options, temperature=temperature, seed=seed)
        monkeypatch.setattr(client, "_options", settings)
        written.clear()
        return by_id(engine.count(asked)), dict(written)

    monkeypatch.setattr(client._llm, "step", listen)
    (first, text), (again, same_text), (_, other) = sample(1), sample(1), sample(2)
    assert same_text == text
    assert share_of_differing_cells(again, first) <= 1e-4
    assert sum(other[name] != text[name] for name in text) > len(text) / 2
    greedy = sample(1, temperature=0.0)[1]
    assert greedy != text
    assert sample(2, temperature=0.0)[1] == greedy


# -- wrong, without one of them --------------------------------------------------------------------


@pytest.mark.parametrize(
    "handling",
    ["positions that were read before", "positions of chunks", "the batch's own order"],
)
def test_steps_cannot_be_counted_without(engine, prompts, handling):
    """Preemption; chunked prefill; decode steps mixed with prefill."""
    many = [replace(p, id=f"{p.id}-{i}") for i in range(4) for p in prompts]
    with without(engine, handling):
        list(engine.count(many))
        found = broken(engine)
    assert found
    for message in found:
        assert re.match(NOT_CONSERVED, message)


def test_tokens_after_the_end_count_nothing(engine, prompts):
    """A pass that was planned before an answer ended reads one token more."""
    with without(engine, "tokens after the end"):
        list(engine.count(prompts))
        found = broken(engine)
    config = client_of(engine)._llm.vllm_config.scheduler_config
    if not config.async_scheduling:
        assert found == []
        return
    assert config.get_scheduler_cls().__name__ == "AsyncCountingScheduler"
    assert found
    for message in found:
        assert re.match(NOT_CONSERVED, message)


def test_passes_that_nobody_asked_for_count_nothing(engine):
    """Warm-up, profile and dummy passes, between the instructions of one slot."""
    prompts = make_prompts([5] * 8)

    def count_around_dummies() -> list[str]:
        for tag in "ab":
            list(engine.count([replace(p, id=f"{tag}{p.id}") for p in prompts]))
            client_of(engine).call_workers("sparcom_dummy_passes")
        list(engine.count(prompts))
        return broken(engine)

    assert count_around_dummies() == []
    with without(engine, "passes that nobody asked for"):
        assert re.match(NOT_CONSERVED, count_around_dummies()[0])
    list(engine.count(prompts))
    broken(engine)  # what the last pass left in its slots


def test_aborted_requests_leave_nothing_in_their_slots(engine):
    def abort_and_count() -> list[str]:
        results = engine.count(make_prompts([1, *[120] * 60]))
        next(results)
        results.close()
        list(engine.count(make_prompts([20] * 16)))
        return broken(engine)

    assert abort_and_count() == []
    with without(engine, "counts of aborted requests"):
        assert re.match(NOT_CONSERVED, abort_and_count()[0])


def test_verify_finds_a_wrong_kernel(engine):
    """Its counts are conserved: only the recount by plain torch tells."""
    prompts = make_prompts([20] * 4)
    with without(engine, "the kernel"):
        list(engine.count(prompts))
        found = broken(engine)
    assert re.match(r"verify: \d+ counts differ from plain torch; the first: .*", found[0])


def test_the_end_of_a_sequence_is_no_token_of_the_answer(engine, prompts, monkeypatch):
    """It is written, and never read: a front end that expects it is told by the kernel's rows."""
    client = client_of(engine)
    step = client.step
    monkeypatch.setattr(client, "step", lambda: [(key, n + 1) for key, n in step()])
    list(engine.count(prompts))
    found = broken(engine)
    assert len(found) > 0
    assert all(re.match(NOT_CONSERVED, message) for message in found)
