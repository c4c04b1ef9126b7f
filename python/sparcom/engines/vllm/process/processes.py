"""The processes of one vLLM engine: which they are, that calls of them end, and that they do."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children, connection, resource_tracker
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any

import psutil

PATIENCE = 10.0  # seconds


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    answer: Future = field(default_factory=Future)


class EngineProcesses:
    """What one engine has started, and calls of it that raise if it dies.

    patience: seconds that processes have to end by themselves.

    >>> processes = EngineProcesses()
    >>> with processes.starting():
    ...     llm = start_engine(...)
    >>> processes.call(llm.step)
    >>> processes.end(llm.engine_core.shutdown)
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._all: list[psutil.Process] = []
        self._cores: list[BaseProcess] = []
        self._calls: SimpleQueue[_Call | None] | None = None
        self._death: Future = Future()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """What this process starts within the block is the engine's, also if the block raises.

        One engine starts at a time (`launch.environ`). Nothing is the engine's that other children
        of this process (Ray's) start meanwhile.
        """
        resource_tracker.ensure_running()  # else vLLM starts it; it serves this whole process
        here = psutil.Process()
        before, others = set(here.children()), set(active_children())
        try:
            yield
        finally:
            for root in set(here.children()) - before:
                with suppress(psutil.NoSuchProcess):
                    self._all += [*root.children(recursive=True), root]
            self._cores = [child for child in active_children() if child not in others]
            if self._cores:
                self._calls = SimpleQueue()
                _run_thread(_make_calls, self._calls)
                _run_thread(_await_death, self._cores, self._death)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """function(*args), or ChildProcessError if the engine dies meanwhile.

        vLLM's synchronous client waits for ever for an engine process that was killed, by the
        system for its memory for one: its monitor closes the sockets and wakes neither those who
        wait for outputs nor those who wait for a call of the workers (seen in vLLM 0.32.0). So a
        thread of our own waits in vLLM, and stays there if the process is gone.
        """
        if self._calls is None:  # the engine runs in this process
            return function(*args)
        call = _Call(partial(function, *args))
        self._calls.put(call)
        wait((call.answer, self._death), return_when=FIRST_COMPLETED)
        if not call.answer.done():
            raise ChildProcessError("vLLM's engine process ended; was it killed, out of memory?")
        return call.answer.result()

    def end(self, shutdown: Callable[[], None] | None = None) -> None:
        """See the processes end; those that do not are killed.

        shutdown: tells them to; None: they are killed at once. What it raises is raised afterwards.
        """
        if self._calls is not None:
            self._calls.put(None)
        try:
            if shutdown is not None:
                shutdown()
        finally:
            for process in self._wait(self._patience if shutdown is not None else 0):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._wait(self._patience)

    def _wait(self, patience: float) -> list[psutil.Process]:
        """The processes that still run after so many seconds."""
        for core in self._cores:  # first: multiprocessing does not see what psutil waited for
            core.join(patience)
        return psutil.wait_procs(self._all, timeout=patience)[1]


def _run_thread(target: Callable[..., None], *args: Any) -> None:
    name = f"sparcom-vllm{target.__name__}"
    threading.Thread(target=target, args=args, name=name, daemon=True).start()


def _make_calls(calls: "SimpleQueue[_Call | None]") -> None:
    while call := calls.get():
        try:
            call.answer.set_result(call.function())
        except BaseException as error:  # the caller raises it
            call.answer.set_exception(error)


def _await_death(cores: Sequence[BaseProcess], death: Future) -> None:
    """Complete `death` once one of the processes has ended."""
    connection.wait([core.sentinel for core in cores])
    death.set_result(None)
