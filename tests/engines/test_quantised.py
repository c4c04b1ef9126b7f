"""Quantised weights: what their headers say, and what transformers makes of them or refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from quantised_models import FORMATS, counts_by_hooks, save_mxfp4, save_quantised
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, tiny_config
from vllm_tools import by_id, make_prompts

from sparcom.engines.against import Prover
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import read_model
from sparcom.engines.vllm.model_facts import check_model
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError
from sparcom.planning.options import context_of

DENSE = {"fp8-block", *(name for name in FORMATS if name.startswith("ct-"))} - {"ct-fp8-block"}


def counts_of(engine: TransformersEngine, prompts) -> np.ndarray:
    found = by_id(engine.count(prompts))
    return np.stack([found[prompt.id][1] for prompt in prompts])


# -- before the run -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["config", "text config", "file"])
def test_transformers_refuses_what_it_does_not_read_by_the_config_alone(tmp_path: Path, where):
    """No weight is there to be read: the config decides, or the file beside it."""
    made = tiny_config("llama").to_dict()
    settings = {"quant_method": "gptq", "bits": 4}
    if where == "config":
        made["quantization_config"] = settings
    elif where == "text config":
        made["quantization_config"] = settings
        made = {"model_type": "gemma3", "text_config": {**made, "model_type": "gemma3_text"}}
    else:
        (tmp_path / "hf_quant_config.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps(made))
    method = "modelopt" if where == "file" else "gptq"
    message = (
        rf"^model {tmp_path}: its weights are quantised \({method}\), .*--engine vllm, or .*\.gguf"
    )
    with pytest.raises(InputError, match=message):
        TransformersEngine(EngineOptions(str(tmp_path)))


def test_a_run_of_transformers_is_refused_while_it_is_planned(tmp_path: Path):
    folder = str(save_quantised(tmp_path, "awq"))
    config = read_model(EngineOptions(folder)).config
    with pytest.raises(InputError, match=r"quantised \(awq\), which the transformers engine"):
        context_of(EngineOptions(folder), config)
    assert context_of(VllmOptions(folder), config) == 128


@pytest.mark.parametrize("name", FORMATS)
def test_the_headers_of_each_format_fill_the_model(tmp_path: Path, name: str):
    folder = save_quantised(tmp_path, name)
    assert (
        read_model(EngineOptions(str(folder))).space
        == read_model(EngineOptions(str(folder / "plain"))).space
    )
    assert check_model(VllmOptions(str(folder))).quantised == FORMATS[name].settings["quant_method"]


def test_the_headers_of_mxfp4_fill_the_model(tmp_path: Path):
    assert read_model(EngineOptions(str(save_mxfp4(tmp_path)))).head


def change(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gptq", "scales"), ("gptq", "qzeros"), ("awq", "qzeros"), ("ct-w4a16", "weight_scale"),
        ("ct-w8a8", "weight_scale"), ("fp8", "weight_scale"), ("fp8-block", "weight_scale_inv"),
    ],
)  # fmt: skip
def test_a_product_without_one_of_its_parts_is_refused(tmp_path: Path, name: str, part: str):
    folder, lost = save_quantised(tmp_path, name), f"model.layers.1.mlp.up_proj.{part}"
    change(folder, lambda tensors: tensors.pop(lost))
    shown = lost if name != "fp8-block" else lost.removesuffix("_inv")
    with pytest.raises(InputError, match=rf"{re.escape(shown)} is not in the files; fetch"):
        read_model(EngineOptions(str(folder)))


def test_a_product_that_is_lost_or_too_many_or_of_another_shape_is_refused(tmp_path: Path):
    folder, at = save_quantised(tmp_path, "gptq"), "model.layers.1.mlp.up_proj"
    parts = {n: t for n, t in load_file(folder / "model.safetensors").items() if n.startswith(at)}
    change(folder, lambda tensors: [tensors.pop(name) for name in parts])
    with pytest.raises(InputError, match=rf"1 tensor is missing \({at}.weight\)"):
        read_model(EngineOptions(str(folder)))
    change(folder, lambda tensors: tensors.update({**parts, f"{at}.adapter": torch.ones(2)}))
    with pytest.raises(InputError, match=rf"1 tensor is not the model's \({at}.adapter\)"):
        read_model(EngineOptions(str(folder)))
    short = {f"{at}.qweight": parts[f"{at}.qweight"][:8].clone()}
    change(folder, lambda tensors: (tensors.pop(f"{at}.adapter"), tensors.update(short)))
    with pytest.raises(InputError, match=r"has another shape \(.*up_proj.weight \[256, 64\], exp"):
        read_model(EngineOptions(str(folder)))


def test_quantised_experts_are_refused_for_vllm_before_it_starts(tmp_path: Path):
    with pytest.raises(InputError, match=r"\(mxfp4: .*experts.* kernels .*; use --engine transf"):
        check_model(VllmOptions(str(save_mxfp4(tmp_path))))


# -- what transformers makes of them --------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DENSE))
def test_counts_are_those_of_hooks_on_the_same_pass(tmp_path: Path, name: str):
    folder = save_quantised(tmp_path, name)
    engine = TransformersEngine(EngineOptions(str(folder), device="cpu", verify=True))
    assert engine.proof is not None
    prompts = make_prompts([1, 60, 33], skip=0)
    counts = counts_of(engine, prompts)
    np.testing.assert_array_equal(counts, counts_by_hooks(engine, prompts))
    gate = engine.model.model.layers[0].mlp.gate_proj.weight
    assert gate.dtype == torch.bfloat16
    meant = load_file(folder / "plain" / "model.safetensors")
    torch.testing.assert_close(gate.data, meant["model.layers.0.mlp.gate_proj.weight"],
                               rtol=2**-7, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ct-fp8-block", "quantised in blocks (compressed-tensors), which the transformers engine"),
        ("fp8", "14 tensors are not the model's (model.layers.0.mlp.down_proj.weight_scale"),
        ("fp8-static", "28 tensors are not the model's (model.layers.0.mlp.down_proj.input_scale"),
    ],
)  # fmt: skip
def test_what_transformers_cannot_make_plain_is_refused(tmp_path: Path, name: str, line: str):
    """It knows compressed-tensors without blocks, and FP8's scales as weight_scale_inv alone."""
    with pytest.raises(InputError, match=re.escape(line)) as error:
        TransformersEngine(EngineOptions(str(save_quantised(tmp_path, name)), device="cpu"))
    assert "\n" not in str(error.value)


def test_mxfp4_experts_count_as_the_weights_that_they_mean(tmp_path: Path):
    folder, prompts = save_mxfp4(tmp_path), make_prompts([1, 60, 33], skip=0)
    engine = TransformersEngine(EngineOptions(str(folder), device="cpu", verify=True))
    plain = TransformersEngine(EngineOptions(str(folder / "plain"), device="cpu"))
    np.testing.assert_array_equal(counts_of(engine, prompts), counts_of(plain, prompts))


# -- the proof of another engine ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gptq", r"quantised weights \(gptq\), which transformers does not read here, so that"),
        ("fp8", r"quantised weights \(fp8\): vLLM may round the inputs of its products too"),
        ("ct-w8a8", None),
    ],
)
def test_another_engine_is_proved_only_against_the_same_arithmetic(tmp_path: Path, name, why):
    prover = Prover.of(EngineOptions(str(save_quantised(tmp_path, name)), device="cpu"), 40)
    assert (prover.expected is None) == (why is not None)
    assert re.match(why or "$", prover.why)


def test_fp8_of_a_block_that_is_larger_than_the_weight(tmp_path: Path):
    save_tiny_model(tmp_path, "llama", torch.bfloat16)
    weights = load_file(tmp_path / "model.safetensors")
    plain = dict(weights)
    for name, weight in plain.items():
        if name.endswith("_proj.weight"):
            scale = weight.float().abs().max() / 448  # the largest number of e4m3
            weights[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale.view(1, 1)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = TransformersEngine(EngineOptions(str(tmp_path), device="cpu"))
    gate = engine.model.model.layers[0].mlp.gate_proj.weight
    assert gate.dtype == torch.bfloat16
    expected = plain["model.layers.0.mlp.gate_proj.weight"]
    torch.testing.assert_close(gate, expected, rtol=2**-3, atol=1e-3, check_dtype=True)
