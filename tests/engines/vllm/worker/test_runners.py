"""The rows of the second runner's batches, made of vLLM's own classes, each position once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom.errors import CountError, InputError

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm import SamplingParams
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.model_runner import sort_batch_req_ids

from sparcom.counting.recorder import Recorder
from sparcom.engines.vllm.worker.counting_op import StepCounter
from sparcom.engines.vllm.worker.finite import FiniteCheck
from sparcom.engines.vllm.worker.rows import RowMap, request_note
from sparcom.engines.vllm.worker.runners import count_passes

ROOM = 64  # rows of a pass
SLOTS = 4


class Runner:
    """The frame of vLLM's second runner: batches of its classes in its order, and a pass that only
    looks at which rows are counted."""

    max_num_tokens = ROOM

    def __init__(self) -> None:
        self.buffers = InputBuffers(SLOTS, ROOM, torch.device("cpu"))
        self.computed: dict[str, int] = {}
        self.execute_model_state = None
        self.seen: list[list[int]] = []  # slots of the rows, pass by pass
        self.batches: list[InputBatch] = []

    def prepare_inputs(self, scheduled: SchedulerOutput) -> InputBatch:
        lengths = scheduled.num_scheduled_tokens
        names = sort_batch_req_ids(lengths, {}, 1)
        total = sum(lengths.values())
        batch = InputBatch.make_dummy(len(names), total, self.buffers)
        bounds = np.cumsum([0, *(lengths[name] for name in names)]).astype(np.int32)
        computed = [self.computed[name] for name in names]
        return replace(
            batch,
            req_ids=names,
            num_tokens_after_padding=ROOM,
            query_start_loc_np=np.pad(bounds, (0, SLOTS - len(names)), constant_values=total),
            num_computed_tokens_np=np.array(computed, np.int32),
        )

    def execute_model(self, scheduled: SchedulerOutput, dummy_run: bool = False) -> None:
        if not dummy_run:
            if scheduled.total_num_scheduled_tokens == 0:
                return
            self.batches.append(self.prepare_inputs(scheduled))
        hidden = torch.zeros(ROOM, 2)
        self.execute_model_state = type("State", (), {"hidden_states": hidden})
        self.seen.append(self.counter.host.tolist())


@pytest.fixture
def runner():
    return counted_runner()


def counted_runner() -> Runner:
    runner = Runner()
    recorder = Recorder([], SLOTS, threshold=0.0, signal="gate", verify=False, device="cpu")
    runner.counter = StepCounter(recorder, ROOM)
    runner.rows, runner.finite = RowMap(), FiniteCheck(SLOTS, "cpu")
    count_passes(runner, True, runner.counter, runner.rows, runner.finite)
    return runner


def step(runner: Runner, parts: dict[str, tuple[int, int]], new=(), finished=()) -> None:
    """A pass. parts: name -> first position, rows. new: (name, note) of requests that the runner
    does not know, or forgot when they were preempted."""
    runner.computed = {name: first for name, (first, _) in parts.items()}
    scheduled = SchedulerOutput.make_empty()
    scheduled.num_scheduled_tokens = {name: n for name, (_, n) in parts.items()}
    scheduled.total_num_scheduled_tokens = sum(n for _, n in parts.values())
    scheduled.finished_req_ids = set(finished)
    scheduled.scheduled_new_reqs = [
        NewRequestData(
            req_id=name, prompt_token_ids=[1], mm_features=[], pooling_params=None, block_ids=(),
            sampling_params=SamplingParams(extra_args=note), num_computed_tokens=parts[name][0],
            lora_request=None,
        )
        for name, note in new
    ]  # fmt: skip
    runner.execute_model(scheduled)


def test_rows_lie_in_the_order_of_the_batch(runner):
    """vLLM puts requests with few rows first, whatever the order in which they came."""
    long, short = request_note(3, [(0, 9)], 9, False), request_note(1, [(1, 2)], 2, True)
    step(runner, {"long": (0, 5), "short": (0, 2)}, [("long", long), ("short", short)])
    assert runner.batches[0].req_ids == ["short", "long"]
    assert runner.seen[0] == [-1, 1, 3, 3, 3, 3, 3, *[-1] * (ROOM - 7)]
    step(runner, {"long": (5, 4), "short": (2, 1)})
    assert runner.seen[1][:6] == [1, 3, 3, 3, 3, -1]


def test_dummy_and_empty_passes_count_nothing(runner):
    step(runner, {"a": (0, 4)}, [("a", request_note(0, [(0, 4)], 4, False))])
    runner.execute_model(SchedulerOutput.make_empty(), dummy_run=True)
    assert runner.seen[1] == [-1] * ROOM
    step(runner, {}, finished=["a"])
    assert len(runner.seen) == 2
    with pytest.raises(KeyError):
        step(runner, {"a": (4, 1)})


def test_rows_that_are_not_finite_are_found(runner):
    execute = runner.execute_model
    note = request_note(2, [(1, 3)], 3, False)

    class Overflowed(Runner):
        def execute_model(self, *args, **options):
            super().execute_model(*args, **options)
            self.execute_model_state.hidden_states[1, 0] = torch.inf

    assert execute is not None
    other = Overflowed()
    other.counter, other.rows, other.finite = runner.counter, RowMap(), runner.finite
    count_passes(other, True, other.counter, other.rows, other.finite)
    step(other, {"a": (0, 3)}, [("a", note)])
    assert "not finite in float32 on 1 counted tokens" in other.finite.check(["a"], [2])


def test_a_row_that_reads_the_end_of_an_answer_is_not_counted(runner):
    """Where passes are planned ahead; the end of a text that is read is a token like others."""
    recorder = runner.counter.recorder
    ahead, plain = StepCounter(recorder, 8, ends=[7, 9]), StepCounter(recorder, 8)
    tokens = torch.tensor([7, 3, 9, 4, 7, 9, 9, 9])
    for counter, expected in ((ahead, [0, 0, -1, 1, -1, 2]), (plain, [0, 0, 0, 1, 1, 2])):
        counter.host[:6] = torch.tensor([0, 0, 0, 1, 1, 2])
        counter.begin([(2, 3), (3, 5)], tokens)
        assert counter.bins.tolist() == [*expected, -1, -1]
        counter.end()
    with pytest.raises(CountError, match="does not show its tokens"):
        ahead.begin([(0, 1)], None)


def test_a_runner_without_a_part_is_refused():
    runner = Runner()
    del runner.execute_model_state
    with pytest.raises(InputError, match=r"Runner.execute_model_state, which counting hooks into"):
        count_passes(runner, True, None, None, None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_batching_cutting_and_preempting_counts_each_position_once(data):
    runner = counted_runner()
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=SLOTS))
    counted = [(a := data.draw(st.integers(0, n - 1)), data.draw(st.integers(a, n)))
               for n in lengths]  # fmt: skip
    notes = {f"r{i}": request_note(i, [c], n, False)
             for i, (n, c) in enumerate(zip(lengths, counted, strict=True))}  # fmt: skip
    at, known, total = dict.fromkeys(notes, 0), set(), np.zeros(SLOTS, int)
    length = dict(zip(notes, lengths, strict=True))
    for turn in range(200):
        waiting = [name for name in notes if at[name] < length[name]]
        if not waiting:
            break
        chosen = data.draw(st.permutations(waiting))[: data.draw(st.integers(1, len(waiting)))]
        parts = {name: (at[name], data.draw(st.integers(1, length[name] - at[name])))
                 for name in chosen}  # fmt: skip
        if sum(n for _, n in parts.values()) > ROOM:
            continue
        step(runner, parts, [(name, notes[name]) for name in parts if name not in known])
        known |= parts.keys()
        slots = np.array(runner.seen[-1])
        total += np.bincount(slots[slots >= 0], minlength=SLOTS)
        for name, (first, n) in parts.items():
            at[name] = first + n
            if turn < 30 and at[name] < length[name] and data.draw(st.booleans()):
                at[name] = 0  # preempted: the runner forgets it
                known.discard(name)
    assert not waiting
    assert total.tolist()[: len(counted)] == [stop - start for start, stop in counted]
