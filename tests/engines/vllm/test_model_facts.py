"""Models that the engine cannot load as asked are refused in one line before vLLM starts."""

from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import save_tiny_model

from sparcom.engines.vllm import model_facts
from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32))


def check(folder: str, **options) -> None:
    model_facts.check_model(VllmOptions(model=folder, **options))


def check_memory(options: VllmOptions) -> None:
    model_facts.check_memory(options, model_facts.check_model(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 3}, "tensor-parallel 3 does not divide the 4 attention heads"),
        ({"pipeline_parallel": 4}, "pipeline-parallel 4 is more than the 3 layers"),
        ({"context": 500}, "context 500 is more than the model reads, 128 tokens"),
        ({"kv_cache_tokens": 255}, "at least 256 .context 128 and one .*, got 255; raise it, or"),
        ({"context": 127, "kv_cache_tokens": 127}, "kv-cache-tokens: must be at least 128"),
    ],
)
def test_what_the_model_does_not_allow_is_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        check(folder, **options)


def test_neurons_that_do_not_divide_are_refused(tmp_path):
    odd = str(save_tiny_model(tmp_path, "llama", torch.float32, intermediate_size=55))
    with pytest.raises(InputError, match="does not divide the 55 neurons of a layer"):
        check(odd, tensor_parallel=2)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"model {tmp_path}"):
        check(str(tmp_path))


def test_a_model_larger_than_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 1000}))
    with pytest.raises(InputError, match=r"its weights take .* GiB of memory is free"):
        check_memory(VllmOptions(model=folder))


@pytest.mark.parametrize(
    ("stored", "options", "bytes_each"),
    [
        (torch.float32, {"dtype": "bfloat16"}, 2),
        (torch.float32, {"dtype": "float32"}, 4),
        (torch.float32, {"dtype": "auto"}, 2),
        (torch.bfloat16, {"dtype": "float32"}, 4),
        (torch.bfloat16, {"dtype": "float32", "tensor_parallel": 2}, 4),
        (torch.bfloat16, {"tensor_parallel": 2, "executor": "external_launcher"}, 1),
    ],
)
def test_weights_that_just_fit_are_not_refused(tmp_path, monkeypatch, stored, options, bytes_each):
    """In the dtype that they are loaded in, whatever they are stored in; of a shard, its share."""
    model = str(save_tiny_model(tmp_path, "llama", stored))
    weights = model_facts.weights_of(tmp_path)
    assert weights * stored.itemsize <= (tmp_path / "model.safetensors").stat().st_size
    (tmp_path / "consolidated.safetensors").symlink_to(tmp_path / "model.safetensors")
    free = SimpleNamespace(available=weights * bytes_each)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    check_memory(VllmOptions(model, **options))
    free.available -= 1
    with pytest.raises(InputError, match="its weights take"):
        check_memory(VllmOptions(model, **options))
