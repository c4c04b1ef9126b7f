"""Starting Ray: what cannot work is said at once, a slow start is tried again."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pipeline_helpers import Driver, lay_out, results_of, slow_config, some_parts_done, wait_for
from tiny_runs import records, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.errors import SparcomError
from sparcom.pipeline.ray import session
from sparcom.pipeline.run import count
from sparcom.planning.options import cluster_address

SLOW = "The current node timed out during startup. This could happen because ..."


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--resources", "A=1"], 2, "only a cluster's machines have further resources"),
        (["--gpus", "1"], 2, "1 actors take 1 GPUs, this machine has 0"),
        (["--ray-address", "127.0.0.1:{port}"], 1, "could not be reached: .*refused"),
        (["--ray-address", "127.0.0.1"], 2, "expected HOST:PORT of a head.*got '127.0.0.1'"),
        (["--ray-address", "ray://"], 2, "expected HOST:PORT of a head.*got 'ray://'"),
        (["--ray-address", "http://127.0.0.1:8265"], 2, "http://... is a job server"),
    ],
)
def test_what_cannot_work_is_said_at_once_and_leaves_nothing(
    tmp_path: Path, capsys, arguments: list[str], code: int, message: str
) -> None:
    with socket.socket() as probe:  # a port that nobody listens on
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "run"
    given = [text.format(port=port) for text in arguments]
    assert main(["count", "--limit", "1", "--out", str(out), *given]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said)
    assert not out.exists()


@pytest.mark.parametrize(("failures", "starts"), [(0, 1), (1, 2), (2, 2)])
def test_a_slow_start_is_tried_once_more(failures: int, starts: int) -> None:
    calls = []

    def init(**_: object) -> None:
        calls.append("init")
        if calls.count("init") <= failures:
            raise Exception(SLOW)

    ray = SimpleNamespace(init=init, shutdown=lambda: calls.append("shutdown"))
    if failures < 2:
        session._start(ray, {"num_cpus": 1})
    else:
        with pytest.raises(SparcomError, match="^a local Ray could not be started: The current"):
            session._start(ray, {"num_cpus": 1})
    assert calls.count("init") == starts


@pytest.mark.slow
@pytest.mark.parametrize("server", ["raylet", "gcs_server"])
def test_a_local_ray_that_dies_ends_the_run_in_one_sentence(tmp_path: Path, server: str) -> None:
    """The driver says what died and exits 1 within seconds; resuming finishes the run."""
    work = lay_out(tmp_path)
    write_corpus(work / "corpus.jsonl", records(200))  # seconds: the death is noticed in half a one
    config = slow_config(work, tmp_path / "run")
    driver = Driver(config)
    wait_for(some_parts_done(tmp_path / "run"), 120)
    (victim,) = [p for p in driver.look().seen.values() if p.name() == server]
    victim.kill()
    code, _, err = driver.end(30)
    assert code == 1
    assert f"sparcom: the local Ray died (its {server} has ended" in err
    assert "Traceback" not in err
    assert driver.left() == []
    script = "import sys; from sparcom.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "count", "--resume", "--config", str(driver.file)]
    subprocess.run(command, check=True, capture_output=True)
    count(slow_config(work, tmp_path / "whole"))
    assert results_of(tmp_path / "run") == results_of(tmp_path / "whole")


def test_a_head_that_hangs_is_not_waited_for() -> None:
    """`ray.init` by itself asks it twenty times, for half a minute and more each."""
    visit = """
import sys
from sparcom.config import RunConfig
from sparcom.pipeline.ray.session import ray_session
with ray_session(RunConfig(ray_address=sys.argv[1])):
    pass
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", visit, address], capture_output=True, text=True, timeout=60,
            env={**os.environ, "RAY_py_gcs_connect_timeout_s": "1"},
        )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"the cluster at {address} could not be reached: no head of Ray answers there" in last


def test_addresses_that_only_ray_understands_are_left_to_it() -> None:
    session.check_resources(RunConfig(ray_address="auto"))
    session.check_resources(RunConfig(ray_address="other://name"))


def test_local_is_rays_word_for_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(RunConfig()) is None
    assert cluster_address(RunConfig(ray_address="head:6379")) == "head:6379"


def test_what_rays_servers_tell_is_not_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private import worker

    session._errors_to_stderr()
    session._errors_to_stderr()  # once is enough
    told = {"lines": ["Task count failed"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(told, ignore_prefix=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("Task count failed") == 1
