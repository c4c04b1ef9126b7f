"""Jobs: submitted to a local Ray head by the CLI and by the SDK; logs and results fetched."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import job
import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.errors import InputError
from sparcom.store import Run

JOBS = Path(__file__).parents[2] / "ray_jobs"
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    save_tiny_llm(folder / "tuned", rms_norm_eps=1e-3)
    write_corpus(folder / "corpus.jsonl", records(12))
    for config, model in (("config", "model"), ("tuned", "tuned")):
        (folder / f"{config}.toml").write_text(
            f"model = '{folder}/{model}'\ncorpus = '{folder}/corpus.jsonl'\n"
            f"out = '{folder}/{config}-run'\npart_size = 4\ncpus = 1\nbatch_tokens = 64\n"
        )
    return folder


def test_keys_are_overridden_as_toml_or_plain_words(work: Path) -> None:
    config = job.load(work / "config.toml", ["actors=3", "retain=sets", 'out="x y"', "verify=true"])
    assert (config.actors, config.retain, config.out, config.verify) == (3, "sets", "x y", True)
    config = job.load(work / "config.toml", ["threshold=0", "out=3", "memory=1"])
    assert (repr(config.threshold), config.out) == ("0.0", "3")
    for change, message in (
        ("actors=four", "--set actors: expected int, got str 'four'"),
        ("part_size=4.5", "--set part_size: expected int, got float 4.5"),
        ("limit=abc", "--set limit: expected int, got str 'abc'"),
    ):
        with pytest.raises(InputError, match=message):
            job.load(work / "config.toml", [change])
    with pytest.raises(InputError, match="no such key"):
        job.load(work / "config.toml", ["actor=3"])
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        job.load(work / "config.toml", ["actors"])


def free_ports(number: int) -> list[int]:
    """Not Ray's usual ones: another head's agent on them would take the jobs of this one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a local head's job server, in a process of its own, with a token."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    before = dict(os.environ)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    folder = Path(tempfile.mkdtemp(prefix="sparcom-head-", dir="/tmp"))  # short: Unix sockets
    jobs, agent = free_ports(2)
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1",
         "--num-cpus=4", f"--object-store-memory={100 << 20}", f"--temp-dir={folder}",
         f"--dashboard-port={jobs}", f"--dashboard-agent-listen-port={agent}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            break
    else:
        raise AssertionError("".join(said))
    yield f"http://127.0.0.1:{jobs}"
    process.terminate()
    process.communicate(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.clear()
    os.environ.update(before)


def submitted(head: str, *words: object) -> subprocess.CompletedProcess:
    """What the CLI says of a job that it submits and waits for."""
    submit = [RAY, "job", "submit", "--address", head, "--working-dir", JOBS, "--", sys.executable]
    return subprocess.run(
        [*submit, *words], capture_output=True, text=True, timeout=400, check=False
    )


def result_of(log: str) -> dict:
    """The result that a job's log ends with; of one that fails, Ray prints the log twice."""
    (line,) = {line for line in log.splitlines() if line.startswith('{"result"')}
    return json.loads(line)["result"]


@pytest.mark.slow
def test_a_job_by_the_cli_and_its_resumption(work: Path, head: str) -> None:
    done = submitted(head, "count.py", "--config", work / "config.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result_of(done.stdout)["instructions"] == 12
    begun = next(line for line in done.stdout.splitlines() if "run begins" in line)
    assert json.loads(begun)["run"] == Run(work / "config-run").manifest["run"]

    damaged = work / "config-run/sets/part-00001.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-20])
    again = submitted(head, "count.py", "--config", work / "config.toml", "--resume")
    assert again.returncode == 0, again.stderr
    assert f"{damaged}: not readable as Parquet" in again.stdout
    assert damaged.read_bytes() == whole


@pytest.mark.slow
def test_a_full_run_as_a_job_ends_with_its_report(work: Path, head: str) -> None:
    out = f'out="{work}/full"'
    done = submitted(head, "run.py", "--config", work / "config.toml", "--set", out)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(done.stdout)
    assert (result["instructions"], result["failed"]) == (12, 0)
    assert Run(work / "full").manifest["status"] == "complete"
    assert result["report"] == f"{work}/full/report.html"
    assert "<html" in Path(result["report"]).read_text("utf-8")
    again = submitted(head, "run.py", "--config", work / "config.toml", "--set", out)
    assert again.returncode != 0  # what is there is not counted over
    assert "exists already" in again.stdout


@pytest.mark.slow
def test_a_comparison_as_a_job_counts_both_models(work: Path, head: str) -> None:
    given = ("--config", work / "config.toml", "--tuned", work / "tuned.toml", "--overwrite")
    done = submitted(head, "compare.py", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(done.stdout)
    assert result["instructions"] == 12
    for which, run in (("base", "config-run"), ("tuned", "tuned-run")):
        assert result[which]["location"] == f"{work}/{run}"
        assert Run(work / run).manifest["status"] == "complete"
    stored = {file.stem for file in (work / "tuned-run/analysis").glob("*.parquet")}
    assert set(result["tables"]) == stored
    assert "alteration_summary" in stored


# In a process of its own: Ray reads the token once, and this one may have spoken to another Ray.
BY_SDK = """
import json, sys, time
from ray.job_submission import JobSubmissionClient

head, folder, entrypoint = sys.argv[1:]
client = JobSubmissionClient(head)
name = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": folder})
for _ in range(300):
    if client.get_job_status(name).is_terminal():
        break
    time.sleep(1)
print(json.dumps({"status": client.get_job_status(name), "logs": client.get_job_logs(name)}))
"""


@pytest.mark.slow
def test_a_sweep_and_a_wrong_job_by_the_sdk(work: Path, head: str) -> None:
    common = f"--config {work}/config.toml --models {work}/model {work}/none --out {work}/sweep"
    done = subprocess.run(
        [sys.executable, "-c", BY_SDK, head, JOBS, f"{sys.executable} sweep.py {common}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    ended = json.loads(done.stdout.splitlines()[-1])
    logs = ended["logs"]
    result = result_of(logs)
    assert result[f"{work}/model"]["instructions"] == 12
    assert "no such model folder" in result[f"{work}/none"]["error"]
    assert ended["status"] == "FAILED"  # one of the models could not be counted
    assert Run(work / "sweep/00-model").manifest["status"] == "complete"


@pytest.mark.slow
def test_a_study_as_a_job_and_again(work: Path, head: str) -> None:
    rows = [row | {"reference": "the sea is blue"} for row in records(12)]
    write_corpus(work / "answers.jsonl", rows)
    (work / "study.toml").write_text(
        f"out = '{work}/study'\n[run]\ncorpus = '{work}/answers.jsonl'\ncpus = 1\n"
        "batch_tokens = 64\nexamples = 0\n[analysis]\npermutations = 20\nbootstraps = 20\n"
        f"[[pair]]\nname = 'one'\nbase = '{work}/model'\ntuned = '{work}/tuned'\n"
        f"[[pair]]\nname = 'none'\nbase = '{work}/none'\ntuned = '{work}/tuned'\n"
    )
    done = submitted(head, "study.py", "--config", work / "study.toml")
    assert done.returncode != 0  # one of the models is not there
    result = result_of(done.stdout)
    assert result["page"] == f"{work}/study/study.html"
    assert "no such model folder" in result["problems"]["none/count base"]
    assert "one/compare" in result["done"]
    assert "none/count tuned" in result["done"]
    again = result_of(submitted(head, "study.py", "--config", work / "study.toml").stdout)
    assert again["done"] == []
    assert set(again["there"]) == set(result["done"])
