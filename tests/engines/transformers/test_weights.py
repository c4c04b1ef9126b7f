"""Weights that do not fill a model are refused by name, from their headers and when loaded."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from transformers_tools import count_all, load, make_prompts

from sparcom.engines.base import EngineOptions
from sparcom.engines.packing import Pass
from sparcom.engines.transformers import weights
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import load_config, load_model, read_model
from sparcom.errors import InputError

Tensors = dict[str, torch.Tensor]


def prefixed(prefix: str) -> Callable[[Tensors, dict], Tensors]:
    return lambda tensors, config: {prefix + name: t for name, t in tensors.items()}


def without(part: str) -> Callable[[Tensors, dict], Tensors]:
    return lambda tensors, config: {n: t for n, t in tensors.items() if part not in n}


def configured(**changes: object) -> Callable[[Tensors, dict], Tensors]:
    def change(tensors: Tensors, config: dict) -> Tensors:
        config.update(changes)
        return tensors

    return change


def as_adapter(tensors: Tensors, config: dict) -> Tensors:
    """The keys of a LoRA adapter in the place of the model's."""
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    return {
        f"{name}.lora_A.weight": torch.zeros(2, 32),
        f"{name}.lora_B.weight": torch.zeros(32, 2),
    }


def unmerged(tensors: Tensors, config: dict) -> Tensors:
    """A whole model whose adapter was not merged."""
    name = "model.layers.1.self_attn.q_proj"
    tensors[f"{name}.base_layer.weight"] = tensors.pop(f"{name}.weight")
    tensors[f"{name}.lora_A.default.weight"] = torch.zeros(2, 32)
    return tensors


def extra(tensors: Tensors, config: dict) -> Tensors:
    tensors["model.layers.0.mlp.gate_proj.bias"] = torch.zeros(56)
    return tensors


HARMS = {
    "compiled": (
        prefixed("_orig_mod."),
        r"29 tensors are missing \(model\.embed_tokens\.weight, model\.layers\.0\.input_layernorm"
        r"\.weight, .*, \.\.\.\); 30 tensors are not the model's \(_orig_mod\.lm_head\.weight.*"
        r"likely cause: the prefix '_orig_mod\.', saved from a compiled model",
    ),
    "peft": (prefixed("base_model.model."), r"the prefix 'base_model\.model\.', saved from a PEFT"),
    "wrapped": (prefixed("module."), r"the prefix 'module\.', saved from a wrapped model"),
    "adapter": (as_adapter, "these are the weights of an adapter; merge it"),
    "unmerged": (unmerged, "1 tensor is missing .*weights of an adapter; merge it"),
    "no mlp": (
        without("layers.1.mlp"),
        r"3 tensors are missing \(model\.layers\.1\.mlp\.down_proj\.weight.*that is incomplete",
    ),
    "no gate": (
        without("layers.2.mlp.gate_proj"),
        r"1 tensor is missing \(model\.layers\.2\.mlp\.gate_proj\.weight\)",
    ),
    "no embedding": (without("embed_tokens"), r"1 tensor is missing \(model\.embed_tokens\.weight"),
    "more layers": (
        configured(num_hidden_layers=5),
        r"18 tensors are missing \(model\.layers\.3\..*config\.json says 5 layers, and the files "
        "end before layer 3",
    ),
    "fewer layers": (
        configured(num_hidden_layers=2),
        r"9 tensors are not the model's \(model\.layers\.2\..*config\.json says 2 layers, and the "
        "files hold 3",
    ),
    "vocabulary": (
        configured(vocab_size=100),
        r"2 tensors have another shape \(lm_head\.weight \[96, 32\], expected \[100, 32\].*"
        r"config\.json says vocab_size 100, and the files hold 96 rows",
    ),
    "width": (
        configured(intermediate_size=60),
        r"9 tensors have another shape \(model\.layers\.0\.mlp\.down_proj\.weight \[32, 56\], "
        r"expected \[32, 60\].*config\.json is another model's",
    ),
    "extra": (extra, r"1 tensor is not the model's \(model\.layers\.0\.mlp\.gate_proj\.bias\)"),
}


def harmed(folder: Path, harm: Callable[[Tensors, dict], Tensors], family: str = "llama") -> Path:
    """A tiny model whose weights and config `harm` changed."""
    save_tiny_model(folder, family, torch.float32)
    config = json.loads((folder / "config.json").read_text())
    tensors = harm(load_file(folder / "model.safetensors"), config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", HARMS)
def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path, kind: str) -> None:
    """From the headers, as a run is planned, and from what transformers reports of loading."""
    harm, message = HARMS[kind]
    options = EngineOptions(str(harmed(tmp_path, harm)), dtype="float32", device="cpu")
    with pytest.raises(InputError, match=message) as planned:
        read_model(options)
    with pytest.raises(InputError, match=message) as loaded:
        load_model(options, load_config(options), torch.device("cpu"))
    assert str(planned.value) == str(loaded.value)
    assert re.fullmatch(r"model \S+: its weights do not fill it: [^\n]+", str(planned.value))
    assert len(str(planned.value)) < 700


def test_no_weight_is_read_to_plan(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "llama", torch.float32)
    tensors = weights.read_headers("tiny", [tmp_path / "model.safetensors"])
    assert {t.device.type for t in tensors.values()} == {"meta"}
    assert tensors["model.layers.0.mlp.up_proj.weight"].shape == (56, 32)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("qwen2_moe", r"layers\.1\.mlp\.experts\.down_proj \[5, 32, 24\], expected \[6, 32, 24\]\);"
         " likely cause: config.json says 6 experts, and the files hold 5"),
        ("deepseek_v3", "config.json says 6 experts, and the files hold 5"),
        ("mixtral", "tensors that the model fuses, .* are not all there or not of one shape"),
    ],
)  # fmt: skip
def test_a_missing_expert_is_refused(tmp_path: Path, family: str, message: str) -> None:
    """Experts lie one by one in the file, and fused in the model."""

    def harm(tensors: Tensors, config: dict) -> Tensors:
        first = next(n for n in sorted(tensors) if re.search(r"experts\.3\.\w+\.weight", n))
        return {n: t for n, t in tensors.items() if n != first}

    options = EngineOptions(str(harmed(tmp_path, harm, family)), dtype="float32", device="cpu")
    for read in (read_model, TransformersEngine):
        with pytest.raises(InputError, match=message):
            read(options)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2_moe", "gpt2", "opt", "gpt_oss"])
def test_weights_that_fill_the_model_pass(tmp_path: Path, family: str) -> None:
    """Tied heads, fused experts, buffers: nothing that transformers saves is refused."""
    save_tiny_model(tmp_path, family, torch.float32)
    options = EngineOptions(str(tmp_path), dtype="float32", device="cpu")
    _, head = load_model(options, load_config(options), torch.device("cpu"))
    assert head


# -- the language model head ----------------------------------------------------------------------


def test_a_model_without_its_head_has_counts_and_no_losses(tmp_path: Path) -> None:
    whole = load(save_tiny_model(tmp_path / "whole", "llama", torch.float32), "float32")
    options = EngineOptions(str(harmed(tmp_path / "headless", without("lm_head"))), dtype="float32")
    assert not read_model(options).head
    headless = load(options.model, "float32")
    prompts = make_prompts()
    np.testing.assert_array_equal(
        count_all(headless, prompts).neurons, count_all(whole, prompts).neurons
    )
    with pytest.raises(InputError, match=r"hold no language model head, so it has no losses"):
        headless.forward(prompts[:1], Pass((0,), 64), logits=True)


def test_a_tied_head_is_no_missing_one(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama", torch.float32, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert read_model(EngineOptions(str(folder))).head
    assert load(folder, "float32").forward(make_prompts()[:1], Pass((0,), 8), logits=True).shape


def test_written_answers_need_a_head(tmp_path: Path) -> None:
    options = EngineOptions(str(harmed(tmp_path, without("lm_head"))), dtype="float32")
    facts = read_model(options)
    prompt = make_prompts()[0]
    facts.check_prompts([prompt])
    with pytest.raises(InputError, match="hold no language model head; --generate needs one"):
        facts.check_prompts([type(prompt)(prompt.id, prompt.token_ids, prompt.counted, generate=4)])


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-100], lambda b: b[:20], lambda b: b"", bytes.upper]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        InputError, match=r"model.safetensors cannot be read as safetensors: .*; fet"
    ):
        read_model(EngineOptions(str(folder)))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    """Which of the two would be loaded is the engine's choice."""
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for value, file in enumerate(files):
        save_file({"w": torch.full((2,), float(value))}, file)
    with pytest.raises(InputError, match=r"w lies in b\.safetensors and in another file"):
        weights.read_headers("tiny", files)
