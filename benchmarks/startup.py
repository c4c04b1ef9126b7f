"""What a user waits for: the first result, an import, a refusal, and a run with nothing left to do.

    python benchmarks/startup.py [--rounds 5] [--model default] [--parts first import bad complete]

Every figure is of whole processes, so that nothing is warm but the caches on disk. Beside the
seconds on the clock stand those of the processor (user and system, of the process and all below it,
Ray's among them): on a busy machine only these compare.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from common import emit, print_card, print_table
from sparcom.errors import SparcomError

CLI = ("-m", "sparcom.cli")
PER_CATEGORY = 2  # of six categories: 12 instructions
COMPLETE = 40  # the run that is resumed has 240
EVERY = 0.05  # seconds between two looks at the processes; what one does after the last is missed
BARS = {"first_result_s": 15.0, "import_s": 0.3, "bad_input_s": 1.0, "complete_s": 2.0}
"""figure -> its bar, in seconds on a quiet machine of two cores."""


def timed(arguments: Sequence[str], code: int = 0) -> tuple[float, float]:
    """(seconds on the clock, seconds of the processor) of one Python process.

    Raises SparcomError if it ends with another exit code: a wrong answer is not timed.
    """
    started, used = time.perf_counter(), dict[int, float]()
    with tempfile.TemporaryFile("w+") as said:
        process = psutil.Popen([sys.executable, *arguments], stdout=said, stderr=said)
        looking = threading.Thread(target=watch, args=(process, used), daemon=True)
        looking.start()
        process.wait()
        seconds = time.perf_counter() - started
        looking.join()
        if process.returncode != code:
            said.seek(0)
            raise SparcomError(
                f"{' '.join(arguments)}: exit {process.returncode}, expected {code}: {said.read()}"
            )
    return seconds, sum(used.values())


def watch(process: psutil.Process, used: dict[int, float]) -> None:
    """Note the processor's seconds of a process and all below it, by process id, until it ends."""
    while process.is_running():
        with suppress(psutil.Error):  # it has ended
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    times = one.cpu_times()
                    used[one.pid] = times.user + times.system
        time.sleep(EVERY)


def count_arguments(model: str, out: Path, limit: int) -> list[str]:
    return [*CLI, "count", "--model", model, "--corpus", "hexainst-ai", "--limit", str(limit),
            "--out", str(out)]  # fmt: skip


def measure(part: str, model: str, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """The times of one part, after one run that is not kept."""
    if part == "import":
        calls = [["-c", "import sparcom"]] * (rounds + 1)
        return [timed(call) for call in calls][1:]
    if part == "bad":
        call = [*CLI, "run", "--corpus", str(folder / "nofile.jsonl"), "--out", str(folder / "no")]
        return [timed(call, code=2) for _ in range(rounds + 1)][1:]
    if part == "complete":
        call = count_arguments(model, folder / "complete", COMPLETE)
        timed(call)
        return [timed([*call, "--resume"]) for _ in range(rounds + 1)][1:]
    call = count_arguments(model, folder / "first", PER_CATEGORY)
    return [timed([*call, "--overwrite"]) for _ in range(rounds + 1)][1:]


PARTS = {
    "first": "first_result_s",
    "import": "import_s",
    "bad": "bad_input_s",
    "complete": "complete_s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    print_card()
    rows, bars, busy = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            name = PARTS[part]
            times = measure(part, arguments.model, Path(folder), arguments.rounds)
            clock, processor = zip(*times, strict=True)
            bars[name] = statistics.median(clock)
            busy[name] = statistics.median(processor)
            rows.append(
                [name, f"{bars[name]:.2f}", f"{busy[name]:.2f}", f"{min(clock):.2f}",
                 f"{max(clock):.2f}", f"{BARS[name]:g}"]
            )  # fmt: skip
    print(f"{arguments.rounds} rounds, medians")
    print_table(["", "s", "of the processor", "least s", "most s", "bar"], rows)
    emit("startup", bars, processor_s=busy, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
