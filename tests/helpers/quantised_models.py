"""Tiny dense models whose weights are quantised, laid out as the formats say.

Each writer rounds a weight to a grid, packs the numbers, and says what they mean: the plain weight
that a reader must see. Nothing here is taken from the libraries that read them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from torch import Tensor

GROUP = 32  # inputs that share a scale
BLOCK = 128  # rows and columns that share a scale
SHAPE = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
_E4M3 = 448.0  # largest number of float8_e4m3fn
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # the numbers of four bits without their sign
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs lies in each nibble

Tensors = dict[str, Tensor]
Writer = Callable[[Tensor], tuple[Tensors, Tensor]]


@dataclass(frozen=True)
class Format:
    """write: [out, in] weight -> (tensors by the end of their name, the plain weight they mean).

    settings: `quantization_config` of config.json.
    """

    write: Writer
    settings: dict[str, Any]


def save_quantised(folder: Path, name: str, family: str = "llama", **changes: Any) -> Path:
    """Write a model in a format of `FORMATS`, and the plain model that it means to folder/plain."""
    plain = save_tiny_model(folder / "plain", family, torch.bfloat16, **{**SHAPE, **changes})
    form, tensors = FORMATS[name], load_file(plain / "model.safetensors")
    packed: Tensors = {}
    for key, weight in tensors.items():
        if not key.endswith("_proj.weight"):
            packed[key] = weight
            continue
        parts, meant = form.write(weight.float())
        stem = key.removesuffix("weight")
        packed |= {f"{stem}{end}": part.contiguous() for end, part in parts.items()}
        tensors[key] = meant.to(torch.bfloat16).contiguous()
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": form.settings})
    )
    return folder


def pack(numbers: Tensor, dim: int, bits: int = 4) -> Tensor:
    """int32: 32 / bits neighbours along `dim` in one word, the first in its lowest bits."""
    each = 32 // bits
    words = numbers.to(torch.int64).unflatten(dim, (-1, each)).movedim(dim + 1, -1)
    total = (words << (torch.arange(each) * bits)).sum(-1)
    return torch.where(total >= 2**31, total - 2**32, total).to(torch.int32)


def _grouped(weight: Tensor) -> Tensor:
    return weight.unflatten(1, (-1, GROUP))


def _symmetric(weight: Tensor, bits: int, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(numbers [out, in] around 0, scales [out, groups])."""
    groups, top = _grouped(weight), 2 ** (bits - 1)
    scale = (groups.abs().amax(-1) / (top - 0.5)).to(scale_dtype)
    numbers = (groups / scale.float()[..., None]).round().clamp(-top, top - 1)
    return numbers.flatten(1), scale


def _meant(numbers: Tensor, scale: Tensor) -> Tensor:
    return (_grouped(numbers) * scale.float()[..., None]).flatten(1)


def _gptq(bits: int, order: bool = False) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        inputs = weight.shape[1]
        chosen = torch.arange(inputs)
        if order:  # groups of inputs that are no neighbours (desc_act)
            chosen = torch.randperm(inputs, generator=torch.Generator().manual_seed(3))
        numbers, scale = _symmetric(weight[:, chosen], bits, torch.float16)
        meant, index = torch.empty_like(weight), torch.empty(inputs, dtype=torch.int32)
        meant[:, chosen] = _meant(numbers, scale)
        back = torch.empty_like(numbers)
        back[:, chosen] = numbers
        index[chosen] = (torch.arange(inputs) // GROUP).int()
        top = 2 ** (bits - 1)
        zeros = torch.full(scale.T.shape, top - 1)  # the format keeps the zero point less one
        parts = {
            "qweight": pack(back.T + top, 0, bits), "qzeros": pack(zeros, 1, bits),
            "scales": scale.T, "g_idx": index,
        }  # fmt: skip
        return parts, meant

    return write


def _awq(weight: Tensor) -> tuple[Tensors, Tensor]:
    groups = _grouped(weight)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).to(torch.float16)
    zero = (-low / scale.float()).round().clamp(0, 15)
    numbers = (groups / scale.float()[..., None]).round() + zero[..., None]
    numbers = numbers.clamp(0, 15)
    meant = ((numbers - zero[..., None]) * scale.float()[..., None]).flatten(1)

    def packed(rows: Tensor) -> Tensor:
        ordered = rows.unflatten(1, (-1, 8))[..., list(_AWQ_ORDER)].flatten(1)
        return pack(ordered, 1)

    return {"qweight": packed(numbers.flatten(1).T), "qzeros": packed(zero.T),
            "scales": scale.T}, meant  # fmt: skip


def _ct_packed(bits: int) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        numbers, scale = _symmetric(weight, bits, torch.bfloat16)
        parts = {
            "weight_packed": pack(numbers + 2 ** (bits - 1), 1, bits), "weight_scale": scale,
            "weight_shape": torch.tensor(weight.shape),
        }  # fmt: skip
        return parts, _meant(numbers, scale)

    return write


def _ct_int8(weight: Tensor) -> tuple[Tensors, Tensor]:
    scale = (weight.abs().amax(1, keepdim=True) / 127.5).to(torch.bfloat16)
    numbers = (weight / scale.float()).round().clamp(-128, 127)
    return {"weight": numbers.to(torch.int8), "weight_scale": scale}, numbers * scale.float()


def _fp8(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    numbers = (weight / scale).clamp(-_E4M3, _E4M3).to(torch.float8_e4m3fn)
    return numbers, numbers.float() * scale


def _ct_fp8(weight: Tensor) -> tuple[Tensors, Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / _E4M3
    scale = scale.to(torch.bfloat16)
    numbers, meant = _fp8(weight, scale.float())
    return {"weight": numbers, "weight_scale": scale}, meant


def _fp8_tensor(weight: Tensor) -> tuple[Tensors, Tensor]:
    scale = weight.abs().max() / _E4M3
    numbers, meant = _fp8(weight, scale)
    return {"weight": numbers, "weight_scale": scale}, meant


def _ct_fp8_tensor(weight: Tensor) -> tuple[Tensors, Tensor]:
    scale = (weight.abs().max() / _E4M3).to(torch.bfloat16)
    numbers, meant = _fp8(weight, scale.float())
    return {"weight": numbers, "weight_scale": scale.view(1)}, meant


def _fp8_static(weight: Tensor) -> tuple[Tensors, Tensor]:
    parts, meant = _fp8_tensor(weight)
    return {**parts, "input_scale": torch.tensor(0.02)}, meant


def _fp8_block(end: str) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        rows, columns = weight.shape
        blocks = weight.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3)) / _E4M3
        spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        numbers, meant = _fp8(weight, spread)
        return {"weight": numbers, end: scale}, meant

    return write


def _gptq_settings(bits: int, order: bool = False) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": True,
            "desc_act": order, "checkpoint_format": "gptq"}  # fmt: skip


def _ct_settings(form: str, weights: dict, inputs: dict | None = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs,
             "output_activations": None}  # fmt: skip
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
            "quantization_status": "compressed", "config_groups": {"group_0": group}}  # fmt: skip


def _ct_numbers(kind: str, bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "num_bits": bits, "strategy": strategy, "symmetric": True,
            "dynamic": False, **more}  # fmt: skip


_ROWS = {"dynamic": True}  # a scale for each row of the input, as it comes
FORMATS = {
    "gptq": Format(_gptq(4), _gptq_settings(4)),
    "gptq-order": Format(_gptq(4, True), _gptq_settings(4, True)),
    "gptq-8": Format(_gptq(8), _gptq_settings(8)),
    "awq": Format(
        _awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True,
               "version": "gemm"},
    ),
    "ct-w4a16": Format(
        _ct_packed(4),
        _ct_settings("pack-quantized", _ct_numbers("int", 4, "group", group_size=GROUP)),
    ),
    "ct-w8a16": Format(
        _ct_packed(8),
        _ct_settings("pack-quantized", _ct_numbers("int", 8, "group", group_size=GROUP)),
    ),
    "ct-w8a8": Format(
        _ct_int8,
        _ct_settings("int-quantized", _ct_numbers("int", 8, "channel"),
                     _ct_numbers("int", 8, "token", **_ROWS)),
    ),
    "ct-fp8": Format(
        _ct_fp8,
        _ct_settings("float-quantized", _ct_numbers("float", 8, "channel"),
                     _ct_numbers("float", 8, "token", **_ROWS)),
    ),
    "ct-fp8-tensor": Format(
        _ct_fp8_tensor,
        _ct_settings("float-quantized", _ct_numbers("float", 8, "tensor"),
                     _ct_numbers("float", 8, "tensor", **_ROWS)),
    ),
    "ct-fp8-block": Format(
        _fp8_block("weight_scale"),
        _ct_settings(
            "float-quantized",
            _ct_numbers("float", 8, "block", block_structure=[BLOCK, BLOCK]),
            _ct_numbers("float", 8, "group", group_size=BLOCK, **_ROWS),
        ),
    ),
    "fp8": Format(_fp8_tensor, {"quant_method": "fp8", "activation_scheme": "dynamic"}),
    "fp8-static": Format(_fp8_static, {"quant_method": "fp8", "activation_scheme": "static"}),
    "fp8-block": Format(
        _fp8_block("weight_scale_inv"),
        {"quant_method": "fp8", "activation_scheme": "dynamic",
         "weight_block_size": [BLOCK, BLOCK]},
    ),
    "modelopt": Format(
        _fp8_static,
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": None,
         "ignore": ["lm_head"]},
    ),
}  # fmt: skip


def save_mxfp4(folder: Path) -> Path:
    """Write a tiny gpt-oss whose experts are MXFP4, and the plain model that it means to
    folder/plain."""
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    plain = save_tiny_model(folder / "plain", "gpt_oss", torch.bfloat16, **shape)
    tensors = load_file(plain / "model.safetensors")
    packed: Tensors = {}
    for key, weight in tensors.items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            packed[key] = weight
            continue
        blocks = weight.float().transpose(1, 2).unflatten(-1, (-1, 32))  # 32 to a scale
        power = (blocks.abs().amax(-1) / _E2M1[-1]).log2().ceil().clamp(-127, 127)
        near = (blocks / 2 ** power[..., None]).abs()[..., None] - torch.tensor(_E2M1)
        index = near.abs().argmin(-1)
        meant = torch.tensor(_E2M1)[index] * blocks.sign() * 2 ** power[..., None]
        nibbles = index + 8 * (blocks < 0)
        packed[f"{key}_blocks"] = (nibbles[..., ::2] + 16 * nibbles[..., 1::2]).to(torch.uint8)
        packed[f"{key}_scales"] = (power + 127).to(torch.uint8)
        tensors[key] = meant.flatten(2).transpose(1, 2).to(torch.bfloat16).contiguous()
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    settings = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                   "model.embed_tokens", "lm_head"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return folder


def counts_by_hooks(engine: Any, prompts: list[Any]) -> np.ndarray:
    """[prompts, neurons]: firings by plain hooks on the gates of the passes that count."""
    layers, gates = engine.model.model.layers, {}

    def note(at):
        return lambda module, inputs, output: gates.update({at: output[0]})

    hooks = [layer.mlp.gate_proj.register_forward_hook(note(at)) for at, layer in enumerate(layers)]
    rows = []
    for prompt in prompts:
        list(engine.count([prompt]))
        length = len(prompt.token_ids)  # a pass may end in rows of no prompt
        fired = [(gates[at][:length] > 0).sum(0) for at in range(len(layers))]
        rows.append(torch.cat(fired).numpy())
    for hook in hooks:
        hook.remove()
    return np.stack(rows)
