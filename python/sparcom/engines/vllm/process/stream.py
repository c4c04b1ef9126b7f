"""Instructions streaming through one vLLM engine: slots, admission, results.

A thread owns the engine. It admits instructions while slots are free, steps, and hands out what is
finished; callers put work in and take results out, several at a time, so that the engine never
drains between their batches. vLLM's own worker processes run on while this thread waits.

Ranks that an outside launcher started each run this loop on an engine of their own, in lockstep:
their schedules are equal because the order of admission is, and `agree` makes it so.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.vllm.process.client import EngineClient
from sparcom.engines.vllm.process.faults import one_line
from sparcom.errors import SparcomError


@dataclass(frozen=True)
class Finished:
    """Some finished instructions.

    parts: what each worker counted of them, () without counting. losses: of scored ones. answers:
    token ids of written ones.
    """

    ids: tuple[str, ...]
    parts: tuple[Counted, ...] = ()
    losses: tuple[float, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()


@dataclass(eq=False)
class Job:
    """The instructions of one caller.

    scored: their losses are wanted, not their counts. written: their answers are.
    results: Finished groups, or the exception that ended the job.
    left: prompts whose results the caller has not had. unread: those that the engine has not read.
    ended: the caller waits no more.
    """

    prompts: Sequence[Prompt]
    scored: bool = False
    written: bool = False
    results: SimpleQueue = field(default_factory=SimpleQueue)
    left: int = 0
    unread: int = 0
    ended: bool = False


@dataclass(frozen=True)
class _Running:
    job: Job
    prompt: Prompt
    slot: int


class Stream:
    """The thread that feeds an engine.

    slots: instructions under way at most.
    fault: called with what the engine raised and the ids under way; ends the engine, and returns
        the error that callers get.
    agree: number of jobs seen here -> number that all ranks admit; None if there is one engine. In
        lockstep nothing is aborted: a job that nobody waits for runs to its end.
    error: what ended the stream; None as long as it runs.
    """

    def __init__(
        self,
        client: EngineClient,
        slots: int,
        fault: Callable[[BaseException, Sequence[str]], SparcomError],
        agree: Callable[[int], int] | None = None,
    ) -> None:
        self._client, self._agree, self._fault = client, agree, fault
        self._free = deque(range(slots))
        self._running: dict[str, _Running] = {}
        self._open: list[Job] = []
        self._unseen: deque[Job] = deque()
        self._arrived = self._seen = 0  # jobs
        self._pending: deque[tuple[Job, Prompt]] = deque()
        self._cancelled: list[Job] = []
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._closing = False
        self.error: SparcomError | None = None
        self._keys = 0
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sparcom-vllm", daemon=True)
        self._thread.start()

    def submit(self, prompts: Sequence[Prompt], scored: bool = False, written: bool = False) -> Job:
        """Queue instructions; raises the error that ended the stream, if it has ended."""
        job = Job(prompts, scored, written, left=len(prompts), unread=len(prompts))
        with self._wake:
            self._require_open()
            self._open.append(job)
            self._unseen.append(job)
            self._arrived += 1
            self._wake.notify_all()
        return job

    def results(self, job: Job) -> Iterator[Finished]:
        """The results of a job as they come; leaving early aborts what is still under way."""
        try:
            while job.left:
                item = job.results.get()
                if isinstance(item, BaseException):
                    job.ended = True
                    raise item
                job.left -= len(item.ids)
                yield item
        finally:
            if job.left and not job.ended:
                self._cancel(job)

    def call(self, function: Callable[[], Any]) -> Any:
        """function(), by the thread that owns the engine, once no instruction is under way.

        Not in lockstep. If function raises, the stream ends.
        """
        result: Future = Future()
        with self._wake:
            self._require_open()
            self._calls.append((function, result))
            self._wake.notify_all()
        return result.result()

    def _require_open(self) -> None:
        if self.error is not None or self._closing:
            raise self.error or SparcomError("this engine is closed")

    def close(self) -> None:
        """End the thread; jobs under way end with an error."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _cancel(self, job: Job) -> None:
        with self._wake:
            job.ended = True
            if self._agree is None:
                self._cancelled.append(job)
                self._wake.notify_all()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._drop_cancelled()
                self._see_jobs()
                self._admit()
                if self._running:
                    self._deliver(self._client.step())
                else:
                    self._make_calls()
            self._fail(SparcomError("this engine was closed while it counted"))
        except BaseException as error:  # every caller is told; nothing is swallowed
            self._fail(error)

    def _wait(self) -> bool:
        """Wait until there is something to do; False if the stream closes."""
        with self._wake:
            while not (
                self._closing or self._running or self._pending or self._cancelled or self._unseen
                or self._calls
            ):  # fmt: skip
                self._wake.wait()
            return not self._closing

    def _see_jobs(self) -> None:
        with self._wake:
            ready = self._arrived
        agreed = ready if self._agree is None else self._agree(ready)
        with self._wake:
            while self._arrived < agreed and not self._closing:
                self._wake.wait()
            fresh = [self._unseen.popleft() for _ in range(min(agreed, self._arrived) - self._seen)]
            self._seen += len(fresh)
        for job in fresh:
            self._pending.extend((job, prompt) for prompt in job.prompts)
            self._account(job, 0)

    def _admit(self) -> None:
        while self._pending and self._free:
            job, prompt = self._pending.popleft()
            if job.ended and self._agree is None:
                continue
            self._keys += 1
            key, slot = f"{self._keys}", self._free.popleft()
            self._running[key] = _Running(job, prompt, slot)
            self._client.add(key, prompt, slot, job.scored, job.written)

    def _deliver(self, finished: list[tuple[str, int]]) -> None:
        """finished: (key, counted tokens) of the requests that ended in this step."""
        groups: dict[int, list[tuple[str, _Running, int]]] = {}
        for key, tokens in finished:
            one = self._running[key]
            groups.setdefault(id(one.job), []).append((key, one, tokens))
        for group in groups.values():
            ids = tuple(one.prompt.id for _, one, _ in group)
            slots = [one.slot for _, one, _ in group]
            job = group[0][1].job
            keys = [key for key, _, _ in group]
            if job.scored:
                result = Finished(ids, losses=self._client.losses(keys, slots))
            elif job.written:
                result = Finished(ids, answers=self._client.answers(keys, slots))
            else:
                result = Finished(ids, self._client.take(ids, slots, [n for _, _, n in group]))
            for key in keys:  # only now: what fails above concerns these too
                del self._running[key]
            self._free.extend(slots)
            self._account(job, len(group))
            job.results.put(result)

    def _account(self, job: Job, read: int) -> None:
        """So many instructions of a job are read; a job that is read whole is forgotten here."""
        job.unread -= read
        if not job.unread:
            with self._wake:
                self._open.remove(job)

    def _make_calls(self) -> None:
        while self._calls:
            function, result = self._calls[0]
            result.set_result(function())
            self._calls.popleft()

    def _drop_cancelled(self) -> None:
        with self._wake:
            jobs, self._cancelled = self._cancelled, []
            self._open = [job for job in self._open if not any(job is j for j in jobs)]
        keys = [key for key, one in self._running.items() if any(one.job is j for j in jobs)]
        if keys:
            slots = [self._running.pop(key).slot for key in keys]
            self._client.abort(keys, slots)
            self._free.extend(slots)

    def _fail(self, error: BaseException) -> None:
        """Tell every caller; CountError and the like pass as they are, others name the ids."""
        ids = [one.prompt.id for one in self._running.values()]
        try:
            told = self._fault(error, ids)
        except BaseException as broken:  # callers wait for an answer, whatever it is
            told = SparcomError(
                f"{one_line(error)}; and then the engine could not be ended: {one_line(broken)}"
            )
        with self._wake:
            self.error = told
            for job in self._open:
                if not job.ended:
                    job.results.put(told)
            for _, result in self._calls:
                result.set_exception(told)
            self._wake.notify_all()
