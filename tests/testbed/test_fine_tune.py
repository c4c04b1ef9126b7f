"""Fine-tuning: the loss falls, only the FFNs change, and a seed gives one result."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.errors import InputError
from sparcom.testbed.fine_tune import fine_tune, main


def test_a_tuned_pair(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = save_tiny_llm(tmp_path / "base")
    rows = [row | {"reference": "the sea is blue"} for row in records(12)]
    corpus = str(write_corpus(tmp_path / "c.jsonl", rows))
    losses = fine_tune(str(model), corpus, tmp_path / "one", steps=30, rate=1e-2)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    base, one = (load_file(f / "model.safetensors") for f in (model, tmp_path / "one"))
    changed = {name for name in base if not base[name].equal(one[name])}
    assert changed == {name for name in base if ".mlp." in name}
    given = ["--model", str(model), "--corpus", corpus, "--steps", "30", "--rate", "1e-2"]
    assert main([*given, "--out", str(tmp_path / "two")]) == 0
    assert "in 30 steps" in capsys.readouterr().out
    two = load_file(tmp_path / "two" / "model.safetensors")
    assert all(one[name].equal(two[name]) for name in one)


def test_without_answers(tmp_path: Path) -> None:
    model, corpus = save_tiny_llm(tmp_path / "m"), write_corpus(tmp_path / "c.jsonl", records(3))
    with pytest.raises(InputError, match="has a reference answer"):
        fine_tune(str(model), str(corpus), tmp_path / "out")
