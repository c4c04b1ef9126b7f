"""`report_model`: from a config alone, which engine counts a model and what it takes."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model, tiny_config
from transformers import AutoModelForCausalLM, DynamicCache

from sparcom.cli.main import main
from sparcom.errors import InputError
from sparcom.planning import model_report
from sparcom.planning.model_report import EngineReport, render, report_model

BAMBA = {
    "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8,
    "mamba_n_groups": 1, "mamba_expand": 2, "mamba_chunk_size": 8,
}  # fmt: skip
UNSERVED = model_report._unserved


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's list of classes takes many seconds to import; one test reads it."""
    monkeypatch.setattr(model_report, "_unserved", lambda config: None)


def folder_of(path: Path, family: str, **changes: object) -> Path:
    """A folder that holds a config alone, with the class's name in it, as on the hub."""
    config = tiny_config(family, **changes)
    with torch.device("meta"):
        config.architectures = [type(AutoModelForCausalLM.from_config(config)).__name__]
    config.save_pretrained(path)
    return path


def engine(report: model_report.ModelReport, name: str) -> EngineReport:
    (found,) = (e for e in report.engines if e.name == name)
    return found


def test_a_dense_model_by_hand(tmp_path: Path) -> None:
    report = report_model(str(save_tiny_model(tmp_path, "llama", torch.bfloat16)), slots=10)
    assert report.sites == {"dense of 56 (silu)": 3}
    assert (report.layers, report.neurons, report.experts) == (3, 3 * 56, 0)
    assert report.count_bytes == 10 * (3 * 56 + 3) * 4
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    layer = attention + 3 * 32 * 56 + 2 * 32
    parameters = 3 * layer + 2 * 96 * 32 + 32
    assert report.parameters == parameters
    assert report.counted
    assert [e.weight_bytes for e in report.engines] == [2 * parameters] * 2
    served = engine(report, "vllm")
    assert served.kv_bytes == served.kv_tokens * 2 * 3 * 2 * 8 * 2  # keys, values; bf16


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "olmo2", "mixtral"])
def test_the_kv_cache_is_as_large_as_transformers_own(tmp_path: Path, family: str) -> None:
    report = report_model(str(folder_of(tmp_path, family)), dtype="float32")
    model = AutoModelForCausalLM.from_config(tiny_config(family, sliding_window=None))
    cache = DynamicCache()
    model(torch.arange(5)[None] + 3, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    served = engine(report, "vllm")
    assert served.kv_bytes == served.kv_tokens * held // 5


def test_latent_attention_keeps_the_latent(tmp_path: Path) -> None:
    report = report_model(str(folder_of(tmp_path, "deepseek_v3")))
    served = engine(report, "vllm")
    assert served.kv_bytes == served.kv_tokens * 3 * (16 + 8) * 2


def test_a_mixture_of_experts(tmp_path: Path) -> None:
    report = report_model(str(folder_of(tmp_path, "qwen2_moe")))
    assert report.sites == {
        "dense of 56 (silu)": 1,
        "routed of 6 x 24, top 2 (silu)": 2,
        "shared of 40 (silu)": 2,
    }
    assert report.experts == 12
    assert report.neurons == 56 + 2 * (6 * 24 + 40)


def test_a_hybrid_model_keeps_keys_of_its_attention_layers_only(tmp_path: Path) -> None:
    report = report_model(str(folder_of(tmp_path, "bamba", **BAMBA)))
    served = engine(report, "vllm")
    assert served.kv_bytes == served.kv_tokens * 2 * 1 * 2 * 8 * 2
    alone = engine(report, "transformers").note
    assert alone is not None
    assert alone.startswith("one prompt a pass")


def test_quantised_weights_are_refused_by_name_and_still_described(tmp_path: Path) -> None:
    folder_of(tmp_path, "llama")
    _edit(tmp_path, quantization_config={"quant_method": "unheard-of", "bits": 4})
    report = report_model(str(tmp_path))
    assert report.quantised == "unheard-of"
    assert report.neurons == 3 * 56
    refused = engine(report, "transformers").refused
    assert refused is not None
    assert "unheard-of" in refused


def test_an_ffn_that_is_not_known_is_refused_with_its_reason(tmp_path: Path) -> None:
    config = tiny_config("xglm", d_model=32, ffn_dim=56, num_layers=2, attention_heads=4)
    config.activation_function = "mish"
    config.save_pretrained(tmp_path)
    report = report_model(str(tmp_path))
    assert report.problem is not None
    assert "Mish" in report.problem
    assert report.neurons == 0
    assert engine(report, "transformers").refused == report.problem


def test_a_config_alone_is_described_and_its_missing_weights_are_named(tmp_path: Path) -> None:
    report = report_model(str(folder_of(tmp_path, "llama")))
    assert report.neurons == 3 * 56
    assert report.weights_problem is not None
    assert "no model.safetensors" in report.weights_problem
    assert not report.counted
    assert "weights       not usable" in render(report)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("null", "expected a JSON object, got null"),
        ('{"model_type": "llama", "num_hidden_layers": 1000000000}', "num_hidden_layers"),
        ('{"model_type": "llama", "hidden_size": NaN}', "NaN is no number"),
    ],
)
def test_a_damaged_config_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str, reason: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    assert main(["doctor", "--model", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.count("\n") == 1


def test_a_model_type_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    report = report_model(str(tmp_path))
    assert not report.counted
    assert report.problem is not None
    assert "nothing" in report.problem


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        report_model(str(tmp_path))


def test_the_command_prints_it_and_says_by_its_exit_code_whether_it_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = save_tiny_model(tmp_path / "whole", "llama", torch.bfloat16)
    assert main(["doctor", "--model", str(folder), "--slots", "7"]) == 0
    text = capsys.readouterr().out
    assert "3 dense of 56 (silu)" in text
    assert "transformers  counted; weights" in text
    assert main(["doctor", "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["neurons"] == 3 * 56
    bare = folder_of(tmp_path / "bare", "llama")
    assert main(["doctor", "--model", str(bare), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counted"] is False


def test_the_way_out_of_a_refusal_is_the_engine_that_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_report, "_unserved", lambda config: "vLLM has no class for it")
    text = render(report_model(str(save_tiny_model(tmp_path, "llama", torch.bfloat16))))
    assert "refused: vLLM has no class for it; --engine transformers counts it" in text


@pytest.mark.slow
def test_what_vllm_has_a_class_for() -> None:
    pytest.importorskip("vllm")
    llama, other = tiny_config("llama"), tiny_config("llama")
    llama.architectures, other.architectures = ["LlamaForCausalLM"], ["NobodysForCausalLM"]
    assert UNSERVED(llama) is None
    assert "NobodysForCausalLM" in (UNSERVED(other) or "")
    assert "none is named" in (UNSERVED(tiny_config("llama")) or "")


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
