"""Faults: whatever dies, the results are bit for bit those of a run that nothing disturbed."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pipeline_helpers import (
    PARTS,
    Driver,
    actors,
    is_complete,
    lay_out,
    results_of,
    slow_config,
    some_parts_done,
    wait_for,
    when,
)

from sparcom.errors import InputError, SparcomError
from sparcom.pipeline import plan
from sparcom.pipeline.ray import session
from sparcom.pipeline.ray.cleanup import mapped_by
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count
from sparcom.store import Run, RunStore

pytestmark = pytest.mark.slow  # each kills and restarts a Ray of its own


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def ray_local(work: Path) -> Iterator[None]:
    """A local Ray with room for two actors, which leaves nothing behind after all these faults."""
    with ray_session(slow_config(work, work / "none", actors=2)):
        yield
        children = [  # less the one that renders templates, which ends with this process
            child
            for child in psutil.Process().children(recursive=True)
            if not any("render_worker" in word for word in child.cmdline())
        ]
        shared = mapped_by(child.pid for child in children)
    _, alive = psutil.wait_procs(children, timeout=20)  # which hold no port any more either
    assert alive == []
    assert [name for name in shared if Path("/dev/shm", name).exists()] == []
    assert list(Path("/tmp").glob(f"sparcom-ray-{os.getpid()}-*")) == []


@pytest.fixture(scope="module")
def undisturbed(work: Path, ray_local: None) -> dict:
    count(slow_config(work, work / "undisturbed"))
    return results_of(work / "undisturbed")


def test_an_undisturbed_run_has_every_part(undisturbed: dict) -> None:
    assert len(undisturbed) == 2 * PARTS + 1
    assert list(undisturbed["profiles"]) == [f"parts-00000-{PARTS - 1:05d}.parquet"]


# -- actors ---------------------------------------------------------------------------------------


def kill_one() -> int:
    victim = wait_for(actors)[0]
    victim.send_signal(signal.SIGKILL)
    return victim.pid


def test_an_actor_killed_in_the_middle_of_a_part(work, tmp_path, undisturbed, ray_local) -> None:
    run = tmp_path / "run"
    with when(some_parts_done(run), kill_one) as killed:
        summary = count(slow_config(work, run))
    assert killed
    assert not psutil.pid_exists(killed[0])
    assert is_complete(summary)
    assert results_of(run) == undisturbed


def test_restarts_are_bounded(work, tmp_path, ray_local) -> None:
    """Every actor that appears is killed: the run stops, says so, and can be resumed."""
    over = threading.Event()

    def kill_all() -> None:
        while not over.is_set():
            for actor in actors():
                actor.send_signal(signal.SIGKILL)
            over.wait(0.1)

    run = tmp_path / "run"
    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        with pytest.raises(SparcomError, match="an actor could not go on, after 1 restarts"):
            count(slow_config(work, run, restarts=1))
    finally:
        over.set()
        thread.join()
    assert Run(run).manifest["status"] == "stopped"


@pytest.mark.slow
def test_a_node_that_is_lost(work, tmp_path, undisturbed) -> None:
    """In a process of its own, since a process has one Ray."""
    code = Path(__file__).parents[1] / "helpers" / "lose_a_node.py"
    done = subprocess.run(
        [os.sys.executable, code, work, tmp_path / "run"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "node removed" in done.stdout
    assert results_of(tmp_path / "run") == undisturbed


# -- the driver -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_nothing_and_is_resumed(
    work, tmp_path, undisturbed, ray_local
) -> None:
    run = tmp_path / "run"
    driver = Driver(slow_config(work, run))
    wait_for(some_parts_done(run))
    driver.look().process.kill()
    driver.end()
    done = RunStore(run).done_parts("counts")
    assert 2 <= len(done) < PARTS
    assert Run(run).manifest["status"] == "running"
    summary = count(slow_config(work, run), resume=True)
    assert is_complete(summary)
    assert results_of(run) == undisturbed
    assert sorted(p.name for p in run.iterdir()) == [
        "corpus.parquet", "counts", "profiles", "run.json", "sets"
    ]  # fmt: skip
    with session.ray_folder():  # what a killed driver could not remove goes with the next one
        assert driver.left(120) == []  # Ray's own agents notice after a minute


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_in_order(
    work, tmp_path, undisturbed, ray_local, number, code
) -> None:
    run = tmp_path / "run"
    if signal.getsignal(number) is signal.SIG_IGN:  # as for what a shell starts in the background
        signal.signal(number, signal.SIG_DFL)
    driver = Driver(slow_config(work, run))
    wait_for(some_parts_done(run))
    driver.look().process.send_signal(number)
    returned, out, err = driver.end()
    assert (returned, out) == (code, "")
    # Ray's own processes may write a line of theirs before or after ours.
    assert "sparcom: interrupted; --resume finishes the run" in err.splitlines()
    assert "Traceback" not in err
    assert driver.left() == []
    manifest = Run(run).manifest
    assert (manifest["status"], manifest["sessions"][0]["ended"]) == ("stopped", "interrupted")
    assert not (run / "lock").exists()
    count(slow_config(work, run), resume=True)
    assert results_of(run) == undisturbed
    ended = [s["ended"] for s in Run(run).manifest["sessions"]]
    assert ended == ["interrupted", "complete"]


@pytest.mark.slow
def test_a_second_driver_is_refused_and_the_first_goes_on(work, tmp_path, undisturbed) -> None:
    run = tmp_path / "run"
    driver = Driver(slow_config(work, run))
    wait_for(some_parts_done(run))
    for how in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match=f"another driver .*process {driver.process.pid} on"):
            count(slow_config(work, run), **how)
    code, _, err = driver.look().end()
    assert (code, err) == (0, "")
    assert driver.left() == []
    assert results_of(run) == undisturbed


# -- the disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("sets/part-00003.parquet", lambda data: data[: len(data) // 2]),
        ("counts/part-00003.parquet", lambda data: data[:400] + bytes(200) + data[600:]),
        (f"profiles/parts-00000-{PARTS - 1:05d}.parquet", lambda data: data[:-100] + bytes(100)),
        ("sets/part-00000.parquet", lambda data: b""),
    ],
)
def test_a_corrupt_file_is_found_and_its_parts_are_counted_again(
    work, tmp_path, undisturbed, ray_local, name, harm
) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", work / "undisturbed", run], check=True)
    (run / name).write_bytes(harm((run / name).read_bytes()))
    (run / "sets/part-00005.parquet.0123abcd.tmp").write_bytes(b"half")
    count(slow_config(work, run), resume=True, check=True)
    assert results_of(run) == undisturbed


def test_a_file_of_another_run_is_not_taken(work, tmp_path, undisturbed, ray_local) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    count(slow_config(work, other, threshold=0.5))
    subprocess.run(["cp", "-r", work / "undisturbed", run], check=True)
    foreign = (other / "sets/part-00002.parquet").read_bytes()
    (run / "sets/part-00002.parquet").write_bytes(foreign)
    count(slow_config(work, run), resume=True)
    assert results_of(run) == undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that a run does not fit on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1100k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(work, small_disk, undisturbed, ray_local, monkeypatch) -> None:
    monkeypatch.setattr(plan, "_check_space", lambda *_: None)  # it fills up while it runs
    run = small_disk / "run"
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    with pytest.raises(SparcomError, match="cannot be written: .*No space left.*--resume"):
        count(slow_config(work, run))
    assert not list(run.rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    count(slow_config(work, run), resume=True)
    assert results_of(run) == undisturbed


# -- the object store -----------------------------------------------------------------------------


@pytest.mark.slow
def test_an_object_store_that_spills(work, tmp_path, undisturbed) -> None:
    code = Path(__file__).parents[1] / "helpers" / "fill_the_object_store.py"
    done = subprocess.run(
        [os.sys.executable, code, work, tmp_path / "run"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "spilled" in done.stdout
    assert results_of(tmp_path / "run") == undisturbed
