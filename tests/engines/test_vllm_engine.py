"""The engine on one worker: counts equal the transformers engine's, each token once."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vllm_tools import CONTEXT, SHAPE, by_id, make_prompts, reference, share_of_differing_cells

from sparcom.corpus.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError
from tiny_models import save_tiny_model

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32, **SHAPE)


@pytest.fixture(scope="module")
def engine(folder):
    """Steps shorter than most prompts, few slots, and the plain recount beside the kernel."""
    made = VllmEngine(
        VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=6, verify=True)
    )
    yield made
    made.close()


def test_the_space_is_that_of_the_transformers_engine(engine, folder):
    options = EngineOptions(str(folder), dtype="float32", device="cpu")
    assert engine.space == TransformersEngine(options).space


def test_counts_equal_the_transformers_engine(engine, folder):
    """500 prompts of mixed length in one go; prompts of 1 token, of 2, and at the context limit;
    chunks of at most 48 tokens, so that most prompts are read in several steps."""
    rng = np.random.default_rng(0)
    lengths = [1, 2, CONTEXT, CONTEXT - 1, 48, 49, *rng.integers(1, CONTEXT, 494)]
    prompts = make_prompts(int(n) for n in lengths)
    share = share_of_differing_cells(by_id(engine.count(prompts)), reference(folder, prompts))
    assert share <= 1e-4


def test_counted_ranges_leave_the_other_tokens_out(engine, folder):
    prompts = make_prompts([60] * 4)
    ranges = [((0, 1),), ((59, 60),), ((5, 20), (50, 60)), ((30, 50),)]
    prompts = [replace(p, counted=r) for p, r in zip(prompts, ranges, strict=True)]
    ours = by_id(engine.count(prompts))
    assert [ours[p.id][0] for p in prompts] == [1, 1, 25, 20]
    assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4


def test_identical_prompts_have_identical_counts_whatever_is_cached(engine):
    (one,) = make_prompts([100])
    first = by_id(engine.count([replace(one, id=f"a{i}") for i in range(3)]))
    again = by_id(engine.count([one]))[one.id]
    for tokens, row in first.values():
        assert tokens == 99
        np.testing.assert_array_equal(row, again[1])


def test_callers_in_several_threads_get_their_own(engine):
    batches = {tag: make_prompts([30, 5, 70, 12], tag) for tag in "abc"}
    expected = by_id(engine.count(make_prompts([30, 5, 70, 12])))
    found: dict[str, dict] = {}

    def call(tag: str) -> None:
        found[tag] = by_id(engine.count(batches[tag]))

    threads = [threading.Thread(target=call, args=(tag,)) for tag in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for tag, counts in found.items():
        for at in range(4):
            np.testing.assert_array_equal(counts[f"{tag}{at}"][1], expected[f"p{at}"][1])


def test_leaving_early_aborts_requests_and_their_slots_count_afresh(engine):
    prompts = make_prompts([1, *[120] * 20])
    results = engine.count(prompts)
    first = next(results)
    results.close()
    assert "p0" in first.ids
    after = make_prompts([20] * 12)
    tokens = {name: n for name, (n, _) in by_id(engine.count(after)).items()}
    assert tokens == {p.id: 19 for p in after}


def test_results_leave_as_instructions_finish(engine):
    groups = list(engine.count(make_prompts([40] * 12)))
    assert len(groups) > 3
    assert all(len(group.ids) <= 6 for group in groups)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("long", (5,) * (CONTEXT + 1), ((0, 1),)), "instruction long: 129 tokens, but"),
        (Prompt("empty", (), ()), "instruction empty: 0 tokens"),
        (Prompt("odd", (5, 96), ((0, 2),)), "instruction odd: token id outside the model's vocab"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(engine, prompt, message):
    with pytest.raises(InputError, match=message):
        list(engine.count([prompt]))


def test_memory_of_the_counts_is_slots_times_neurons_and_rows(engine):
    assert engine.count_bytes == 4 * 6 * (engine.space.neurons + len(engine.space.sites))


def test_facts_of_the_engine(engine):
    assert (engine.info.name, engine.info.dtype, engine.info.device) == ("vllm", "float32", "cpu")
    assert engine.context == CONTEXT
    assert engine.recomputed == 0
