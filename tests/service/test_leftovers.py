"""What killed processes leave on this machine, and that a session removes it, and nothing else."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from service_helpers import wait_for

from sparcom.service.leftovers import SharedFiles, mapped_by, remove_noted, temporary_files_in

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux's /dev/shm")
HOLD = """
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

memory = SharedMemory(create=True, size=4096)
resource_tracker.unregister(memory._name, "shared_memory")  # killed too, where a whole group is
print(memory.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen, Path]]:
    """A process that holds a file of shared memory, and the file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    file = Path("/dev/shm", process.stdout.readline().strip())
    yield process, file
    process.kill()
    process.wait()
    file.unlink(missing_ok=True)


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_shared_memory_of_a_killed_process_is_removed_at_the_end(holder, tmp_path: Path) -> None:
    process, file = holder
    with SharedFiles(tmp_path, every=0.05):
        wait_for(lambda: (tmp_path / "shared-memory").is_file(), 20)
        kill(process)
        assert file.exists()
    assert not file.exists()


def test_shared_memory_that_a_process_maps_is_left_alone(holder, tmp_path: Path) -> None:
    _, file = holder
    others = SharedMemory(create=True, size=4096)  # this process's own, not of one below it
    with SharedFiles(tmp_path, every=0.05):
        wait_for(lambda: (tmp_path / "shared-memory").is_file(), 20)
    assert file.exists()
    assert file.name in (tmp_path / "shared-memory").read_text().splitlines()
    assert others.name in mapped_by([os.getpid()])
    assert others.name not in (tmp_path / "shared-memory").read_text().splitlines()
    others.close()
    others.unlink()


def test_what_a_killed_driver_noted_is_removed_by_the_next(holder, tmp_path: Path) -> None:
    process, file = holder
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
