"""An engine's processes: all end, those of others stay, and calls do not wait for the dead."""

import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pipeline_helpers import wait_for

from sparcom.engines.vllm.process.processes import EngineProcesses


def stand_in() -> multiprocessing.Process:
    """What vLLM starts: a process of multiprocessing's that runs until it is ended."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    return process


@pytest.fixture
def engine():
    """(its processes, the one that it has started)"""
    processes = EngineProcesses()
    with processes.starting():
        process = stand_in()
    yield processes, process
    processes.end()


def test_a_call_gives_its_result_or_raises_its_error(engine):
    processes, _ = engine
    assert processes.call(divmod, 17, 5) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        processes.call(lambda: 1 / 0)
    assert processes.call(len, "ab") == 2


def test_all_calls_are_made_by_one_thread(engine):
    processes, _ = engine
    made = {processes.call(threading.get_ident) for _ in range(5)}
    assert len(made) == 1
    assert threading.get_ident() not in made


def test_a_call_that_waits_for_a_killed_process_fails_and_so_do_later_ones(engine):
    """As vLLM's client does, which hears of the death and wakes nobody."""
    processes, process = engine
    never, began, told = threading.Event(), threading.Event(), []

    def wait_for_ever() -> None:
        began.set()
        never.wait()

    def call() -> None:
        try:
            processes.call(wait_for_ever)
        except ChildProcessError as error:
            told.append(str(error))

    caller = threading.Thread(target=call)
    caller.start()
    began.wait(10)
    caller.join(0.2)
    assert caller.is_alive(), "it did not wait while the process ran"
    process.kill()
    caller.join(20)
    assert told == ["vLLM's engine process ended; was it killed, out of memory?"]
    with pytest.raises(ChildProcessError):
        processes.call(len, "ab")
    never.set()


def test_an_engine_in_this_process_is_called_directly():
    processes = EngineProcesses()
    with processes.starting():
        pass
    assert processes.call(threading.get_ident) == threading.get_ident()
    processes.end()


def test_ending_kills_what_does_not_end_by_itself_and_nothing_else():
    other = subprocess.Popen(["sleep", "60"])
    processes = EngineProcesses(patience=1)
    with processes.starting():
        engine, stubborn = stand_in(), subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60"])
    began = time.monotonic()
    processes.end(shutdown=engine.terminate)
    assert 1 <= time.monotonic() - began < 10
    assert not engine.is_alive()
    assert stubborn.poll() is not None
    assert other.poll() is None
    other.kill()
    other.wait()


def test_processes_are_ended_even_if_vllm_fails_to_shut_down():
    processes = EngineProcesses(patience=1)
    with processes.starting():
        process = stand_in()

    def shutdown() -> None:
        raise OSError("socket closed")

    with pytest.raises(OSError, match="socket closed"):
        processes.end(shutdown)
    assert not process.is_alive()
    processes.end()  # again


def test_processes_of_a_start_that_raises_are_the_engines():
    processes, started = EngineProcesses(), []

    def start() -> None:
        with processes.starting():
            started.append(stand_in())
            raise MemoryError

    with pytest.raises(MemoryError):
        start()
    processes.end()
    assert not started[0].is_alive()


TRACKED = """
from multiprocessing.shared_memory import SharedMemory
from sparcom.engines.vllm.process.processes import EngineProcesses

processes = EngineProcesses()
with processes.starting():
    memory = SharedMemory(create=True, size=4096)  # the first in this process: starts the tracker
processes.end()
print(memory.name)
memory.close()  # and does not unlink it: the tracker does, when this process has ended
"""


def test_the_resource_tracker_of_this_process_is_no_process_of_the_engine():
    done = subprocess.run([sys.executable, "-c", TRACKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: not Path("/dev/shm", done.stdout.strip()).exists(), 20)


def test_no_thread_is_left_of_an_engine_that_ended():
    before = set(threading.enumerate())
    processes = EngineProcesses()
    with processes.starting():
        stand_in()
    assert processes.call(len, "ab") == 2
    assert len(set(threading.enumerate()) - before) == 2
    processes.end()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert not set(threading.enumerate()) - before
