"""An engine with modules of its own is proved by what transformers' own modules count."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from transformers_tools import load

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines import against
from sparcom.engines.against import Prover
from sparcom.engines.base import EngineInfo, EngineOptions
from sparcom.engines.proved import ProvedByCounts
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("m"), "llama", torch.float32)


def options_of(folder: Path, **more: object) -> EngineOptions:
    return EngineOptions(
        str(folder), dtype="float32", batch_tokens=64, slots=8, threads=1, device="cpu", **more
    )


class Other(ProvedByCounts):
    """An engine under another name; `change` is what is wrong with its counts."""

    def __init__(self, inner: TransformersEngine, change=lambda counted: counted) -> None:
        self.inner, self.change, self.space = inner, change, inner.space
        self.set_info(replace(inner.info, name="other"))

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        yield from map(self.change, self.inner.count(prompts[::-1]))


@pytest.mark.parametrize("asked", [{}, {"threshold": 0.4}, {"signal": "product"}])
def test_an_engine_that_counts_alike_is_proved_whatever_fires(folder: Path, asked: dict) -> None:
    options = options_of(folder, **asked)
    prover = Prover.of(options, longest=0)
    engine = Other(load(folder, "float32", prove=False, batch_tokens=96, **asked))
    engine.set_proof(prover.prove(engine), prover.why)
    assert [site.site for site in engine.proof.sites] == [f"layer{j}.dense" for j in range(3)]
    assert all(site.difference <= 1e-3 for site in engine.proof.sites)
    assert engine.info.proof == json.loads(json.dumps(engine.info.proof))
    assert engine.info.proof["proved"] is True
    assert engine.info.proof["passes"] == "as other schedules them"
    assert engine.info.proof["prompts"] == [37, 13]


def test_an_engine_that_counts_otherwise_is_refused_by_site(folder: Path) -> None:
    def change(counted: Counted) -> Counted:
        counted.neurons[:, 56:112] = counted.neurons[:, 56:112][:, ::-1]
        return counted

    prover = Prover.of(options_of(folder), longest=0)
    message = (
        r"^what other counts is not the model's own pass: layer1\.dense: .* % of its firings "
        "differ .*; try --engine transformers$"
    )
    with pytest.raises(InputError, match=message):
        prover.prove(Other(load(folder, "float32", prove=False), change))


def test_a_refusal_tells_in_what_the_engine_is_known_to_differ(folder: Path) -> None:
    prover = Prover.of(options_of(folder), longest=0)
    engine = Other(load(folder, "float32", prove=False))
    assert prover.prove(engine, {"llama": "its window"}) is not None
    engine.space = ComponentSpace(engine.space.sites[:2])
    with pytest.raises(InputError, match=r"this None \(its window\); try --engine transformers$"):
        prover.prove(engine, {"llama": "its window", "gpt2": "all"})
    with pytest.raises(InputError, match=r"this None; try --engine transformers$"):
        prover.prove(engine, {"gpt2": "all"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sites: (replace(sites[0], kind="shared"), *sites[1:]), r"layer0\.dense: the sites"),
        (lambda sites: sites[:2], r"layer2\.dense: the sites differ: .* this None"),
    ],
)
def test_an_engine_of_other_sites_is_refused_before_counts_are_compared(
    folder: Path, change, message: str
) -> None:
    """Its counts would lie in another order, and a right engine would seem to count nonsense."""
    prover = Prover.of(options_of(folder), longest=0)
    engine = Other(load(folder, "float32", prove=False))
    engine.space = ComponentSpace(change(engine.space.sites))
    with pytest.raises(InputError, match=message):
        prover.prove(engine)


def test_an_engine_that_starts_again_keeps_its_proof(folder: Path) -> None:
    engine = Other(load(folder, "float32", prove=False))
    assert engine.info.proof == {"proved": False, "why": "it was loaded without `load_engine`"}
    prover = Prover.of(options_of(folder), longest=0)
    engine.set_proof(prover.prove(engine), prover.why)
    again = EngineInfo(name="other", dtype="float32", device="cpu", threads=2, batch_tokens=64)
    engine.set_info(again)
    assert engine.info == replace(again, proof=engine.proof.facts())


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"prove": False}, "--no-prove"), ({"count": False}, "nothing is counted")],
)
def test_who_asks_for_no_proof_loads_nothing(folder: Path, monkeypatch, changes, why) -> None:
    monkeypatch.setattr(TransformersEngine, "__init__", None)
    prover = Prover.of(options_of(folder, **changes), longest=0)
    assert (prover.expected, prover.why) == (None, why)
    engine = object()
    assert prover.prove(engine) is None


def test_a_model_that_does_not_fit_here_is_not_proved_and_says_so(folder, monkeypatch) -> None:
    monkeypatch.setattr(against, "_free_memory", lambda device: 10_000)
    prover = Prover.of(options_of(folder), longest=0)
    assert prover.expected is None
    assert "do not fit into one device of 0 MB for the transformers engine" in prover.why
    assert "sparcom verify" in prover.why


def test_the_memory_of_this_machine_is_known() -> None:
    assert against._free_memory("cpu") > 1 << 20


def test_a_model_that_transformers_does_not_count_is_not_proved(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "jetmoe", torch.float32, num_local_experts=4)
    prover = Prover.of(options_of(folder), longest=0)
    assert prover.expected is None
    assert prover.why.startswith("the transformers engine does not count it: model.layers.0.")
