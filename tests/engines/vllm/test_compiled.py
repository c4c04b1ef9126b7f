"""Compiled mode counts, and its caches never mix counting and bare graphs."""

from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import (
    SHAPE,
    by_id,
    make_prompts,
    reference,
    share_of_differing_cells,
    worker_class,
)

from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.engines.vllm.process import running
from sparcom.errors import CountError, SparcomError

pytest.importorskip("vllm", reason="vLLM is not installed")

LENGTHS = [1, 2, 128, 60, 33, 5, 90]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return save_tiny_model(folder, "llama", torch.float32, **SHAPE, num_hidden_layers=2)


@pytest.fixture(scope="module")
def load(folder, tmp_path_factory):
    """Starts compiled engines on one cache."""
    cache = tmp_path_factory.mktemp("cache")

    def start(count: bool) -> VllmEngine:
        return VllmEngine(
            VllmOptions(
                str(folder), dtype="float32", batch_tokens=64, slots=4, verify=True,
                compile=True, count=count, restarts=0, threads=1,
            )
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(cache))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
        yield start
    assert any(cache.rglob("*"))


def test_bare_counting_bare_on_one_cache(folder, load):
    """A counting engine that ran a bare graph would fail its conservation, and a bare one that ran
    a counting graph would find no recorder."""
    prompts = make_prompts(LENGTHS)
    for count in (False, True, False):
        engine = load(count)
        try:
            if count:
                ours = by_id(engine.count(prompts))
                assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4
            else:
                assert engine.read(prompts) == len(prompts)
                with pytest.raises(SparcomError, match="loaded with count=False"):
                    engine.count_parts(prompts)
        finally:
            engine.close()


class BareHash(CountingConfig):
    """Counting that vLLM's cache key does not tell from none."""

    def compute_hash(self) -> str:
        return "None"


def test_a_cache_key_that_does_not_tell_counting_counts_all_the_same(folder, load, monkeypatch):
    """On the cache of a bare engine. Our part of the key is not the only one: vLLM 0.32 keys graphs
    by the sources that it traced as well, and those that count are others."""
    load(False).close()
    monkeypatch.setattr(running, "CountingConfig", BareHash)
    prompts, engine = make_prompts(LENGTHS), load(True)
    try:
        ours = by_id(engine.count(prompts))
        assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4
    finally:
        engine.close()


def test_counting_put_in_after_compilation_is_found_out(load):
    """As a forward hook or a patch set after the load: never called, at full speed."""
    with (
        worker_class("vllm_workers.LateWorker"),
        pytest.raises(CountError, match=r"layer0.dense saw 0 rows of .*sparcom-self-test"),
    ):
        load(True)
