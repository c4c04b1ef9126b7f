"""Tuning a set, random sets like it, and all neurons: the arms, and what is scored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from counted_here import counted_here
from tiny_runs import records, save_tiny_llm, write_corpus
from transformers import AutoModelForCausalLM

from sparcom.ablation.halves import split_clusters
from sparcom.config import RunConfig
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.prompts.tokenizer import load_tokenizer
from sparcom.errors import InputError
from sparcom.pipeline.run import count
from sparcom.store import Run
from sparcom.testbed.tune_units import main, tune_units

SIZE, HIDDEN, NEURONS = 4, 32, 2 * 56


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model", num_hidden_layers=2)
    rows = [row | {"reference": "the sea is blue"} for row in records(24)]
    write_corpus(folder / "corpus.jsonl", rows)
    with counted_here():
        count(RunConfig(model=str(folder / "model"), corpus=str(folder / "corpus.jsonl"), cpus=1,
                        out=str(folder / "run"), batch_tokens=64, rule="top:0.2"))  # fmt: skip
    return folder


def test_every_arm_is_scored_on_every_category(work: Path) -> None:
    run = Run(work / "run")
    found = tune_units(run, f"specific:{SIZE}:MATH", random_sets=2, steps=6, rate=1e-2)
    rows = found.to_pylist()
    arms = {row["arm"]: row for row in rows}
    assert list(arms) == ["untrained", "target", "random 1", "random 2", "all neurons"]
    assert [arms[name]["neurons"] for name in arms] == [0, SIZE, SIZE, SIZE, NEURONS]
    assert [row["weights"] for row in arms.values()] == [
        3 * HIDDEN * n for n in (0, SIZE, SIZE, SIZE, NEURONS)
    ]
    assert {row["category"] for row in rows} == set(run.categories)
    assert len(rows) == 5 * len(run.categories)
    math = {row["arm"]: row["loss"] for row in rows if row["category"] == "MATH"}
    assert math["all neurons"] < math["target"] < math["untrained"]


def test_loss_and_accuracy_are_those_of_the_plain_model(work: Path) -> None:
    run = Run(work / "run")
    labels = run.labels
    half = split_clusters(labels["cluster"].to_pylist(), labels["category"].to_pylist(),
                          np.random.default_rng(0))  # fmt: skip
    scored = {name for name, at in zip(labels["id"].to_pylist(), half, strict=True) if at == 1}
    items = [item for item in load_corpus(str(work / "corpus.jsonl"), None)
             if item.id in scored and item.category == "QA"]  # fmt: skip
    tokenizer = load_tokenizer(str(work / "model"))
    prompts = make_prompts(items, tokenizer, template=make_template("model", tokenizer),
                           scope="response")  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    losses, right = [], []
    for prompt in prompts:
        ((start, stop),) = prompt.counted
        with torch.no_grad():
            said = model(torch.tensor([prompt.token_ids])).logits[0].double().log_softmax(-1)
        answer = prompt.token_ids[start:stop]
        losses.append(-np.mean([float(said[start - 1 + at, t]) for at, t in enumerate(answer)]))
        right.append(np.mean([int(said[start - 1 + at].argmax()) == t
                              for at, t in enumerate(answer)]))  # fmt: skip
    found = tune_units(run, f"specific:{SIZE}:MATH", random_sets=1, steps=1).to_pylist()
    (row,) = (r for r in found if (r["arm"], r["category"]) == ("untrained", "QA"))
    assert row["instructions"] == len(prompts) > 1
    assert row["loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert row["accuracy"] == pytest.approx(np.mean(right))


def test_the_command(work: Path, capsys: pytest.CaptureFixture) -> None:
    given = [str(work / "run"), "--target", "top:3", "--steps", "1", "--random-sets", "1"]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["arm", "neurons", "weights", "category", "instructions", "loss",
                                "accuracy"]  # fmt: skip
    assert sum(line.startswith("random 1") for line in lines) == 3
    assert main([str(work / "run"), "--target", "specific:3"]) == 2
    assert "expected one, specific:3 names 3" in capsys.readouterr().err


def test_another_model_than_the_run_s(work: Path, tmp_path: Path) -> None:
    run = Run(work / "run")
    run.manifest["model"] = {**run.manifest["model"], "weights": "0" * 64}
    with pytest.raises(InputError, match="its weights are not those of the run"):
        tune_units(run, "top:3")
