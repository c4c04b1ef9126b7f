"""What killed processes leave on this machine, and that a session removes it, and nothing else."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from pipeline_helpers import wait_for

from sparcom.pipeline.ray.cleanup import SharedFiles, mapped_by, remove_noted, temporary_files_in

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux's /dev/shm")
Process = tuple[subprocess.Popen, Path]
MAPPING = """
import mmap
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

maps = []
for path in sys.argv[1:]:
    with open(path) as file:
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
memory = SharedMemory(create=True, size=4096)
resource_tracker.unregister(memory._name, "shared_memory")  # killed too, where a whole group is
print(memory.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mapping() -> Iterator[Callable[..., Process]]:
    """Starts a process that makes a file of shared memory, and maps further ones."""
    started: list[Process] = []

    def start(*paths: Path) -> Process:
        process = subprocess.Popen(
            [sys.executable, "-c", MAPPING, *paths],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append((process, Path("/dev/shm", process.stdout.readline().strip())))
        return started[-1]

    yield start
    for process, file in started:
        kill(process)
        file.unlink(missing_ok=True)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_shared_memory_of_a_killed_process_is_removed_at_the_end(mapping, tmp_path: Path) -> None:
    with SharedFiles(tmp_path, every=0.05):
        process, file = mapping()
        wait_for(lambda: (tmp_path / "shared-memory").is_file(), 20)
        kill(process)
        assert file.exists()
    assert not file.exists()


def test_shared_memory_that_a_process_maps_is_left_alone(mapping, tmp_path: Path) -> None:
    others = SharedMemory(create=True, size=4096)  # this process's own, not of one below it
    with SharedFiles(tmp_path, every=0.05):
        _, file = mapping()
        wait_for(lambda: (tmp_path / "shared-memory").is_file(), 20)
    assert file.exists()
    assert file.name in (tmp_path / "shared-memory").read_text().splitlines()
    assert others.name in mapped_by([os.getpid()])
    assert others.name not in (tmp_path / "shared-memory").read_text().splitlines()
    others.close()
    others.unlink()


def test_files_that_were_there_before_are_the_users_own(mapping, tmp_path: Path) -> None:
    """A model in shared memory, which the killed process had mapped."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        model, shard = Path(f"{folder}.safetensors"), Path(folder, "model.safetensors")
        model.write_bytes(b"weights")
        try:
            with SharedFiles(tmp_path, every=0.05):
                shard.write_bytes(b"weights")
                process, file = mapping(model, shard)
                assert {model.name, f"{shard.parent.name}/{shard.name}"} <= mapped_by([process.pid])
                wait_for(lambda: (tmp_path / "shared-memory").is_file(), 20)
                kill(process)
            assert model.exists()
            assert shard.exists()
        finally:
            model.unlink(missing_ok=True)
    assert not file.exists()


def test_what_a_killed_driver_noted_is_removed_by_the_next(mapping, tmp_path: Path) -> None:
    process, file = mapping()
    (tmp_path / "shared-memory").write_text(f"{file.name}\ngone-already")
    remove_noted(tmp_path)
    assert file.exists()
    kill(process)
    remove_noted(tmp_path)
    assert not file.exists()
    remove_noted(tmp_path / "none")


def test_temporary_files_of_what_is_started_lie_in_the_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", "/before")
    with temporary_files_in(tmp_path / "tmp"):
        code = "import tempfile; print(tempfile.mkdtemp())"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert Path(said.stdout.strip()).parent == tmp_path / "tmp"
    assert os.environ["TMPDIR"] == "/before"
    assert tempfile.gettempdir() != str(tmp_path / "tmp")
