"""Which class an engine's name and options load, and that it counts what was planned."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sparcom.components import ComponentSpace, Site
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
        monkeypatch.setattr(module, name, lambda o, _name=name, **more: (_name, o, more))


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
