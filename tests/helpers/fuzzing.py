"""One command on damaged input: it ends soon, with a result, or with exit 2 and short lines."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparcom.cli.main import main
from sparcom.formatting import printable

LIMIT = 10  # seconds of processor time for one case; a busy machine takes longer
HANG = 90  # seconds
Draw = Callable[[int, Path], tuple[str, list[str]]]
"""(seed, empty folder) -> (name of the kind, arguments); the folder gets its files."""


def check_output(case: str, code: object, out: str, err: str, seconds: float) -> None:
    """Exit 0 or 2; on stderr only lines that are short and act on no terminal."""
    assert code in (0, 2), f"{case}: exit {code}: {err[-500:]}"
    assert seconds < LIMIT, f"{case}: {seconds:.1f} s"
    assert "Traceback" not in out + err, case
    if code == 2:
        assert out + err, f"{case}: nothing was said"
    for line in (*out.split("\n"), *err.split("\n")):
        assert printable(line) == line, f"{case}: {line!r}"
    for line in err.split("\n"):
        assert len(line) < 500, f"{case}: a line of {len(line)} characters"


def run_case(draw: Draw, seed: int, folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Run the case of a seed, in a folder that is made for it."""
    folder.mkdir()
    name, argv = draw(seed, folder)
    started, busy = time.monotonic(), _busy_seconds()
    try:
        code = main(argv)
    except SystemExit as stop:  # argparse
        code = stop.code
    except BaseException as error:
        raise AssertionError(f"case {seed} ({name}): {argv}") from error
    out, err = capsys.readouterr()
    check_output(f"case {seed} ({name}) {argv}", code, out, err, _busy_seconds() - busy)
    assert time.monotonic() - started < HANG, f"case {seed} ({name}) {argv}"


def run_cases(
    draw: Draw, first: int, stop: int, folder: Path, capsys: pytest.CaptureFixture, budget: float
) -> int:
    """Run the cases of some seeds until `budget` seconds are over; returns how many were run."""
    started = time.monotonic()
    for seed in range(first, stop):
        if time.monotonic() - started > budget:
            return seed - first
        run_case(draw, seed, folder / str(seed), capsys)
    return stop - first


def _busy_seconds() -> float:
    """Processor time of this process and of those that it has ended."""
    return sum(os.times()[:4])
