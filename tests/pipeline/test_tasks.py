"""What the driver of a cluster leaves to Ray tasks: merging profiles, checking stored files."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.checking import check_by_tasks
from sparcom.pipeline.merging import Merger
from sparcom.pipeline.plan import Plan, prepare
from sparcom.pipeline.ray.session import ray_session
from sparcom.store import check
from sparcom.store.profiles.spans import FAN


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A local Ray with one CPU."""
    with ray_session(RunConfig(cpus=1)):
        yield


@pytest.fixture
def counted(tmp_path: Path) -> Plan:
    """A run all of whose parts are counted, one more than are merged at once."""
    save_tiny_llm(tmp_path / "model")
    write_corpus(tmp_path / "corpus.jsonl", records(FAN + 1))
    plan = prepare(
        RunConfig(
            model=str(tmp_path / "model"), corpus=str(tmp_path / "corpus.jsonl"),
            out=str(tmp_path / "run"), cpus=1, part_size=1, batch_tokens=64, slots=1,
        )
    )  # fmt: skip
    actor = CountActor(plan.work)
    for part in plan.todo:
        actor.run(part)
    return plan


def test_merging_does_not_wait_for_actors_that_hold_every_cpu(ray_local, counted) -> None:
    @ray.remote(num_cpus=1)
    class Holder:
        def holds(self) -> bool:
            return True

    holder = Holder.remote()
    assert ray.get(holder.holds.remote())
    failed: list[BaseException] = []

    def merge() -> None:
        try:
            with Merger(counted, remote=True) as merger:
                for part in counted.todo:
                    merger.add(part)
                merger.finish()
        except BaseException as error:
            failed.append(error)

    merging = threading.Thread(target=merge, daemon=True)
    merging.start()
    merging.join(60)
    assert (merging.is_alive(), failed) == (False, [])
    assert [s.name for s in counted.store.profiles.spans()] == [f"parts-00000-{FAN:05d}.parquet"]
    ray.kill(holder)


def test_tasks_check_stored_files_and_the_driver_reads_none(
    ray_local, counted, monkeypatch
) -> None:
    store = counted.store
    names = [f"sets/{name}" for name in store.files.names("sets")]
    expected = [names[3], names[9]]
    for name in expected:
        path = Path(store.location, name)
        path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr("sparcom.pipeline.checking.FILES_OF_TASK", 4)

    def here(*_: object) -> None:
        raise AssertionError("read by the driver")

    monkeypatch.setattr(check, "problem_of_file", here)
    found = dict(check_by_tasks(store, names))
    assert list(found) == expected
    assert all("not readable as Parquet" in problem for problem in found.values())
