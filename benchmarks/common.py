"""What all benchmarks share: an environment card, alternating medians, a table, one JSON line."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sparcom import native


def card() -> dict[str, Any]:
    """Where the figures come from."""
    info = native.build_info()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "isa": info.get("isa"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def print_card() -> None:
    """Print the environment, one line."""
    print(" | ".join(f"{key} {value}" for key, value in card().items() if value is not None))


def alternate(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, round by round, all calls in each round: a machine drifts.

    calls: name -> what is timed. warm_up: rounds that are run and not kept.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up + rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - started)
    return times


def median_ratio(baseline: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """(median, low, high) of the paired speed ratios baseline / ours, with a 95 % interval.

    The interval is the order-statistics one of a median (binomial, two-sided).
    """
    ratios = sorted(b / o for b, o in zip(baseline, ours, strict=True))
    n = len(ratios)
    reach = int(0.98 * n**0.5)  # 1.96 * sqrt(n) / 2
    low = ratios[max(0, (n - 1) // 2 - reach)]
    high = ratios[min(n - 1, n // 2 + reach)]
    return statistics.median(ratios), low, high


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """An aligned table; numbers to the right."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        first = row[0].ljust(widths[0])
        print(" | ".join([first, *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]))


def emit(bench: str, bars: Mapping[str, float], **more: Any) -> None:
    """The last line: one JSON object with the bars, the environment and whatever else."""
    print(json.dumps({"bench": bench, "bars": dict(bars), "card": card(), **more}))
