"""vLLM's second model runner: counts equal transformers', and without a part they are found wrong.

It runs on a GPU, and here in a process in which Triton interprets its kernels (`second_runner`).
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM
from vllm_tools import SHAPE, make_prompts, reference, share_of_differing_cells

from sparcom.corpus.prompts.prompts import Prompt

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

pytestmark = pytest.mark.slow
NEW = 9
END = 2
NOT_CONSERVED = r"conservation: layer\d.dense saw \d+ rows of instruction .*, expected \d+"


def answered(folder: Path, prompt: Prompt) -> Prompt:
    """The prompt with its greedy answer as text, all of it counted: by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = list(prompt.token_ids)
    with torch.inference_mode():
        for _ in range(NEW + 1):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == END:
                break
    whole = tuple(ids[:-1])  # the last token is never read
    return Prompt(prompt.id, whole, ((0, len(whole)),))


def shared_header(n: int, header: int = 150) -> list[Prompt]:
    """Prompts whose first tokens are equal, and are not counted."""
    first = make_prompts([header])[0].token_ids
    own = make_prompts([20 + 7 * i for i in range(n)], tag="h", skip=0)
    return [
        replace(p, token_ids=first + p.token_ids, counted=((header, header + len(p.token_ids)),))
        for p in own
    ]


PLAIN = make_prompts([1, 9, 40, 70, 100, 33], tag="a")
# Each grows into a second block of the KV cache, which has four in all.
GROWING = [replace(p, generate=NEW) for p in make_prompts([122, 125, 127, 123], tag="g", skip=0)]
HEADED = shared_header(5)
FORGOTTEN = ["positions of chunks", "the batch's own order", "positions that were read before",
             "the kernel", "passes that nobody asked for"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    shape = {**SHAPE, "max_position_embeddings": 256}
    made = tmp_path_factory.mktemp("second")
    return save_tiny_model(made, "llama", torch.float32, **shape)


@pytest.fixture(scope="module")
def found(folder) -> dict:
    """Three batches with everything in place, one for each part that is left out, and a whole one:
    dummy passes follow each batch, and what they count is found in the next."""
    mixed = PLAIN + [replace(p, id=f"x{p.id}") for p in GROWING]
    batches = [(PLAIN, None), (GROWING, None), (HEADED, None), *((mixed, f) for f in FORGOTTEN)]
    batches.append((PLAIN, None))
    work = {
        "folder": str(folder),
        "options": {"dtype": "float32", "batch_tokens": 48, "slots": 4, "verify": True,
                    "kv_cache_tokens": 512, "context": 200},
        "batches": [
            {"prompts": [[p.id, p.token_ids, p.counted, p.generate] for p in prompts],
             "forget": forget}
            for prompts, forget in batches
        ],
    }  # fmt: skip
    script = Path(__file__).parents[2] / "helpers" / "second_runner.py"
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(work), capture_output=True, text=True,
        env={**os.environ, "VLLM_USE_V2_MODEL_RUNNER": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def counts_of(batch: dict) -> dict[str, tuple[int, np.ndarray]]:
    return {name: (tokens, np.array(row)) for name, (tokens, row) in batch["counts"].items()}


def test_the_second_runner_ran(found):
    assert found["runner"] == "vllm.v1.worker.cpu.model_runner.CPUModelRunner"


def test_prompts_in_chunks_are_counted(found, folder):
    batch = found["batches"][0]
    assert not batch["broken"]
    assert share_of_differing_cells(counts_of(batch), reference(folder, PLAIN)) <= 1e-4


def test_answers_are_counted_once_though_their_requests_are_preempted(found, folder):
    batch = found["batches"][1]
    assert batch["recomputed"] > 0, "nothing was preempted: the test proves nothing"
    assert not batch["broken"]
    expected = reference(folder, [answered(folder, p) for p in GROWING])
    assert share_of_differing_cells(counts_of(batch), expected) <= 1e-4


def test_a_shared_header_is_read_once(found, folder):
    batch = found["batches"][2]
    assert batch["cached"] > 0
    assert batch["cached"] % 128 == 0
    assert not batch["broken"]
    assert share_of_differing_cells(counts_of(batch), reference(folder, HEADED)) <= 1e-4


@pytest.mark.parametrize("forgotten", FORGOTTEN[:3])
def test_it_cannot_be_counted_without(found, forgotten):
    broken = found["batches"][3 + FORGOTTEN.index(forgotten)]["broken"]
    assert broken
    for message in broken:
        assert re.match(NOT_CONSERVED, message)


def test_passes_that_nobody_asked_for_count_nothing(found):
    """They followed every batch; the one in which they were not ignored is the last but one."""
    *_, last, after = found["batches"]
    assert not last["broken"]
    assert re.match(NOT_CONSERVED, after["broken"][0])


def test_verify_finds_a_wrong_kernel(found):
    broken = found["batches"][3 + FORGOTTEN.index("the kernel")]["broken"]
    assert re.match(r"verify: \d+ counts differ from plain torch; the first: .*", broken[0])
