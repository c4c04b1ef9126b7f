"""Prompts that begin alike: the beginning is computed once, and every counted token is counted.

The counts are those of transformers, which caches nothing; conservation is checked by the engine
for every instruction at every site, and finds a scheduler that takes counted tokens from the cache.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import (
    SHAPE,
    by_id,
    client_of,
    make_prompts,
    reference,
    share_of_differing_cells,
)

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import CountError

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = pytest.mark.slow
BLOCK = 128  # tokens that vLLM caches together, on CPU
HEADER = 300  # two blocks, and a part of the third
CONTEXT = 512


def with_header(lengths: list[int], header: int = HEADER) -> list[Prompt]:
    """Prompts that share their first tokens, which are not counted, and no others."""
    shared = make_prompts([HEADER])[0].token_ids[:header]
    own = make_prompts(lengths, tag="own", skip=0)
    return [
        replace(p, token_ids=shared + p.token_ids, counted=((header, header + len(p.token_ids)),))
        for p in own
    ]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def folder(request, tmp_path_factory) -> Path:
    """Full attention; a sliding window that is shorter than the header and longer than a block."""
    shape = {**SHAPE, "max_position_embeddings": CONTEXT}
    if request.param == "mistral":
        shape["sliding_window"] = 150
    made = tmp_path_factory.mktemp(request.param)
    return save_tiny_model(made, request.param, torch.float32, **shape)


def load(folder: Path, **options) -> VllmEngine:
    given = {"dtype": "float32", "batch_tokens": 256, "slots": 4, "threads": 1, "prove": False}
    return VllmEngine(VllmOptions(str(folder), **{**given, **options}))


@pytest.fixture(scope="module")
def engine(folder) -> Iterator[VllmEngine]:
    made = load(folder, verify=True)
    yield made
    made.close()


def read_from_cache(engine: VllmEngine, prompts: list[Prompt]) -> tuple[dict, int]:
    """Counts, and the tokens that came from the cache."""
    before = engine.cached
    found = by_id(engine.count(prompts))
    return found, engine.cached - before


def test_a_shared_header_is_read_once_and_the_rest_is_counted(engine, folder):
    prompts = with_header([1, 40, 90, 128, 129, 200, 17, 64])
    first, _ = read_from_cache(engine, prompts[:1])
    rest, cached = read_from_cache(engine, prompts[1:])
    assert cached == HEADER // BLOCK * BLOCK * len(prompts[1:])
    assert share_of_differing_cells(first | rest, reference(folder, prompts)) <= 1e-4


def test_equal_instructions_are_all_counted(engine, folder):
    """Their own tokens are in the cache too, whole blocks of them, and are computed again."""
    one = with_header([200])[0]
    same = [replace(one, id=f"same{i}") for i in range(9)]
    ours, cached = read_from_cache(engine, same)
    assert cached >= HEADER // BLOCK * BLOCK * 5, "too little was cached: the test proves nothing"
    assert cached % (HEADER // BLOCK * BLOCK) == 0
    assert {tokens for tokens, _ in ours.values()} == {200}
    assert share_of_differing_cells(ours, reference(folder, same)) <= 1e-4


@pytest.mark.parametrize("header", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_the_cache_ends_before_the_first_counted_token(engine, folder, header):
    prompts = [replace(p, id=f"{p.id}-{i}") for i in range(2) for p in with_header([150], header)]
    list(engine.count(prompts[:1]))
    ours, cached = read_from_cache(engine, prompts[1:])
    assert cached == header // BLOCK * BLOCK
    assert share_of_differing_cells(ours, reference(folder, prompts[1:])) <= 1e-4


def test_tokens_that_are_counted_in_one_prompt_are_read_for_another(engine, folder):
    """What one prompt does not count, another may: `prompt` and `instruction` scopes of a text."""
    text = with_header([60])[0]
    whole = replace(text, id="whole", counted=((0, len(text.token_ids)),))
    last = replace(text, id="last", counted=((len(text.token_ids) - 1, len(text.token_ids)),))
    for prompt, cached_tokens in ((text, 256), (whole, 0), (last, 256), (text, 256)):
        ours, cached = read_from_cache(engine, [prompt])
        assert cached <= cached_tokens
        assert share_of_differing_cells(ours, reference(folder, [prompt])) <= 1e-4


def test_an_answer_is_counted_after_a_prompt_from_the_cache(engine):
    """Scope response: nothing of the prompt counts, so that all its whole blocks may be cached."""
    asked = [Prompt(f"r{i}", make_prompts([HEADER])[0].token_ids, (), generate=20) for i in "abc"]
    first, _ = read_from_cache(engine, asked[:1])
    again, cached = read_from_cache(engine, asked[1:])
    assert cached == 2 * (HEADER // BLOCK * BLOCK)
    for _, row in again.items():
        assert row[0] == first["ra"][0] <= 20
        assert (row[1] == first["ra"][1]).all()


def test_losses_are_of_every_token(engine):
    """vLLM has no loss for a token from the cache; it then reads the whole prompt."""
    prompts = with_header([30, 30, 9])
    list(engine.count(prompts))
    whole = [replace(p, counted=((1, len(p.token_ids)),)) for p in prompts]
    fresh = engine.losses(whole)
    assert len(fresh) == 3
    assert (abs(engine.losses(whole) - fresh) < 1e-6).all()


def test_a_scheduler_that_counts_on_the_cache_is_found(folder, monkeypatch):
    """Without its part that stops the cache at the first counted token, rows are missing."""
    from sparcom.engines.vllm.process import launch

    monkeypatch.setattr(launch, "SCHEDULER", "vllm.v1.core.sched.scheduler.Scheduler")
    engine = load(folder)
    try:
        text = with_header([200])[0]
        list(engine.count([text]))
        with pytest.raises(CountError, match=r"saw 116 rows of instruction again, expected 200"):
            list(engine.count([replace(text, id="again")]))
    finally:
        engine.close()


def test_no_cache_where_it_is_not_asked_for(folder):
    engine = load(folder, prefix_caching=False)
    try:
        list(engine.count([replace(p, id=f"{p.id}{i}") for i in "ab" for p in with_header([5, 9])]))
        assert engine.cached == 0
    finally:
        engine.close()


def test_bfloat16_counts_are_the_same_with_and_without_a_cache(tmp_path):
    """To the last bit, as they are whatever the batching on CPU."""
    shape = {**SHAPE, "max_position_embeddings": CONTEXT}
    made = save_tiny_model(tmp_path, "llama", torch.bfloat16, **shape)
    prompts = with_header([1, 40, 90, 128, 129, 200, 17, 64])
    found = {}
    for caching in (True, False):
        engine = load(made, dtype="bfloat16", prefix_caching=caching)
        try:
            list(engine.count([replace(prompts[0], id="first")]))
            found[caching] = by_id(engine.count(prompts))
            assert bool(client_of(engine).cached) == caching
        finally:
            engine.close()
    for name, (tokens, row) in found[False].items():
        assert found[True][name][0] == tokens
        assert (found[True][name][1] == row).all()
