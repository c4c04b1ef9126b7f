"""The loops run on torch's threads, on as many as torch says, and start no second pool."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparcom import native

SETUP = """
import os, time, torch
from sparcom import native
from sparcom.counting.ops import act_mul_count

def threads():
    return set(os.listdir("/proc/self/task"))

numbers, gate = torch.zeros(1_000_000), torch.ones(512, 4096)

def torch_loop():
    numbers.add_(1)

def our_loop():
    counts, rows = torch.zeros(8, 4096, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    bins = (torch.arange(512) // 64).to(torch.int32)
    act_mul_count(gate, gate, bins, counts, rows)
    assert rows.tolist() == [64] * 8

def ran(call):
    '''The threads whose user time grows while a call is repeated.'''
    def spent():
        stats = {t: open(f"/proc/self/task/{t}/stat").read() for t in threads()}
        return {t: int(stat.rpartition(")")[2].split()[11]) for t, stat in stats.items()}
    before = spent()
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        call()
    return {t for t, ticks in spent().items() if ticks - before.get(t, 0) > 3}
"""
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="no /proc/self/task: threads cannot be listed"
)


def run(code: str) -> None:
    """In its own process, since torch's pool starts once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_loops_run_on_torchs_pool() -> None:
    run("""
torch_loop()
before = threads()
pool = ran(torch_loop)
assert len(pool) == 2, pool
assert ran(our_loop) == pool
assert threads() == before
""")


def test_one_thread_stays_alone() -> None:
    run("""
torch.set_num_threads(1)
before = threads()
our_loop()
assert threads() == before
assert ran(our_loop) <= {str(os.getpid())}
assert native.build_info()["threads"] == 1
""")


def test_the_number_of_threads_is_torchs() -> None:
    before = torch.get_num_threads()
    try:
        for n in (1, 3, 2):
            torch.set_num_threads(n)
            assert native.build_info()["threads"] == n
    finally:
        torch.set_num_threads(before)
