"""What the engine of a config reads and counts is what the run is laid out for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.components import ComponentSpace, Site
from sparcom.config import RunConfig
from sparcom.engines.vllm import model_facts
from sparcom.errors import InputError
from sparcom.pipeline import actor
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.plan import prepare


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Of a model that reads 128 tokens, and instructions of up to 14."""
    model = save_tiny_llm(tmp_path / "model")
    corpus = write_corpus(tmp_path / "corpus.jsonl", records(9))
    return RunConfig(str(model), corpus=str(corpus), out=str(tmp_path / "run"), template="raw")


def longest(config: RunConfig) -> int:
    """Tokens of the longest prompt that is planned."""
    plan = prepare(config, overwrite=True)
    return max(len(p.token_ids) for p in plan.store.corpus.prompts(0)[0])


def test_a_prompt_that_vllm_does_not_read_is_found_while_the_run_is_planned(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = longest(config)
    monkeypatch.setattr(model_facts, "DEFAULT_CONTEXT", 8)
    assert longest(config) == whole > 8  # transformers reads what the model does
    vllm = replace(config, engine="vllm")
    with pytest.raises(InputError, match=r"tokens, but the model reads at most 8; .*--context"):
        prepare(vllm, overwrite=True)
    assert longest(replace(vllm, truncate=True)) == 8
    assert longest(replace(vllm, context=whole)) == whole
    assert prepare(replace(vllm, context=64), overwrite=True).work.options.context == 64
    with pytest.raises(InputError, match="context 999 is more than the model reads, 128 tokens"):
        prepare(replace(vllm, context=999), overwrite=True)


def test_an_actor_stores_nothing_of_an_engine_that_counts_other_sites(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, closed = prepare(config), []
    info, other = SimpleNamespace(name="vllm"), ComponentSpace((Site("dense", 0, 4, "silu"),))
    engine = SimpleNamespace(info=info, space=other, close=lambda: closed.append(1))
    monkeypatch.setattr(actor, "load_engine", lambda *_, **__: engine)
    found = CountActor(plan.work).count(0)
    assert isinstance(found, actor.PartError)
    assert (found.kind, closed) == ("SparcomError", [1])
    assert plan.store.done_parts("counts") == set()
