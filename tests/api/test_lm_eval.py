"""lm-evaluation-harness on a model of ours, against its own class on transformers' model."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import save_tiny_llm
from transformers import AutoModelForCausalLM

import sparcom
from sparcom import InputError, Model
from sparcom.api import lm_eval as adapter

QUESTIONS = (
    "why is the sea blue", "add seven", "sort the words", "sum it", "write it", "is it",
    "why write the words", "x",
)  # fmt: skip
ROWS = [
    {"question": question, "choices": ["the sea", "sum it", "blue", "seven words"], "answer": k % 4}
    for k, question in enumerate(QUESTIONS)
]
UNITS = np.arange(60, 100)  # of the second layer
CHOOSE = {
    "task": "choose", "output_type": "multiple_choice", "doc_to_text": "{{question}}:",
    "doc_to_choice": "{{choices}}", "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
WRITE = {
    "task": "write", "output_type": "generate_until", "doc_to_text": "{{question}}:",
    "doc_to_target": "{{choices[answer]}}", "metric_list": [{"metric": "exact_match"}],
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 9},
}  # fmt: skip
READ = {
    "task": "read", "output_type": "loglikelihood_rolling", "doc_to_text": "",
    "doc_to_target": "{{question}} {{choices}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def harness() -> Any:
    return pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    work = tmp_path_factory.mktemp("tasks")
    file = work / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    here = {
        "dataset_path": "json", "test_split": "test", "num_fewshot": 0,
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(work / "cache")},
    }  # fmt: skip
    return [{**task, **here} for task in (CHOOSE, WRITE, READ)]


def evaluate(harness: Any, lm: Any, tasks: list[dict]) -> tuple[dict, list]:
    """(results, every response of the model) of all tasks."""
    from lm_eval.tasks import TaskManager

    # simple_evaluate does this, and collects facts about the machine for many seconds.
    loaded = TaskManager(include_defaults=False).load(tasks)
    found = harness.evaluate(lm, loaded, bootstrap_iters=0, log_samples=True)
    answers = [
        (name, sample["doc_id"], sample["resps"])
        for name in sorted(found["samples"])
        for sample in sorted(found["samples"][name], key=lambda one: one["doc_id"])
    ]
    return found["results"], answers


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal words and verdicts, and numbers but for rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4, nan_ok=True)
    else:
        assert ours == theirs


def plain(folder: Path, family: str, factor: float) -> Any:
    """transformers' model, the columns of `UNITS` in its down projection times a factor."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mlp = model.model.layers[1].mlp
    with torch.no_grad():
        if family == "llama":
            mlp.down_proj.weight[:, UNITS - 56] *= factor
        else:  # of the first two routed experts, of 24 units each
            mlp.experts.down_proj[0, :, 4:] *= factor
            mlp.experts.down_proj[1, :, :20] *= factor
    return model


@pytest.mark.parametrize(("family", "batch"), [("llama", 1), ("llama", 3), ("qwen2_moe", 3)])
def test_results_equal_the_harness_on_transformers(
    harness: Any, tasks: list[dict], tmp_path: Path, family: str, batch: int
) -> None:
    from lm_eval.models.huggingface import HFLM

    folder = save_tiny_llm(tmp_path / "model", family)
    found = []
    with Model(str(folder), dtype="float32", cpus=1) as model:
        lm = sparcom.lm_eval(model, batch_size=batch)
        counted = model.count(QUESTIONS[0]).neurons
        for factor in (1.0, 0.0, 2.0):
            with model.scaled(UNITS, factor) if factor != 1 else nullcontext():
                ours = evaluate(harness, lm, tasks)
            theirs = HFLM(
                pretrained=plain(folder, family, factor), tokenizer=str(folder), batch_size=batch
            )
            assert_same(ours, evaluate(harness, theirs, tasks))
            found.append(ours)
        responses = [str(one) for _, one in found]
        assert len(set(responses)) == 3
        np.testing.assert_array_equal(model.count(QUESTIONS[0]).neurons, counted)
        assert_same(evaluate(harness, lm, tasks), found[0])


def test_what_is_refused(harness: Any, tasks: list[dict], tmp_path: Path) -> None:
    model = Model(str(save_tiny_llm(tmp_path / "model")), dtype="float32", cpus=1)
    lm = sparcom.lm_eval(model)
    with (
        model.ablated(UNITS, "resample", over=["why"]),
        pytest.raises(InputError, match="how resample: not in padded batches"),
    ):
        evaluate(harness, lm, tasks[:1])
    model.close()
    with pytest.raises(sparcom.SparcomError, match="closed"):
        evaluate(harness, lm, tasks[:1])


class _OnVllm:
    """As much of a model on vLLM as is looked at."""

    config = sparcom.RunConfig(engine="vllm")


def test_for_a_model_on_vllm_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_class_of_harness", lambda: None)
    with pytest.raises(InputError, match="local-completions"):
        adapter.lm_eval(_OnVllm())


def test_without_the_harness_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter._class_of_harness.cache_clear()
    for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'sparcom\[lm-eval\]'"):
        adapter.lm_eval(_OnVllm())
