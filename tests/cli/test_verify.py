"""`sparcom verify`: the proof on demand, as a table or as JSON; a refusal is one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model

from sparcom.cli.main import main
from sparcom.counting.recorder import Recorder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_model(
        tmp_path_factory.mktemp("verify"), "qwen2_moe", torch.float32, sliding_window=64,
        use_sliding_window=True, max_window_layers=1,
    )  # fmt: skip


def test_the_table_has_a_line_for_each_site(folder: Path, capsys) -> None:
    assert main(["verify", str(folder), "--dtype", "float32", "--cpus", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["site", "difference", "tolerance", "counts", "differ", "near-zero",
                                "gates", "rerouted"]  # fmt: skip
    names = ["layer0.dense", "layer1.routed", "layer1.shared", "layer2.routed", "layer2.shared"]
    assert sorted(line.split()[0] for line in lines[1:6]) == names
    assert all(" 0.01 %" in line for line in lines[1:6])
    assert lines[7] == f"{folder} on transformers in float32: the pass is the model's own"
    assert "prompts of 37 and 13 tokens, packed; " in lines[8]
    assert lines[9] == "windows shortened for the proof: sliding_window 64"


def test_json_holds_the_same(folder: Path, capsys) -> None:
    arguments = ["verify", str(folder), "--json", "--dtype", "bfloat16", "--cpus", "1"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["engine"], facts["dtype"], facts["passes"]) == (
        "transformers",
        "bfloat16",
        "packed",
    )
    assert facts["lengths"] == [37, 13]
    assert len(facts["sites"]) == 5
    for site in facts["sites"]:
        assert 0 <= site["difference"] < site["tolerance"] == 0.0625
        assert site["unexplained"] <= 1e-4 * site["compared"]


def test_a_pass_that_is_not_the_models_own_is_one_line(folder: Path, capsys, monkeypatch) -> None:
    real = Recorder.count_routed

    def twice(self, site, gate, up, *arguments):
        return real(self, site, gate, up, *arguments).mul_(2)

    monkeypatch.setattr(Recorder, "count_routed", twice)
    assert main(["verify", str(folder), "--dtype", "float32", "--cpus", "1"]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith(f"sparcom: model {folder}: what would be counted is not the model's")
    assert "model.layers.1.mlp (Qwen2MoeSparseMoeBlock)" in seen.err
    assert seen.err.count("\n") == 1


def test_weights_that_do_not_fill_the_model_are_one_line(tmp_path: Path, capsys) -> None:
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.gate_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["verify", str(folder)]) == 2
    seen = capsys.readouterr().err
    assert "1 tensor is missing (model.layers.1.mlp.gate_proj.weight)" in seen
    assert seen.count("\n") == 1
