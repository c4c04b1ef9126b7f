"""What fails in a worker reaches the caller with its cause, and leaves no process behind."""

import os
from contextlib import ExitStack, suppress

import psutil
import pytest
import torch
from tiny_models import save_tiny_model
from vllm_faulty_workers import POISON
from vllm_tools import SHAPE, by_id, kill_newest_engine, make_prompts, worker_class

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import CountError, InputError, SparcomError

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32, **SHAPE))


@pytest.fixture
def load(folder):
    engines: list[VllmEngine] = []
    with ExitStack() as stack:

        def start(worker: str, **options) -> VllmEngine:
            stack.enter_context(worker_class(f"vllm_faulty_workers.{worker}"))  # restarts too
            given = VllmOptions(folder, dtype="float32", slots=4, threads=1, **options)
            engines.append(VllmEngine(given))
            return engines[-1]

        yield start
        for engine in engines:
            engine.close()


def workers() -> list[psutil.Process]:
    """Processes of vLLM that this one has started, also those whose parent is gone."""
    here, found = os.getpgrp(), []
    for process in psutil.process_iter(["pid", "name", "status"]):
        if process.info["name"].startswith("VLLM") and process.info["status"] != "zombie":
            with suppress(ProcessLookupError):
                if os.getpgid(process.pid) == here:
                    found.append(process)
    return found


def test_a_poisoned_pass_names_ids_and_cause_and_the_engine_starts_again(load):
    engine = load("PoisonedWorker")
    assert workers()
    good = make_prompts([10, 20])
    good = [Prompt(p.id, tuple(t % 90 + 1 for t in p.token_ids), p.counted) for p in good]
    assert len(by_id(engine.count(good))) == 2
    bad = Prompt("bad", (5, POISON, 6), ((0, 3),))
    with pytest.raises(PromptError, match=r"ZeroDivisionError: poison$") as caught:
        list(engine.count([good[0], bad]))
    assert "bad" in caught.value.ids
    assert not workers(), "the dead engine's processes are still there"
    assert len(by_id(engine.count(good))) == 2
    engine.close()
    assert not workers()
    with pytest.raises(SparcomError, match="closed"):
        list(engine.count(good))


def test_a_group_whose_worker_fails_or_is_killed_leaves_none_behind(load):
    engine = load("PoisonedWorker", tensor_parallel=2, restarts=1)
    assert len(workers()) == 3, "an engine process and two workers"
    next(p for p in workers() if "Worker" in p.name()).kill()
    with pytest.raises(PromptError, match="forward pass failed on"):
        list(engine.count(make_prompts([100] * 8)))
    assert not workers()
    with pytest.raises(PromptError, match=r"ZeroDivisionError: poison$"):
        list(engine.count([Prompt("bad", (5, POISON, 6), ((0, 3),))]))
    assert not workers()


def test_a_killed_engine_process_fails_what_is_under_way_and_the_engine_starts_again(load):
    """As the system kills one for its memory: vLLM's own client would wait for ever."""
    engine = load("PoisonedWorker", batch_tokens=16)
    prompts = [
        Prompt(p.id, tuple(t % 90 + 1 for t in p.token_ids), p.counted)
        for p in make_prompts([100] * 40)
    ]
    results = engine.count(prompts)
    next(results)
    kill_newest_engine()
    with pytest.raises(PromptError, match=r"ChildProcessError|EngineDeadError"):
        list(results)
    assert not workers()
    assert len(by_id(engine.count(prompts[:3]))) == 3
    engine.close()
    assert not workers()


def test_a_start_that_fails_half_way_leaves_no_process_behind(load):
    with pytest.raises(SparcomError, match=r"did not start: MemoryError: no room for the weights$"):
        load("RoomlessWorker", tensor_parallel=2)
    assert not workers()


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton has kernels where a GPU is")
def test_a_model_that_needs_triton_is_refused_with_the_reason(load):
    with pytest.raises(
        SparcomError,
        match=r"loads it, but its first pass fails here: TypeError: .* not subscriptable; it calls "
        "a Triton kernel there, which runs on GPUs alone$",
    ):
        load("KernelWorker")
    assert not workers()


def test_passes_that_nobody_counts_cannot_go_unnoticed(load):
    with pytest.raises(
        CountError, match=r"layer0.dense saw 0 rows of instruction sparcom-self-test"
    ):
        load("DeafWorker")
    assert not workers()


def test_a_broken_hook_point_is_named(load):
    with pytest.raises(InputError, match=r"CPUModelRunner.query_start_loc, which counting hooks"):
        load("HooklessWorker")
    assert not workers()
