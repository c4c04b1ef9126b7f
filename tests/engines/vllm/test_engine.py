"""The engine on one worker: counts equal the transformers engine's, each token once."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from tiny_runs import save_tiny_llm
from vllm_tools import SHAPE, by_id, client_of, make_prompts, reference, share_of_differing_cells

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.errors import CountError, InputError

pytest.importorskip("vllm", reason="vLLM is not installed")

LONG = 512  # blocks of the KV cache hold 128 tokens: shorter prompts share none
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    shape = {**SHAPE, "max_position_embeddings": LONG}
    return save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32, **shape)


@pytest.fixture(scope="module")
def engine(folder):
    """Steps shorter than most prompts, few slots, and the plain recount beside the kernel."""
    made = VllmEngine(
        VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=6, verify=True, threads=1)
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
    lengths = [1, 2, LONG, LONG - 1, 48, 49, *rng.integers(1, 128, 494)]
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


def sharing_a_prefix() -> list[Prompt]:
    """Prompts of 300 to 400 tokens, the first 256 of which are the same; one of them twice."""
    (start,) = make_prompts([256], skip=0)
    ends = make_prompts([44, 100, 144], skip=0)
    prompts = [
        Prompt(end.id, start.token_ids + end.token_ids, ((0, 256 + len(end.token_ids)),))
        for end in ends
    ]
    return [*prompts, replace(prompts[0], id="again")]


def test_prompts_that_share_a_prefix_count_it_each(engine, folder):
    prompts = sharing_a_prefix()
    (first,) = engine.count(prompts[:1])
    rest = by_id(engine.count(prompts[1:]))
    assert {name: tokens for name, (tokens, _) in rest.items()} == {
        "p1": 356, "p2": 400, "again": 300,
    }  # fmt: skip
    np.testing.assert_array_equal(rest["again"][1], first.neurons[0])
    ours = {**by_id([first]), **rest}
    assert share_of_differing_cells(ours, reference(folder, prompts)) <= 1e-4


@pytest.fixture
def vllm_defaults(folder, monkeypatch):
    """An engine with vLLM's own settings where ours differ: any tokens from the prefix cache, no
    room for a token."""
    build = launch.engine_args
    own = {"enable_prefix_caching": True, "scheduler_cls": None, "max_model_len": LONG}

    def as_vllm(*arguments):
        return {**build(*arguments), **own}

    monkeypatch.setattr(launch, "engine_args", as_vllm)
    made = VllmEngine(VllmOptions(str(folder), dtype="float32", slots=2, restarts=0, threads=1))
    yield made
    made.close()


def test_our_settings_of_vllm_are_needed(vllm_defaults):
    from vllm.exceptions import VLLMValidationError

    (full,) = make_prompts([LONG])
    with pytest.raises(VLLMValidationError, match=rf"\(length {LONG}\) .* is longer than"):
        client_of(vllm_defaults).add("full", full, 0)
    prompts = sharing_a_prefix()
    assert len(by_id(vllm_defaults.count(prompts[:1]))) == 1
    with pytest.raises(CountError, match=r"saw 44 rows of instruction again, expected 300"):
        list(vllm_defaults.count(prompts[-1:]))


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
        (Prompt("long", (5,) * (LONG + 1), ((0, 1),)), f"instruction long: {LONG + 1} tokens, but"),
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
    assert engine.context == LONG
    assert engine.recomputed == 0


SCRIPT = """
import sys
from sparcom import Model
if __name__ == "__main__" or sys.argv[2] == "unguarded":
    with Model(sys.argv[1], engine="vllm", dtype="float32") as model:
        print(model.count(["words"]).tokens)
"""


def run_script(tmp_path: Path, how: str) -> subprocess.CompletedProcess:
    """Run it with a temporary directory of its own, in which it must leave nothing."""
    model, file = save_tiny_llm(tmp_path / "model", **SHAPE), tmp_path / "script.py"
    file.write_text(SCRIPT)
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # short: Unix sockets
    try:
        return subprocess.run(
            [sys.executable, file, model, how], text=True, capture_output=True, timeout=200,
            check=False, env={**os.environ, "TMPDIR": str(temporary)},
        )  # fmt: skip
    finally:
        left = list(temporary.iterdir())
        shutil.rmtree(temporary)
        assert not left


def test_a_script_leaves_no_file_behind(tmp_path):
    """vLLM by itself leaves the sockets of its processes in the temporary directory."""
    done = run_script(tmp_path, "guarded")
    assert done.returncode == 0, done.stderr
    assert "[" in done.stdout


def test_a_script_that_vllms_processes_run_again_is_told_what_to_do(tmp_path):
    done = run_script(tmp_path, "unguarded")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "InputError: engine vllm: its processes import the script" in last
