"""Weights that transformers leaves quantised and multiplies with another package's code.

The packages are no requirement, of the tests neither: `pip install --no-deps bitsandbytes torchao`.
"""

from pathlib import Path

import pytest
import torch
from quantised_models import SHAPE, counts_by_hooks
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig
from vllm_tools import by_id, make_prompts

from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine

BITSANDBYTES = {
    "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
               "bnb_4bit_compute_dtype": torch.bfloat16},
    "8 bits": {"load_in_8bit": True},
}  # fmt: skip
TORCHAO = (
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Float8WeightOnlyConfig",
)


def check_counts(tmp_path: Path, settings: object) -> None:
    """A model that transformers quantises and writes is proved, and counted as hooks count."""
    plain = save_tiny_model(tmp_path / "plain", "llama", torch.bfloat16, **SHAPE)
    model = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=settings, dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "quantised")
    options = EngineOptions(str(tmp_path / "quantised"), device="cpu", verify=True)
    engine = TransformersEngine(options)
    assert engine.proof is not None
    prompts = make_prompts([1, 60, 33], skip=0)
    counted = by_id(engine.count(prompts))
    for prompt, hooked in zip(prompts, counts_by_hooks(engine, prompts), strict=True):
        assert (counted[prompt.id][1] == hooked).all()


@pytest.mark.parametrize("name", BITSANDBYTES)
def test_bitsandbytes(tmp_path: Path, name: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    check_counts(tmp_path, BitsAndBytesConfig(**BITSANDBYTES[name]))


@pytest.mark.parametrize("name", TORCHAO)
def test_torchao(tmp_path: Path, name: str) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    check_counts(tmp_path, TorchAoConfig(getattr(torchao, name)()))
