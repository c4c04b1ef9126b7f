"""How a pass is counted in each of vLLM's two model runners.

vLLM has no public hook that sees the rows of a pass, so these stand in the way of methods of its
runner, of private names: what each needs is listed, and a version without one of them is refused.
vLLM chooses the runner. Both know the batch in the order in which its rows lie: the requests, the
rows of each, and how many tokens of it were computed before. All of that is in the host's memory,
so that no pass waits for the device.
"""

from collections.abc import Mapping
from typing import Any

from sparcom.counting import nvtx
from sparcom.engines.vllm.process.launch import installed_version
from sparcom.engines.vllm.worker.counting_op import StepCounter
from sparcom.engines.vllm.worker.finite import FiniteCheck
from sparcom.engines.vllm.worker.rows import RowMap
from sparcom.errors import InputError


class CountedForward:
    """The first runner: `GPUModelRunner._model_forward`, which every real pass and no dummy one
    goes through.

    runner: the worker's model runner, whose method this replaces.
    counter, rows, finite: of the worker.
    """

    NEEDS = ("_model_forward", "input_batch", "query_start_loc", "requests",
             "discard_request_mask", "max_num_tokens")  # fmt: skip

    def __init__(
        self, runner: Any, counter: StepCounter, rows: RowMap, finite: FiniteCheck
    ) -> None:
        self._runner, self._counter, self._rows, self._finite = runner, counter, rows, finite
        self._forward = runner._model_forward
        self._steps = 0
        runner._model_forward = self

    def __call__(self, **inputs: Any) -> Any:
        runner = self._runner
        requests = runner.input_batch.req_ids
        bounds = runner.query_start_loc.np[: len(requests) + 1]
        self._rows.fill(
            self._counter.host.numpy(),
            requests,
            [runner.requests[r].sampling_params.extra_args or {} for r in requests],
            runner.input_batch.num_computed_tokens_cpu[: len(requests)].tolist(),
            (bounds[1:] - bounds[:-1]).tolist(),
        )
        self._counter.begin(self._rows.answers, inputs.get("input_ids"))
        self._steps += 1
        try:
            with nvtx.step(self._steps):
                output = self._forward(**inputs)
            self._finite.note(output, self._counter.bins)
            return output
        finally:
            self._counter.end()


class CountedBatches:
    """The second runner: `prepare_inputs`, which makes the batch of every real pass and of no dummy
    one, within `execute_model`, which runs both.

    A request's parameters are seen only when it is new: the runner keeps none of them. Arguments
    are those of `CountedForward`.
    """

    NEEDS = ("prepare_inputs", "execute_model", "execute_model_state", "max_num_tokens")

    def __init__(
        self, runner: Any, counter: StepCounter, rows: RowMap, finite: FiniteCheck
    ) -> None:
        self._runner, self._counter, self._rows, self._finite = runner, counter, rows, finite
        self._prepare, self._execute = runner.prepare_inputs, runner.execute_model
        self._notes: dict[str, Mapping[str, Any]] = {}
        self._steps = 0
        self._counted = False
        runner.prepare_inputs, runner.execute_model = self.prepare_inputs, self.execute_model

    def execute_model(self, scheduled: Any, *args: Any, **options: Any) -> Any:
        """A pass. scheduled: vLLM's `SchedulerOutput`."""
        for name in scheduled.finished_req_ids:
            self._notes.pop(name, None)
        for request in scheduled.scheduled_new_reqs:
            self._notes[request.req_id] = request.sampling_params.extra_args or {}
        self._steps += 1
        try:
            with nvtx.step(self._steps):
                output = self._execute(scheduled, *args, **options)
            if self._counted:
                hidden = self._runner.execute_model_state.hidden_states
                self._finite.note(hidden, self._counter.bins)
            return output
        finally:
            self._counted = False
            self._counter.end()

    def prepare_inputs(self, *args: Any, **options: Any) -> Any:
        """vLLM's `InputBatch` of a real pass, whose rows are counted."""
        batch = self._prepare(*args, **options)
        bounds = batch.query_start_loc_np[: batch.num_reqs + 1]
        self._rows.fill(
            self._counter.host.numpy(),
            batch.req_ids,
            [self._notes[name] for name in batch.req_ids],
            batch.num_computed_tokens_np[: batch.num_reqs].tolist(),
            (bounds[1:] - bounds[:-1]).tolist(),
        )
        self._counter.begin(self._rows.answers, batch.input_ids)
        self._counted = True
        return batch


def count_passes(
    runner: Any, second: bool, counter: StepCounter, rows: RowMap, finite: FiniteCheck
) -> None:
    """Count the passes of a worker's model runner from now on.

    second: it is the second of vLLM's runners. Raises InputError if a part of it is gone that
    counting needs.
    """
    kind = CountedBatches if second else CountedForward
    for name in kind.NEEDS:
        if not hasattr(runner, name):
            raise InputError(
                f"vllm {installed_version()}: {type(runner).__name__}.{name}, which counting hooks "
                "into, is gone; install the tested version"
            )
    kind(runner, counter, rows, finite)
