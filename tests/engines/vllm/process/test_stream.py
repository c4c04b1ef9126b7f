"""The stream without vLLM: slots, results as they come, abort, several callers, failure."""

import threading
import time

import numpy as np
import pytest

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.process.stream import Stream
from sparcom.errors import SparcomError


class FakeClient:
    """Reads one token of every request per step; remembers what it was asked."""

    def __init__(self, fail_on: str = "", deaf: bool = False) -> None:
        self.left: dict[str, tuple[Prompt, int]] = {}
        self.slots: dict[str, int] = {}
        self.most = 0
        self.order: list[str] = []
        self.aborted: list[str] = []
        self.fail_on, self.deaf = fail_on, deaf
        self.gate = threading.Event()
        self.gate.set()

    def add(self, key, prompt, slot, scored=False, written=False):
        assert slot not in self.slots.values(), "a slot was given out twice"
        self.left[key] = (prompt, len(prompt.token_ids))
        self.slots[key] = slot
        self.order.append(prompt.id)
        self.most = max(self.most, len(self.left))

    def step(self):
        self.gate.wait(10)
        time.sleep(1e-4)  # as a real engine, whose steps leave the processor to others
        if any(p.id == self.fail_on for p, _ in self.left.values()):
            raise RuntimeError("the worker fell over")
        self.left = {key: (p, n - 1) for key, (p, n) in self.left.items()}
        done = [key for key, (_, n) in self.left.items() if n == 0]
        return [(key, self.left.pop(key)[0].n_counted) for key in done]

    def take(self, ids, slots, tokens):
        if self.deaf:
            raise RuntimeError("no answer")
        for slot in slots:
            key = next(k for k, s in self.slots.items() if s == slot)
            del self.slots[key]
        none = np.zeros((len(ids), 0), np.int32)
        return (Counted(tuple(ids), np.asarray(tokens, np.int64), none, none),)

    def losses(self, keys, slots):
        if self.deaf:
            raise RuntimeError("no answer")
        for key in keys:
            del self.slots[key]
        return tuple(float(key) for key in keys)

    def answers(self, keys, slots):
        self.losses(keys, slots)
        return tuple((int(key),) for key in keys)

    def abort(self, keys, slots):
        for key in keys:
            self.aborted.append(self.left.pop(key)[0].id)
            del self.slots[key]


def prompts(*lengths: int, tag: str = "p") -> list[Prompt]:
    return [Prompt(f"{tag}{i}", (1,) * n, ((0, n),)) for i, n in enumerate(lengths)]


def make_stream(client, slots=2, **options) -> Stream:
    return Stream(client, slots, lambda error, ids: PromptError(ids, str(error)), **options)


def run(stream: Stream, what: list[Prompt]) -> dict[str, int]:
    results = stream.results(stream.submit(what))
    parts = [finished.parts[0] for finished in results]
    return {name: int(n) for p in parts for name, n in zip(p.ids, p.tokens, strict=True)}


def test_every_prompt_comes_back_once_and_slots_bound_what_is_under_way():
    client = FakeClient()
    stream = make_stream(client, slots=3)
    lengths = [1, 7, 2, 2, 9, 1, 1, 4, 3, 5]
    assert run(stream, prompts(*lengths)) == {f"p{i}": n for i, n in enumerate(lengths)}
    assert client.most == 3
    assert not client.slots
    stream.close()


def test_a_short_instruction_leaves_before_a_long_one_is_done():
    stream = make_stream(FakeClient())
    results = stream.results(stream.submit(prompts(50, 1)))
    assert next(results).ids == ("p1",)
    stream.close()


def test_callers_share_the_engine_and_get_their_own_results():
    client = FakeClient()
    client.gate.clear()
    stream = make_stream(client, slots=4)
    found: dict[str, dict[str, int]] = {}

    def call(tag: str) -> None:
        found[tag] = run(stream, prompts(3, 1, 2, tag=tag))

    threads = [threading.Thread(target=call, args=(tag,)) for tag in "ab"]
    for thread in threads:
        thread.start()
    client.gate.set()
    for thread in threads:
        thread.join(10)
    assert found == {tag: {f"{tag}0": 3, f"{tag}1": 1, f"{tag}2": 2} for tag in "ab"}
    assert client.most == 4
    stream.close()


def test_leaving_early_aborts_what_is_under_way_and_frees_its_slots():
    client = FakeClient()
    stream = make_stream(client)
    results = stream.results(stream.submit(prompts(1, 10**6)))
    assert next(results).ids == ("p0",)
    results.close()
    assert run(stream, prompts(2, 2, 2, tag="q")) == {"q0": 2, "q1": 2, "q2": 2}
    assert client.aborted == ["p1"]
    stream.close()


def test_a_failed_step_names_the_instructions_under_way_to_every_caller():
    stream = make_stream(FakeClient(fail_on="p1"))
    with pytest.raises(PromptError, match="the worker fell over") as caught:
        run(stream, prompts(5, 5, 5))
    assert set(caught.value.ids) == {"p0", "p1"}
    with pytest.raises(PromptError, match="fell over"):
        stream.submit(prompts(1))
    stream.close()


@pytest.mark.parametrize("scored", [False, True])
def test_counts_that_cannot_be_taken_concern_the_finished_too(scored):
    stream = make_stream(FakeClient(deaf=True))
    with pytest.raises(PromptError, match="no answer") as caught:
        list(stream.results(stream.submit(prompts(1, 9), scored=scored)))
    assert set(caught.value.ids) == {"p0", "p1"}
    stream.close()


def test_an_engine_that_cannot_be_ended_leaves_nobody_waiting():
    def fault(error, ids):
        raise OSError("socket closed\nand more lines")

    stream = Stream(FakeClient(fail_on="p1"), 2, fault)
    told = r"^RuntimeError: the worker fell over; and then .* ended: OSError: socket closed$"
    with pytest.raises(SparcomError, match=told):
        run(stream, prompts(5, 5, 5))
    with pytest.raises(SparcomError, match=told):
        stream.submit(prompts(1))
    stream.close()


def test_closing_ends_the_jobs_under_way():
    stream = make_stream(FakeClient())
    results = stream.results(stream.submit(prompts(10**6)))
    stream.close()
    with pytest.raises(SparcomError, match="closed"):
        next(results)
    with pytest.raises(SparcomError, match="closed"):
        stream.submit(prompts(1))


def test_ranks_in_lockstep_admit_in_one_order():
    clients = [FakeClient(), FakeClient()]
    meeting, said = threading.Barrier(2), [0]

    def agree_of(rank: int):
        def agree(seen: int) -> int:
            if rank == 0:
                said[0] = seen
            meeting.wait(10)
            number = said[0]
            meeting.wait(10)
            return number

        return agree

    streams = [make_stream(c, slots=2, agree=agree_of(r)) for r, c in enumerate(clients)]
    batches = [prompts(3, 1, tag="a"), prompts(1, 2, tag="b"), prompts(2, tag="c")]
    # The second rank hears of the batches later than the first.
    first = [streams[0].submit(batch) for batch in batches]
    second = [streams[1].submit(batch) for batch in batches]
    for jobs, stream in ((first, streams[0]), (second, streams[1])):
        for job, batch in zip(jobs, batches, strict=True):
            assert sum(len(f.ids) for f in stream.results(job)) == len(batch)
    assert clients[0].order == clients[1].order
    for stream in streams:
        stream.close()


def test_scored_instructions_give_losses_and_free_their_slots():
    client = FakeClient()
    stream = make_stream(client, slots=2)
    scored = stream.results(stream.submit(prompts(3, 1, 2), scored=True))
    losses = {name: loss for f in scored for name, loss in zip(f.ids, f.losses, strict=True)}
    assert losses == {"p0": 1.0, "p1": 2.0, "p2": 3.0}  # the fake's keys, in order of admission
    assert not client.slots
    assert run(stream, prompts(2)) == {"p0": 2}
    stream.close()


def test_written_instructions_give_answers_and_free_their_slots():
    client = FakeClient()
    stream = make_stream(client, slots=2)
    written = stream.results(stream.submit(prompts(3, 1, 2), written=True))
    answers = {name: ids for f in written for name, ids in zip(f.ids, f.answers, strict=True)}
    assert answers == {"p0": (1,), "p1": (2,), "p2": (3,)}
    assert not client.slots
    stream.close()


def test_a_call_waits_for_the_instructions_under_way():
    client = FakeClient()
    stream = make_stream(client, slots=1)
    client.gate.clear()
    job, made = stream.submit(prompts(2, 2)), []
    caller = threading.Thread(target=lambda: made.append(stream.call(lambda: len(client.slots))))
    caller.start()
    time.sleep(0.05)
    assert not made
    client.gate.set()
    caller.join(10)
    assert made == [0]
    assert sum(len(finished.ids) for finished in stream.results(job)) == 2
    stream.close()


def test_a_call_that_fails_ends_the_stream():
    stream = make_stream(FakeClient())
    with pytest.raises(PromptError, match="division by zero"):
        stream.call(lambda: 1 / 0)
    with pytest.raises(PromptError, match="division by zero"):
        stream.submit(prompts(1))
    with pytest.raises(PromptError, match="division by zero"):
        stream.call(lambda: 1)
    stream.close()
