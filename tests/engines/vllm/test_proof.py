"""vLLM's counts against transformers' own modules, when it is loaded and on demand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, by_id, client_of, kill_newest_engine, make_prompts

from sparcom.cli.main import main
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.load import load_engine
from sparcom.engines.transformers import attention
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import SparcomError

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_is_proved_when_it_is_loaded_and_stays_so(tmp_path: Path, dtype: str) -> None:
    """With a prompt longer than its window, and after it died and was started again."""
    folder = save_tiny_model(
        tmp_path, "gemma2", getattr(torch, dtype), **SHAPE, head_dim=32, sliding_window=32
    )
    options = VllmOptions(str(folder), dtype=dtype, batch_tokens=48, slots=4)
    engine = load_engine("vllm", options)
    try:
        assert engine.proof.lengths == (37, 13, 45)
        assert len(engine.proof.sites) == 3
        said = engine.info.proof
        assert said["proved"] is True
        assert said["against"] == "transformers' own modules with eager attention, end to end"
        assert client_of(engine)
        kill_newest_engine()
        with pytest.raises(Exception, match="died|ended|killed"):
            by_id(engine.count(make_prompts([5])))
        assert by_id(engine.count(make_prompts([5])))
        assert engine.info.proof == said
    finally:
        engine.close()


@pytest.mark.slow
def test_a_pass_that_is_not_the_models_own_is_refused_by_its_site(tmp_path, monkeypatch) -> None:
    """As if vLLM's attention had another scale: it is transformers' that is changed here."""
    folder = save_tiny_model(tmp_path, "llama", torch.float32, **SHAPE)
    real = attention.reference_attention

    def scaled(module, query, *arguments, **options):
        return real(module, 3 * query, *arguments, **options)

    interface = attention.AttentionInterface._global_mapping
    monkeypatch.setitem(interface, attention.REFERENCE, scaled)
    monkeypatch.setitem(
        interface, attention.NAME, lambda m, q, *a, **o: real_packed(m, 3 * q, *a, **o)
    )
    real_packed = attention.packed_attention
    options = VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=4)
    with pytest.raises(Exception, match=r"what vllm counts is not the model's own pass: layer\d\."):
        load_engine("vllm", options)


@pytest.mark.slow
def test_a_pass_that_is_not_finite_is_named_with_its_instruction(tmp_path: Path) -> None:
    """Token 7's embedding is damaged; the other instructions have been counted before."""
    folder = save_tiny_model(tmp_path, "llama", torch.float32, **SHAPE)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][7] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    options = VllmOptions(str(folder), dtype="float32", batch_tokens=48, slots=4, prove=False)
    engine = load_engine("vllm", options)
    try:
        good = Prompt("good", (3, 4, 5, 6), ((0, 4),))
        assert set(by_id(engine.count([good]))) == {"good"}
        bad = Prompt("bad", (3, 7, 5), ((0, 3),))
        message = (
            r"instruction bad: its hidden states are not finite in float32 on \d counted tokens"
        )
        with pytest.raises(SparcomError, match=message):
            list(engine.count([bad]))
    finally:
        engine.close()


@pytest.mark.slow
def test_verify_shows_a_line_for_each_site(tmp_path: Path, capsys) -> None:
    folder = save_tiny_model(tmp_path, "qwen2_moe", torch.float32, **SHAPE)
    assert main(["verify", str(folder), "--engine", "vllm", "--dtype", "float32", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["engine"], facts["passes"]) == ("vllm", "as vllm schedules them")
    assert len(facts["sites"]) == 5
    assert all(site["difference"] <= site["tolerance"] for site in facts["sites"])


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_folder_without_one_projection_is_refused_before_vllm_starts(
    tmp_path: Path, capsys, monkeypatch, command: str
) -> None:
    """vLLM itself loads it without complaint."""
    folder = save_tiny_model(tmp_path / "m", "llama", torch.float32, **SHAPE)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.gate_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = ["--model", str(folder)] if command == "run" else [str(folder)]
    out = ["--out", str(tmp_path / "run")] if command == "run" else []
    assert main([command, *model, "--engine", "vllm", *out]) == 2
    assert "1 tensor is missing (model.layers.1.mlp.gate_proj.weight)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_options_say_whether_to_prove() -> None:
    options = VllmOptions("m", prove=False)
    assert not VllmOptions.of(replace(options)).prove
