"""Every type of llama.cpp's blocks becomes the numbers that the gguf package reads in it."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf.quants import _type_traits
from safetensors.torch import load_file
from tiny_gguf import save_tiny_gguf

from sparcom.errors import InputError
from sparcom.gguf_file import convert_gguf

SHAPE = {"hidden": 256, "width": 256, "layers": 1}  # a block holds up to 256 numbers
NAMES = {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}


@pytest.mark.parametrize("kind", sorted(_type_traits), ids=lambda kind: kind.name)
def test_weights_are_what_the_blocks_mean(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    tensors = save_tiny_gguf(tmp_path / "small.gguf", kind, **SHAPE)
    folder = convert_gguf(tmp_path / "small.gguf", tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    for theirs, ours in NAMES.items():
        numbers = torch.from_numpy(gguf.dequantize(tensors[f"blk.0.{theirs}.weight"], kind))
        assert len(numbers.unique()) > 2
        torch.testing.assert_close(
            weights[f"model.layers.0.mlp.{ours}.weight"], numbers.to(torch.bfloat16), rtol=0, atol=0
        )


def test_a_type_that_no_file_should_hold_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Q8_K is what llama.cpp computes with; no writer keeps weights in it."""
    kind = gguf.GGMLQuantizationType.Q8_K
    each, size = gguf.GGML_QUANT_SIZES[kind]
    with monkeypatch.context() as patch:
        patch.setattr(
            "tiny_gguf.random_blocks",
            lambda _, shape, rng: rng.integers(
                0, 256, (shape[0], shape[1] // each * size), dtype="uint8"
            ),
        )
        save_tiny_gguf(tmp_path / "small.gguf", kind, **SHAPE)
    with pytest.raises(InputError, match=r"cannot be read as GGUF: NotImplementedError: .*Q8_K"):
        convert_gguf(tmp_path / "small.gguf", tmp_path / "out")
