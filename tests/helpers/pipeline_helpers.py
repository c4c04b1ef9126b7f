"""Runs that last some seconds, and what a fault is done to: processes, files, sockets."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.pipeline.run import RunSummary
from sparcom.store import RunStore

PARTS = 12


def lay_out(folder: Path) -> Path:
    """A folder with a tiny model and a corpus of `PARTS` parts of 4, each about 0.1 s long."""
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", records(4 * PARTS))
    return folder


def slow_config(work: Path, out: Path, **changes: Any) -> RunConfig:
    """Each instruction takes a pass of 3,072 rows of its own."""
    values = {
        "model": str(work / "model"), "corpus": str(work / "corpus.jsonl"), "out": str(out),
        "cpus": 1, "part_size": 4, "batch_tokens": 3072, "slots": 1,
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def is_complete(summary: RunSummary) -> bool:
    """Whether the run that a summary is of says so itself."""
    return RunStore(summary.location).manifest()["status"] == "complete"


def results_of(run: Path) -> Mapping[str, bytes | list]:
    """Everything that a run has found: bytes of counts and sets, rows of the merged profile."""
    found: dict[str, Any] = {
        str(file.relative_to(run)): file.read_bytes()
        for name in ("counts", "sets")
        for file in sorted((run / name).glob("*"))
    }
    found["profiles"] = {
        file.name: pq.read_table(file).to_pylist() for file in (run / "profiles").iterdir()
    }
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    """What a condition returns once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.01)
    return value


def some_parts_done(run: Path, least: int = 2) -> Callable[[], bool]:
    return lambda: len(list((run / "sets").glob("part-*.parquet"))) >= least


def actors(of: psutil.Process | None = None) -> list[psutil.Process]:
    """The actor processes below a process (this one)."""
    found = []
    for child in (of or psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            if any("CountActor" in word for word in child.cmdline()[:1]):
                found.append(child)
    return found


@contextmanager
def when(condition: Callable[[], Any], act: Callable[[], Any]) -> Iterator[list]:
    """Does something, from another thread, once a condition is true; yields what it returned."""
    done: list = []

    def run() -> None:
        wait_for(condition)
        done.append(act())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    thread.join(1)


class Driver:
    """`sparcom count` in a process of its own, and every process that it starts."""

    def __init__(self, config: RunConfig, *arguments: str) -> None:
        text = "".join(
            f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
            for key, value in config.to_json().items()
            if value not in (None, "")
        )
        self.file = Path(config.out).with_suffix(".toml")
        self.file.write_text(text)
        command = [sys.executable, "-m", "sparcom.cli", "count", "--config", str(self.file)]
        self.process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.seen: dict[int, psutil.Process] = {}
        self.shared: set[str] = set()

    def look(self) -> "Driver":
        """Note the processes that the driver has started so far, and their shared memory files."""
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen[child.pid] = child
                with suppress(OSError):
                    lines = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
                    self.shared |= {
                        name for line in lines if (name := line.partition("/dev/shm/")[2])
                    }
        return self

    def end(self, seconds: float = 60.0) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, once the driver has ended."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def left(self, seconds: float = 20.0) -> list[str]:
        """Processes, shared memory and folders that outlive it by some seconds, in words."""
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=seconds)
        files = [name for name in self.shared if Path("/dev/shm", name).exists()]
        folders = Path("/tmp").glob(f"sparcom-ray-{self.process.pid}-*")
        return [*map(str, alive), *files, *map(str, folders)]
