"""Whatever a corpus holds, a command ends soon: with a result, or with exit 2 and short lines."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from damaged_corpora import KINDS, draw, save_whole_model
from fuzzing import check_output, run_cases

FAST, SLOW = 480, 6000  # cases
BUDGET = 30  # seconds of the fast test
MEMORY = 1 << 20  # KB of one process
# The kernel's own peak for this program. A child's ru_maxrss is at least the size of the process
# that started it, and RUSAGE_CHILDREN is the largest of all children so far.
IN_A_PROCESS = """
import atexit, re, sys
from pathlib import Path

def write_peak():
    status = Path("/proc/self/status").read_text()
    Path("peak").write_text(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

atexit.register(write_peak)
from sparcom.cli.main import main

sys.exit(main())
"""


def test_damaged_corpora_of_every_kind(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of the names are relative
    save_whole_model(tmp_path / "model")
    done = run_cases(draw, 0, FAST, tmp_path, capsys, BUDGET)
    assert done >= 3 * len(KINDS), f"only {done} cases in {BUDGET} s"


@pytest.mark.slow
def test_many_damaged_corpora(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_whole_model(tmp_path / "model")
    run_cases(draw, FAST, FAST + SLOW, tmp_path, capsys, math.inf)


@pytest.mark.parametrize("seed", [2, 4, 6, 25])
def test_damaged_corpora_in_a_process_of_their_own(tmp_path, seed):
    """The same, where a crash of the interpreter and its memory would be seen."""
    save_whole_model(tmp_path / "model")
    (tmp_path / "case").mkdir()
    name, argv = draw(seed, tmp_path / "case")
    argv = [word for word in argv if "\0" not in word]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, *argv],
        capture_output=True, text=True, timeout=600, cwd=tmp_path,
    )  # fmt: skip
    check_output(f"{name} {argv}", done.returncode, done.stdout, done.stderr, 0)
    assert int((tmp_path / "peak").read_text()) < MEMORY


def test_the_cases_are_the_same_for_a_seed(tmp_path):
    def files(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}

    for seed in random.Random(0).sample(range(1000), 8):
        for name in "ab":
            (tmp_path / f"{seed}{name}").mkdir()
        _, first = draw(seed, tmp_path / f"{seed}a")
        _, second = draw(seed, tmp_path / f"{seed}b")
        assert [w.replace(f"{seed}a", f"{seed}b") for w in first] == second
        assert files(tmp_path / f"{seed}a") == files(tmp_path / f"{seed}b")
