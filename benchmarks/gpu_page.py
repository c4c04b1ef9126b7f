"""One page about a machine with a GPU: its tests, its kernels, and its engines, bare and counting.

    python benchmarks/gpu_page.py [--out build/gpu.md] [--minutes 10] [--model default]

Each section is a command of its own with a share of the minutes, and what it printed. A section
that fails or takes too long says so, the others go on, and the exit code is 1. `--model` is the
largest model of the hub's cache that fits the device, unless given. The page goes into docs as it
is.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
SHARE_OF_MEMORY = 0.6  # weights; the rest is for the KV cache and the counts


@dataclass(frozen=True)
class Section:
    """A part of the page. share: of the minutes, at most."""

    title: str
    command: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Outcome:
    """What a section's command printed. problem: why it counts as failed, or empty."""

    section: Section
    text: str
    seconds: float
    problem: str = ""


def sections(model: str) -> tuple[Section, ...]:
    """What the page holds, in its order."""
    python = sys.executable

    def script(name: str, *arguments: str) -> tuple[str, ...]:
        return (python, str(HERE / name), *arguments)

    return (
        Section("The machine", ("nvidia-smi",), 0.02),
        Section("SPARCOM on it", (python, "-m", "sparcom.cli", "doctor"), 0.05),
        Section("Tests", (python, "-m", "pytest", "-q", "-m", "gpu", "tests"), 0.25),
        Section("Kernels", script("kernels.py", "--parts", "gpu"), 0.13),
        Section("The transformers engine", script("engines.py", "--model", model), 0.25),
        Section("The vLLM engine", script("engines.py", "--engine", "vllm", "--model", model), 0.3),
    )


def run(section: Section, seconds: float) -> Outcome:
    """Run a section's command for so many seconds at most, then end it with all its processes."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            section.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        return Outcome(section, "", 0.0, f"no {section.command[0]} here")
    problem = ""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        problem = f"stopped after {seconds:.0f} s"
    if process.returncode and not problem:
        problem = f"exit code {process.returncode}"
    return Outcome(section, text, time.monotonic() - started, problem)


def page(outcomes: Sequence[Outcome], model: str) -> str:
    """The page as Markdown."""
    failed = [one.section.title for one in outcomes if one.problem]
    lines = [
        "# SPARCOM on a GPU",
        "",
        f"Written by `make gpu` on {date.today()}; engines on `{model}`. "
        + (f"Failed: {', '.join(failed)}." if failed else "Every section ended well."),
    ]
    for one in outcomes:
        said = f"{one.seconds:.0f} s" + (f"; **{one.problem}**" if one.problem else "")
        text = one.text.strip() or "(nothing was printed)"
        fence = "`" * max(3, longest_run(text, "`") + 1)
        lines += ["", f"## {one.section.title}", "", said, "", f"{fence}text", text, fence]
    return "\n".join(lines) + "\n"


def longest_run(text: str, character: str) -> int:
    """How often a character stands behind itself at most.

    >>> longest_run("a``b`", "`")
    2
    """
    longest = current = 0
    for one in text:
        current = current + 1 if one == character else 0
        longest = max(longest, current)
    return longest


def largest_cached(free: int, cache: Path | None = None) -> str:
    """The largest model of the hub's cache whose files fit `free` bytes and which both engines
    count, from its config; "default" without one.

    cache: folder of the cache; None: the hub's own.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(cache).repos
    except CacheNotFound:
        return "default"
    fitting = [one for one in repositories if one.repo_type == "model" and one.size_on_disk <= free]
    for one in sorted(fitting, key=lambda one: -one.size_on_disk):
        snapshots = sorted(one.revisions, key=lambda revision: -revision.last_modified)
        if snapshots and is_counted(str(snapshots[0].snapshot_path)):
            return str(snapshots[0].snapshot_path)
    return "default"


def is_counted(model: str) -> bool:
    """True if both engines count a model, from its config and what is there of its weights."""
    from sparcom.errors import SparcomError
    from sparcom.planning.model_report import report_model

    try:
        report = report_model(model)
    except SparcomError:
        return False
    problems = (report.problem, report.weights_problem, *(one.refused for one in report.engines))
    return not any(problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu.md"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model")
    given = parser.parse_args()
    model = given.model or largest_cached(int(SHARE_OF_MEMORY * device_memory()))
    outcomes = []
    for section in sections(model):
        print(f"gpu: {section.title}", flush=True)
        outcomes.append(run(section, 60 * given.minutes * section.share))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(outcomes, model), "utf-8")
    print(f"gpu: the page is {given.out}")
    return int(any(one.problem for one in outcomes))


def device_memory() -> int:
    """Bytes of the first CUDA device; 0 without one."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0


if __name__ == "__main__":
    sys.exit(main())
