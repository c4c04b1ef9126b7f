"""What a local Ray listens on, what is written down of secrets, where a config's paths lead."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pytest
from pipeline_helpers import Driver, slow_config
from sweep import run_name
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.errors import InputError, SparcomError
from sparcom.pipeline.ray import session
from sparcom.pipeline.ray.session import ray_session
from sparcom.store import RunStore

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIA0SPARCOM0SECRET",
    "AWS_SECRET_ACCESS_KEY": "wJalr0sparcom0secret",
    "HF_TOKEN": "hf_0sparcom0secret",
}


def listening() -> dict[str, set[str]]:
    """Addresses that processes below this one listen on -> their commands."""
    found: dict[str, set[str]] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            for one in child.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.setdefault(one.laddr.ip, set()).add(" ".join(child.cmdline())[:120])
        except psutil.Error:
            continue
    return found


def test_a_local_ray_has_no_dashboard() -> None:
    with ray_session(RunConfig(cpus=1)):
        import ray

        assert ray._private.worker._global_node.webui_url in (None, "")


@pytest.mark.xfail(
    strict=True, reason="Ray 2.60 binds its servers to every interface, whatever its node's address"
)
def test_a_local_ray_listens_on_loopback_only() -> None:
    before = listening()
    with ray_session(RunConfig(cpus=1)):
        found = {ip: who - before.get(ip, set()) for ip, who in listening().items()}
    assert not {ip: who for ip, who in found.items() if who and ip not in ("127.0.0.1", "::1")}


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_local_ray_turns_away_who_has_not_its_token(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)  # a `ray.init` of other tests leaves the first
    visit = """
import sys
from sparcom.config import RunConfig
from sparcom.pipeline.ray.session import ray_session
with ray_session(RunConfig(ray_address=sys.argv[1])):
    import ray
    print(len(ray.nodes()))
"""

    def visitor(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        word = [sys.executable, "-c", visit, ray.get_runtime_context().gcs_address]
        return subprocess.run(word, env=env, capture_output=True, text=True, timeout=120)

    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    with ray_session(RunConfig(cpus=1)):
        import ray

        assert visitor(dict(os.environ)).stdout.strip() == "1"
        theirs = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        turned_away = visitor({**plain, **theirs})
    assert turned_away.returncode != 0
    (said,) = re.findall("SparcomError: the cluster at .*", turned_away.stderr)
    assert "could not be reached: RPC error: InvalidAuthToken" in said
    assert not {name for name in os.environ if name.startswith("RAY_AUTH")} - set(plain)


@pytest.mark.parametrize("order", ["own theirs own", "theirs own theirs"])
def test_a_ray_of_the_user_s_own_in_the_same_process_works(order: str, tmp_path: Path) -> None:
    code = """
import sys, ray
from sparcom.config import RunConfig
from sparcom.pipeline.ray.session import ray_session
for whose in sys.argv[1].split():
    if whose == "own":
        with ray_session(RunConfig(cpus=1)):
            print(len(ray.nodes()))
    else:
        ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
        print(len(ray.nodes()))
        ray.shutdown()
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run([sys.executable, "-c", code, order], capture_output=True, text=True,
                          env={**env, "HOME": str(tmp_path)}, timeout=180)  # fmt: skip
    assert done.stdout.split() == ["1"] * 3, done.stderr
    assert (tmp_path / ".ray/auth_token").exists()  # of their ray.init: ours needs none


def test_how_the_environment_authenticates_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_session(RunConfig(cpus=1)):
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_a_cluster_that_turns_us_away_is_told_in_one_line() -> None:
    import ray

    def init(**_: object) -> None:
        raise ray.exceptions.AuthenticationError("Token is missing")

    turned_away = SimpleNamespace(init=init, exceptions=ray.exceptions)
    message = "^the cluster at head:6379 could not be reached: Token is missing[^\n]*$"
    with pytest.raises(SparcomError, match=message):
        session._start(turned_away, {"address": "head:6379"})


@pytest.fixture
def secret_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_secrets_of_the_environment_are_written_nowhere(
    tmp_path: Path, secret_environment: None
) -> None:
    """Neither on the terminal nor in any file of the run, its report among them."""
    save_tiny_llm(tmp_path / "model")
    write_corpus(tmp_path / "corpus.jsonl", records(24))
    config = slow_config(tmp_path, tmp_path / "run", batch_tokens=64, slots=4)
    code, out, err = Driver(config).end(300)
    assert code == 0
    assert main(["report", config.out]) == 0
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert {"run.json", "report.html"} <= {p.name for p in files}
    for value in SECRETS.values():
        assert value in os.environ.values()
        assert value not in out + err
        assert [p.name for p in files if value.encode() in p.read_bytes()] == []


@pytest.mark.parametrize("name", ["../x", "figures/../../x", "/etc/x", "a\\..\\x", ""])
def test_no_name_leads_out_of_the_run_directory(tmp_path: Path, name: str) -> None:
    store = RunStore(tmp_path / "run")
    (tmp_path / "x").write_text("theirs")
    for act in (
        lambda: store.write_file(name, b"x"),
        lambda: store.files.write_table(name, pa.table({"a": [1]})),
        lambda: store.files.delete(name),
        lambda: store.files.delete_folder(name),
        lambda: store.files.read_bytes(name),
    ):
        with pytest.raises(InputError, match="not the name of a file inside"):
            act()
    assert (tmp_path / "x").read_text() == "theirs"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["../../x", "a/..", "..", "/etc/passwd", "org/name@main"])
def test_a_sweep_names_run_directories_below_its_own(model: str) -> None:
    assert "/" not in run_name(3, model)
    assert run_name(3, model).startswith("03-")
