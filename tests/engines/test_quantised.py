"""Quantised weights: refused by both engines, but for what transformers turns into plain ones."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, tiny_config

from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError


@pytest.mark.parametrize("where", ["config", "text config", "file"])
@pytest.mark.parametrize("engine", [TransformersEngine, VllmEngine])
def test_quantised_weights_are_refused_by_the_config_alone(tmp_path, where, engine):
    """No weight is there to be read: the config decides."""
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
    message = rf"^model {tmp_path}: its weights are quantised \({method}\), .* \.gguf file$"
    with pytest.raises(InputError, match=message):
        engine(VllmOptions(model=str(tmp_path)))


def test_fp8_weights_are_dequantised_by_transformers(tmp_path):
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
