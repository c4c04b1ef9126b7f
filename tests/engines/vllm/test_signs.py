"""Signs and magnitudes on vLLM are those of the transformers engine, in one piece and in shards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, make_prompts

from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import EXPERTS, NEURONS
from sparcom.engines.base import Engine, EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError

pytest.importorskip("vllm", reason="vLLM is not installed")

LENGTHS = [1, 2, 128, 60, 33, 5, 90]
MORE = {"signs": True, "magnitudes": True}
pytestmark = pytest.mark.slow


def options(folder: Path, **more) -> VllmOptions:
    more = {"dtype": "float32", **MORE, **more}
    return VllmOptions(str(folder), batch_tokens=48, slots=4, threads=1, **more)


def by_id(engine: Engine) -> dict[str, Counted]:
    counted = [c for c in engine.count(make_prompts(LENGTHS)) if c.ids]
    return {name: c.rows([row]) for c in counted for row, name in enumerate(c.ids)}


def check(engine: VllmEngine, folder: Path) -> None:
    """The prompts are read in several steps of 48 tokens; sums differ in fp32's last places."""
    plain = EngineOptions(
        str(folder), dtype="float32", batch_tokens=256, threads=1, device="cpu", **MORE
    )
    expected = by_id(TransformersEngine(plain))
    ours = by_id(engine)
    assert ours.keys() == expected.keys()
    apart = np.stack([np.abs(ours[k].signs - expected[k].signs) for k in expected])
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 1e-4
    for name, one in expected.items():
        assert one.signs.any() or one.tokens[0] == 0
        for what in (*NEURONS, *EXPERTS):
            found, plain_one = (getattr(c.magnitudes, what) for c in (ours[name], one))
            np.testing.assert_allclose(found, plain_one, rtol=1e-3, atol=1e-3, err_msg=what)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_one_worker(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32, **SHAPE)
    engine = VllmEngine(options(folder, verify=True))
    try:
        check(engine, folder)
    finally:
        engine.close()


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_two_workers_that_share_each_layer(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32, **SHAPE)
    engine = VllmEngine(options(folder, tensor_parallel=2, expert_parallel=family != "llama"))
    try:
        check(engine, folder)
    finally:
        engine.close()


def test_slices_of_experts_have_no_magnitudes(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "qwen2_moe", torch.float32, **SHAPE)
    with pytest.raises(InputError, match=r"magnitudes: this worker has .* use --expert-parallel"):
        VllmEngine(options(folder, tensor_parallel=2, prove=False))


def test_ffns_without_up_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "gpt2", torch.float32)
    with pytest.raises(InputError, match="signs: the FFN has no up projection"):
        VllmEngine(options(folder, magnitudes=False, prove=False))
