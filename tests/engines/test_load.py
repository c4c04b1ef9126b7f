"""Which class an engine's name and options load, and that it counts what was planned."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import pytest

from sparcom.components import ComponentSpace, Site
from sparcom.engines import load
from sparcom.engines.base import EngineOptions
from sparcom.engines.load import check_sites, load_engine
from sparcom.engines.transformers import engine as transformers_engine
from sparcom.engines.vllm import engine as vllm_engine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.shards import group
from sparcom.errors import InputError, SparcomError


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that say which they are, and how they were loaded."""
    for module, name in (
        (transformers_engine, "TransformersEngine"),
        (vllm_engine, "VllmEngine"),
        (group, "ShardGroup"),
    ):
        monkeypatch.setattr(module, name, partial(Loaded, name))
    monkeypatch.setattr(load, "Prover", FakeProver)


class Loaded:
    """An engine that was loaded; equal to (its class, its options, what else it was given)."""

    def __init__(self, name: str, options: EngineOptions, **more: object) -> None:
        self.loaded, self.open, self.proof = (name, options, more), True, None

    def __eq__(self, other: object) -> bool:
        return self.loaded == other

    __hash__ = None

    def set_proof(self, proof: object, why: str) -> None:
        self.proof = proof, why

    def close(self) -> None:
        self.open = False


class FakeProver:
    """Stands for the transformers engine that is loaded first."""

    why = "because"
    fault: Exception | None = None
    seen: ClassVar[list[Loaded]] = []

    @classmethod
    def of(cls, options: EngineOptions, longest: int) -> "FakeProver":
        cls.options, cls.longest = options, longest
        return cls()

    def prove(self, engine: Loaded, known: object) -> str:
        self.seen.append(engine)
        if self.fault:
            raise self.fault
        return "proof"


PLAIN = EngineOptions("m", slots=3)


def test_plain_options_load_either_engine() -> None:
    assert load_engine("transformers", PLAIN) == ("TransformersEngine", PLAIN, {})
    assert load_engine("vllm", PLAIN) == ("VllmEngine", VllmOptions("m", slots=3), {})


@pytest.mark.parametrize("split", ["tensor_parallel", "pipeline_parallel"])
def test_a_model_in_shards_is_loaded_by_actors_unless_it_is_ablated(split: str) -> None:
    """Actors ablate nothing: an ablated model is shared by vLLM's own processes."""
    counted = VllmOptions("m", **{split: 2})
    assert load_engine("vllm", counted, gpus=0.5) == ("ShardGroup", counted, {"gpus": 0.5})
    ablated = replace(counted, ablation=True)
    assert load_engine("vllm", ablated, gpus=0.5) == ("VllmEngine", ablated, {})


def test_what_vllm_counts_is_proved_and_what_transformers_counts_proves_itself() -> None:
    options = VllmOptions("m", context=40)
    assert load_engine("vllm", options).proof == ("proof", "because")
    assert (FakeProver.options, FakeProver.longest) == (options, 40)
    load_engine("vllm", VllmOptions("m"), longest=7)
    assert FakeProver.longest == 7
    assert load_engine("transformers", PLAIN).proof is None


def test_an_engine_that_is_not_the_models_own_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProver, "fault", InputError("not the model's own"))
    with pytest.raises(InputError, match="not the model's own"):
        load_engine("vllm", VllmOptions("m"))
    assert not FakeProver.seen[-1].open


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="engine: expected transformers or vllm, got 'sglang'"):
        load_engine("sglang", PLAIN)


SITES = tuple(Site("dense", layer, 4, "silu") for layer in range(3))
PLANNED = SITES[:2]


@pytest.mark.parametrize("found", [(SITES[0], replace(SITES[1], gated=False)), SITES[:1], SITES])
def test_an_engine_that_counts_other_sites_than_planned_is_refused(found: tuple[Site, ...]) -> None:
    info = SimpleNamespace(name="vllm")
    engine = SimpleNamespace(info=info, space=ComponentSpace(found))
    with pytest.raises(SparcomError, match=r"engine vllm: expected the site .*, got .*; use the"):
        check_sites(engine, ComponentSpace(PLANNED))
    check_sites(engine, ComponentSpace(found))


def test_an_engine_that_computes_another_function_is_refused_by_its_name() -> None:
    """vLLM's Bloom: gelu for its approximation by tanh."""
    info, found = SimpleNamespace(name="vllm"), replace(SITES[1], activation="gelu")
    engine = SimpleNamespace(info=info, space=ComponentSpace((SITES[0], found)))
    message = "engine vllm computes gelu in layer1.dense, where transformers computes silu; use"
    with pytest.raises(SparcomError, match=message):
        check_sites(engine, ComponentSpace(PLANNED))
