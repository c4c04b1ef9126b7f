"""Quantised weights on vLLM: counted as they run, or refused with vLLM's own reason."""

import numpy as np
import pytest
import torch
from quantised_models import save_quantised
from safetensors.torch import load_file, save_file
from vllm_tools import by_id, make_prompts, worker_class

from sparcom.engines.base import EngineOptions
from sparcom.engines.load import load_engine
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = pytest.mark.slow
needs_amx = pytest.mark.skipif(
    not torch.cpu._is_amx_tile_supported(), reason="vLLM's products of this format need AMX"
)
# Format -> how far its firings lie from those of the dequantised weights in bfloat16, at most.
# 16-bit inputs: by rounding; 8-bit inputs are another pass.
COUNTED = [
    ("gptq", 0.02),
    ("awq", 0.02),
    ("ct-w4a16", 0.02),
    ("ct-w8a8", 0.08),
    ("ct-fp8", 0.08),
    pytest.param("ct-fp8-block", 0.02, marks=needs_amx),
    pytest.param("fp8-block", 0.02, marks=needs_amx),
]


@pytest.mark.parametrize(("name", "apart"), COUNTED)
def test_counts_are_those_of_hooks_on_the_same_pass(tmp_path, name, apart):
    """And those of the plain model that the packed numbers mean, but for rounding."""
    folder = save_quantised(tmp_path, name)
    prompts = make_prompts([1, 100, 33], skip=0)
    with worker_class("vllm_workers.HookedWorker"):
        engine = VllmEngine(VllmOptions(str(folder), batch_tokens=64, slots=1, verify=True))
    try:
        running = engine._engine.current
        running.call_workers("sparcom_hooked")  # the self-test's
        counts = {}
        for prompt in prompts:
            counts |= by_id(engine.count([prompt]))
            hooked = np.frombuffer(running.call_workers("sparcom_hooked")[0], np.int64)
            np.testing.assert_array_equal(counts[prompt.id][1], hooked)
    finally:
        engine.close()
    plain = TransformersEngine(EngineOptions(str(folder / "plain"), device="cpu", prove=False))
    meant = by_id(plain.count(prompts))
    expected, got = (np.stack([rows[p.id][1] for p in prompts]) for rows in (meant, counts))
    assert np.abs(got - expected).sum() <= apart * expected.sum()


REFUSED = {
    "gptq-order": "ValidationError: GPTQ group activation ordering .desc_act=True",
    "gptq-8": "Marlin does not support weight_bits = uint8b128",
    "ct-w8a16": "Failed to find a kernel .* Quant type .uint8b128. not supported by CPUWNA16",
    "fp8": "static_scaled_fp8_quant",
    "modelopt": "static_scaled_fp8_quant",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_vllm_does_not_run_is_refused_with_its_reason(tmp_path, name):
    folder = save_quantised(tmp_path, name)
    method = {"gptq-order": "gptq", "gptq-8": "gptq", "ct-w8a16": "compressed-tensors"}
    message = (
        rf"^model {folder}: its weights are quantised \({method.get(name, name)}\), and vllm "
        rf"\S+ did not start with them here: .*({REFUSED[name]})"
    )
    with pytest.raises(InputError, match=message) as caught:
        VllmEngine(VllmOptions(str(folder), slots=4))
    assert "\n" not in str(caught.value)


def test_a_missing_part_is_no_model_whatever_reads_it(tmp_path):
    """vLLM by itself counts with what the memory holds."""
    folder = save_quantised(tmp_path, "gptq")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.down_proj.scales"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"not initialized from checkpoint.*down_proj\.scales"):
        VllmEngine(VllmOptions(str(folder), slots=4))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gptq", "quantised weights (gptq), which transformers does not read here"),
        ("ct-w4a16", None),
    ],
)
def test_run_json_says_whether_quantised_weights_are_proved(tmp_path, name, said):
    options = VllmOptions(str(save_quantised(tmp_path, name)), slots=4, device="cpu")
    engine = load_engine("vllm", options)
    try:
        facts = engine.info.proof
    finally:
        engine.close()
    assert facts["proved"] == (said is None)
    if said is not None:
        assert facts["why"].startswith(said)
