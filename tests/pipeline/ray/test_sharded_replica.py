"""A replica that leads a group of shard actors: vLLM with tensor parallelism in the service."""

import signal
from pathlib import Path

import psutil
import pytest
from pipeline_helpers import results_of, some_parts_done, wait_for, when
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.pipeline.ray.cleanup import mapped_by
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count
from sparcom.store import RunStore

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow


def config_of(work: Path, name: str) -> RunConfig:
    return RunConfig(
        model=str(work / "model"), corpus=str(work / "corpus.jsonl"), out=str(work / name),
        engine="vllm", tensor_parallel=2, cpus=1, part_size=4, batch_tokens=128, slots=2,
        retain="counts",
    )  # fmt: skip


def shards() -> list[psutil.Process]:
    """The shard actors below this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "ShardActor" in "".join(child.cmdline()[:1]):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_worker_killed_in_the_middle_of_a_part(tmp_path: Path) -> None:
    from vllm_tools import SHAPE

    shape = {key: value for key, value in SHAPE.items() if key != "vocab_size"}
    save_tiny_llm(tmp_path / "model", **shape)
    write_corpus(tmp_path / "corpus.jsonl", records(96))
    folders: set[Path] = set()
    with ray_session(config_of(tmp_path, "any")):
        count(config_of(tmp_path, "undisturbed"))
        run = tmp_path / "run"

        def kill() -> set[str]:
            group = wait_for(shards)
            mapped = mapped_by(child.pid for child in group)
            folders.update(Path(child.environ()["TMPDIR"]) for child in group)
            group[0].send_signal(signal.SIGKILL)
            return mapped

        with when(some_parts_done(run, 3), kill) as killed:
            summary = count(config_of(tmp_path, "run"))
    assert killed
    assert summary.failed == 0
    assert killed[0]  # the shards of one machine share memory
    assert [name for name in killed[0] if Path("/dev/shm", name).exists()] == []
    assert [folder for folder in folders if folder.exists()] == []
    assert RunStore(run).results.failures() == []
    assert results_of(run) == results_of(tmp_path / "undisturbed")
