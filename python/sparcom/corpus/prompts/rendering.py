"""Chat templates rendered by a process of their own, within bounds of time and memory.

One process serves all templates of this interpreter. It starts with the first one, takes about a
second for it, and then renders a text in about 0.1 ms.
"""

import atexit
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from sparcom.corpus.prompts import render_worker
from sparcom.errors import InputError

_CHUNK = 64  # chats of one request
_CHUNK_CHARACTERS = 1 << 22  # of one request, unless one chat is longer

Chat = list[dict[str, str]]


class RenderError(InputError):
    """A chat template that cannot be rendered, or not within bounds."""


@dataclass(frozen=True)
class Renderer:
    """A tokenizer's chat template with all that it is given but the chat.

    template: its source. variables: special tokens by their names. date: what the template takes
    for today; None is the day on which it is rendered.
    """

    template: str
    variables: Mapping[str, Any]
    date: dt.date | None = None

    def render(self, chats: Sequence[Chat]) -> Iterator[tuple[str | None, str | None]]:
        """For each chat its text, or why the template refuses it; in order.

        Raises RenderError if the template takes too long, or ends the process.
        """
        day = None if self.date is None else self.date.isoformat()
        fixed = {"template": self.template, "variables": dict(self.variables), "date": day}
        for chunk in _chunks(chats):
            yield from _process.ask({**fixed, "chats": chunk})


def _chunks(chats: Sequence[Chat]) -> Iterator[list[Chat]]:
    chunk: list[Chat] = []
    size = 0
    for chat in chats:
        length = sum(len(message["content"]) for message in chat)
        if chunk and (len(chunk) == _CHUNK or size + length > _CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(chat)
        size += length
    if chunk:
        yield chunk


def start() -> None:
    """Start the process, if none runs, without waiting for it."""
    _process.start()


class _Running(NamedTuple):
    """A process with its ends of the pipes."""

    process: subprocess.Popen[str]
    requests: IO[str]
    answers: IO[str]


class _Process:
    """The process, started when it is needed; one request at a time."""

    def __init__(self) -> None:
        self._running: _Running | None = None
        self._owner = 0
        self._ready = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, if none runs; it takes about a second to be ready."""
        with self._lock:
            self._started()

    def ask(self, request: Mapping[str, Any]) -> list[tuple[str | None, str | None]]:
        """The answer to a request; raises RenderError if the process ends over it."""
        with self._lock:
            running = self._started()
            if not self._ready and self._exchange(running, "") != "ready":
                how = _exit(self._end(running))
                raise RenderError(f"the process that renders chat templates {how}")
            self._ready = True
            answer = self._exchange(running, json.dumps(request, default=str) + "\n")
            if answer is None:
                raise RenderError(_cause(self._end(running)))
            return [(text, reason) for text, reason in answer]

    def close(self) -> None:
        """End the process, if this interpreter started it."""
        if self._running is not None and self._owner == os.getpid():
            self._end(self._running)

    def _started(self) -> _Running:
        running = self._running
        if running is not None and self._owner == os.getpid() and running.process.poll() is None:
            return running  # one of another process id was made before a fork; it is not ours
        self._ready, self._owner = False, os.getpid()
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(render_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which closes the pipes
        )
        pipes = cast(tuple[IO[str], IO[str]], (process.stdin, process.stdout))
        self._running = _Running(process, *pipes)
        return self._running

    @staticmethod
    def _exchange(running: _Running, line: str) -> Any:
        """The next thing that the process writes, after a line for it; None if it has ended."""
        try:
            running.requests.write(line)
            running.requests.flush()
        except BrokenPipeError:
            return None
        answer = running.answers.readline()
        return json.loads(answer) if answer.endswith("\n") else None

    def _end(self, running: _Running) -> int:
        """Close the pipes and wait; returns the exit code."""
        self._running = None
        running.answers.close()
        with suppress(BrokenPipeError):  # it has ended
            running.requests.close()
        try:
            return running.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            running.process.kill()
            return running.process.wait()


def _cause(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"rendering takes more than {render_worker.SECONDS:.0f} s; the template may not end"
    return f"the process that renders it {_exit(code)}"


def _exit(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


_process = _Process()
atexit.register(_process.close)
