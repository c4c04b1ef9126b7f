"""What a local Ray's processes would leave on this machine when they are killed.

Temporary files: all of them have their `TMPDIR` in the folder of their Ray, which is removed whole.

Shared memory: a file in /dev/shm stays until somebody removes it. vLLM's sums on a CPU
(`*-cpushm_*`) are removed only by the process that made them, so a killed worker leaves them (seen
in vLLM 0.32.0); Python's (`psm_*`, the queues of vLLM's workers) also by that process' resource
tracker, unless it is killed too, as with a process group. Ray's object store leaves none (seen in
2.60). Neither vLLM nor Ray has a call that removes them, and a name does not say whose it is. So
the driver looks up in /proc which new ones its processes map, notes them, and removes at the end
what nobody maps any more. What was there before, or lies in a folder there (a model, a corpus), is
the user's own.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

EVERY = 1.0  # seconds
_SHARED = Path("/dev/shm")
_NOTE = "shared-memory"


class SharedFiles:
    """Within the block, notes the new files of shared memory that descendants of this process map.

    At its end those that no process maps are removed.
    folder: of the note, by which `remove_noted` does the same for a driver that was killed.
    every: seconds between two looks.
    """

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self._note, self._every = folder / _NOTE, every
        self._names: set[str] = set()
        self._others: set[str] = set()  # there before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparcom-shared", daemon=True)

    def __enter__(self) -> "SharedFiles":
        self._others = _listed()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        _remove_unused(self._names)

    def _run(self) -> None:
        before, looks = self._others, 0
        while not self._stop.wait(self._every):
            present = _listed()
            # Twice after each change: a file is there a moment before it is mapped.
            looks = 2 if present != before else looks - 1
            before = present
            if looks > 0:
                self._look()

    def _look(self) -> None:
        mapped = mapped_by(child.pid for child in psutil.Process().children(recursive=True))
        ours = {name for name in mapped if "/" not in name} - self._others
        if new := ours - self._names:
            self._names |= new
            self._note.write_text("\n".join(sorted(self._names)))


def remove_noted(folder: Path) -> None:
    """Remove what a killed driver had noted in its folder."""
    with suppress(OSError):
        _remove_unused((folder / _NOTE).read_text().splitlines())


def mapped_by(processes: Iterable[int]) -> set[str]:
    """The files of shared memory that processes map, by name; Linux only."""
    names: set[str] = set()
    for pid in processes:
        with suppress(OSError):  # it has ended, or is another user's
            for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines():
                name = line.partition(f"{_SHARED}/")[2]
                if name and not name.endswith(" (deleted)"):
                    names.add(name)
    return names


def _listed() -> set[str]:
    """Names of all files of shared memory."""
    return set(os.listdir(_SHARED)) if _SHARED.is_dir() else set()


def _remove_unused(names: Iterable[str]) -> None:
    """Remove those of the files that no process of this machine maps."""
    present = {name for name in names if (_SHARED / name).is_file()}
    for name in present - mapped_by(psutil.pids()) if present else ():
        with suppress(OSError):
            (_SHARED / name).unlink()


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Processes that start within the block have their temporary files in a folder."""
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before
