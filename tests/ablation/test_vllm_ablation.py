"""Ablation in vLLM: losses and counts as in the transformers engine, in one piece or in shards."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from tiny_runs import records, save_tiny_llm, write_corpus
from vllm_tools import (
    SHAPE,
    by_id,
    kill_newest_engine,
    make_prompts,
    share_of_differing_cells,
)

from sparcom.ablation.ablator import Ablator
from sparcom.ablation.target import Target
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.ablation.vllm_ablator import VllmAblator
from sparcom.cli.main import main
from sparcom.engines.base import EngineOptions, PromptError
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow

PROMPTS = make_prompts([2, 128, 60, 33, 5, 90, 47, 48, 49])  # read in chunks of 48 tokens
FAMILIES = {"llama": SHAPE, "qwen2_moe": SHAPE}
PARALLEL = {"tensor_parallel": 2}
ENGINES = {
    "llama": ("llama", {}),
    "llama-tensor": ("llama", PARALLEL),
    "llama-pipeline": ("llama", {"pipeline_parallel": 2}),
    "llama-compiled": ("llama", {"compile": True}),
    "moe": ("qwen2_moe", {}),
    "moe-expert": ("qwen2_moe", {**PARALLEL, "expert_parallel": True}),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """family -> (folder, transformers engine), each made once."""
    made = {}

    def of(family: str) -> tuple[Path, TransformersEngine]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            save_tiny_model(folder, family, torch.float32, **FAMILIES[family])
            plain = EngineOptions(
                str(folder), dtype="float32", batch_tokens=256, threads=1, device="cpu"
            )
            made[family] = folder, TransformersEngine(plain)
        return made[family]

    return of


@pytest.fixture(scope="module", params=ENGINES)
def engines(request, reference):
    """(a vLLM engine, the transformers engine on the same model)."""
    family, more = ENGINES[request.param]
    folder, theirs = reference(family)
    options = VllmOptions(
        str(folder), dtype="float32", batch_tokens=48, slots=4, threads=1, ablation=True, **more
    )
    engine = VllmEngine(options)
    yield engine, theirs
    engine.close()


def targets(space) -> list[Target]:
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(space.neurons, space.neurons // 4, replace=False))
    experts = [Target("e", "experts", np.array([0, 4, 7]))] if space.experts else []
    return [Target("n", "neurons", some), *experts]


def measured(ablator: Ablator, target: Target) -> tuple[np.ndarray, dict]:
    """(losses, counts) with the target ablated."""
    with ablator.ablated(target):
        return ablator.losses(PROMPTS), by_id(ablator.engine.count(PROMPTS))


def test_nothing_ablated(engines):
    ours, theirs = engines
    expected = TransformersAblator(theirs).losses(PROMPTS)
    np.testing.assert_allclose(VllmAblator(ours).losses(PROMPTS), expected, atol=1e-4)
    counts = by_id(ours.count(PROMPTS)), by_id(theirs.count(PROMPTS))
    assert share_of_differing_cells(*counts) <= 1e-4


@pytest.mark.parametrize("how", ["zero", "mean", "scale:0.5", "scale:2", "negative", "positive"])
def test_ablated(engines, how):
    ablators = VllmAblator(engines[0], how), TransformersAblator(engines[1], how)
    whole = ablators[1].losses(PROMPTS)
    before = engines[0].losses(PROMPTS[1:2])
    if how == "mean":
        ours, theirs = (a.calibrate(PROMPTS) for a in ablators)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(theirs).max() > 0.1
    for target in targets(engines[0].space):
        (ours, counts), (theirs, expected) = (measured(a, target) for a in ablators)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert np.abs(theirs - whole).max() > 1e-2
        assert share_of_differing_cells(counts, expected) <= 1e-4
    np.testing.assert_array_equal(engines[0].losses(PROMPTS[1:2]), before)  # one prompt: one batch


@pytest.mark.parametrize("how", ["route", "boost:2", "boost:-1"])
def test_routed_around_and_boosted(engines, how):
    if not engines[0].space.experts:
        pytest.skip("the model has no routed experts")
    target = Target("e", "experts", np.array([0, 4]))
    ablators = VllmAblator(engines[0], how), TransformersAblator(engines[1], how)
    before = engines[0].losses(PROMPTS[1:2])
    whole = by_id(engines[0].count(PROMPTS))
    (ours, counts), (theirs, expected) = (measured(a, target) for a in ablators)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert share_of_differing_cells(counts, expected) <= 1e-4
    assert any((counts[name][1] != whole[name][1]).any() for name in counts)
    np.testing.assert_array_equal(engines[0].losses(PROMPTS[1:2]), before)


def test_scaling_by_one_changes_no_bit(engines):
    engine = engines[0]
    everything = Target("all", "neurons", np.arange(engine.space.neurons))
    before = engine.losses(PROMPTS[1:2])
    with VllmAblator(engine, "scale:1").ablated(everything):
        np.testing.assert_array_equal(engine.losses(PROMPTS[1:2]), before)
    with VllmAblator(engine, "scale:1.5").ablated(everything):
        assert (engine.losses(PROMPTS[1:2]) != before).all()


@pytest.mark.parametrize("how", ["zero", "scale:2", "positive"])
def test_answers_are_written_as_in_transformers(engines, how):
    ablators = VllmAblator(engines[0], how), TransformersAblator(engines[1], how)
    prompts = [PROMPTS[at] for at in (0, 2, 4)]
    whole = ablators[1].write(prompts, 12)
    counts = by_id(engines[0].count(PROMPTS))
    assert ablators[0].write(prompts, 12) == whole
    target = targets(engines[0].space)[0]
    with ablators[0].ablated(target), ablators[1].ablated(target):
        ours, theirs = (ablator.write(prompts, 12) for ablator in ablators)
    assert ours == theirs != whole
    again = by_id(engines[0].count(PROMPTS))  # nothing of what was written is counted
    assert share_of_differing_cells(again, counts) <= 1e-4


def test_an_engine_that_starts_again_keeps_what_is_ablated(reference):
    folder, _ = reference("llama")
    options = VllmOptions(str(folder), dtype="float32", slots=4, threads=1, ablation=True)
    engine = VllmEngine(options)
    try:
        ablator, target = VllmAblator(engine), targets(engine.space)[0]
        with ablator.ablated(target):
            before = ablator.losses(PROMPTS[:1])
            kill_newest_engine()
            with pytest.raises(PromptError, match="forward pass failed on"):
                ablator.losses(PROMPTS[:1])
            np.testing.assert_array_equal(ablator.losses(PROMPTS[:1]), before)
        assert (ablator.losses(PROMPTS[:1]) != before).any()
        with pytest.raises(InputError, match="flat indices must be in"):
            engine.ablate(np.array([engine.space.neurons]))
    finally:
        engine.close()


def test_the_command(tmp_path, capsys):
    model = save_tiny_llm(tmp_path / "model", **SHAPE)
    rows = [{**row, "reference": "the sea is blue"} for row in records(12)]
    corpus, run = write_corpus(tmp_path / "c.jsonl", rows), str(tmp_path / "run")
    given = ["--model", str(model), "--corpus", str(corpus), "--out", run, "--cpus", "1"]
    assert main(["count", *given, "--dtype", "float32", "--template", "raw"]) == 0
    found = {}
    for engine in ("transformers", "vllm"):
        capsys.readouterr()
        how = ["--target", "top:12", "--how", "mean", "--random-sets", "2", "--cpus", "1"]
        assert main(["ablate", run, "--engine", engine, *how, "--json"]) == 0
        found[engine] = json.loads(capsys.readouterr().out)["rows"]
    figures = {
        engine: [(r["loss"], r["effect"], r["selectivity"] or 0) for r in rows]
        for engine, rows in found.items()
    }
    np.testing.assert_allclose(figures["vllm"], figures["transformers"], atol=1e-4)
    assert np.abs(figures["vllm"])[:, 1].max() > 1e-3
    for name in ("frequency", "contribution", "random_sets", "verdict"):  # transformers measures
        assert [r[name] for r in found["vllm"]] == [r[name] for r in found["transformers"]]
    assert {r["kl"] for r in found["vllm"]} == {None}  # it shows no distributions
