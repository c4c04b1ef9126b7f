"""One prompt through transformers' own, unmodified modules: its states, its gates, all finite."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.transformers.proof.compare import Gates
from sparcom.engines.transformers.proof.trace import OUTPUT, Points, Trace, tracing
from sparcom.errors import InputError

LAST = "the last hidden state"


@dataclass(frozen=True)
class Reference:
    """One prompt. gates: of each site; last: [rows, hidden], what the model as a whole puts out."""

    prompt: Prompt
    trace: Trace
    gates: tuple[Gates, ...]
    last: torch.Tensor

    def states(self) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
        """All that was traced, in the order of the pass."""
        yield from self.trace.states.items()
        yield (LAST, OUTPUT), self.last


@torch.inference_mode()
def read_reference(
    body: nn.Module, points: Points, prompt: Prompt, device: torch.device
) -> Reference:
    """One prompt through a model, with the attention that it is set to.

    body: the model without its head.
    Raises InputError if its hidden states are not finite, or if activations are not called as those
    of its FFNs are.
    """
    ids = torch.tensor([prompt.token_ids], device=device)
    with tracing(points, len(prompt.token_ids), gates=True) as trace:
        last = body(input_ids=ids, use_cache=False).last_hidden_state[0]
    _check_finite(trace, last)
    gates = tuple(_gates_of(points, at, trace) for at in range(len(points.ffns)))
    return Reference(prompt, trace, gates, last)


def _check_finite(trace: Trace, last: torch.Tensor) -> None:
    if torch.isfinite(last).all():
        return
    names = [n for (n, _), state in trace.states.items() if not torch.isfinite(state).all()]
    dtype = str(last.dtype).removeprefix("torch.")
    raise InputError(
        f"its hidden states are not finite in {dtype}, first at {(names or [LAST])[0]}; "
        + advice(last.dtype)
    )


def advice(dtype: torch.dtype) -> str:
    """What to do if hidden states are not finite."""
    if dtype == torch.float16:
        return "use bfloat16 or float32"
    return "its weights may be damaged"


def _gates_of(points: Points, at: int, trace: Trace) -> Gates:
    """The gates of a site; each expert that has rows calls its activation once."""
    ffn, calls = points.ffns[at], trace.gates.get(at, [])
    expected = [(0, trace.rows)]
    if ffn.site.kind == "routed":
        ids, rows = trace.routed[at][0].flatten().unique(return_counts=True)
        expected = list(zip(ids.tolist(), rows.tolist(), strict=True))
    wanted = [[rows, ffn.site.width] for _, rows in expected]
    got = [list(gate.shape) for gate in calls]
    if not got and wanted:
        raise InputError(
            f"{ffn.name} ({type(ffn.module).__name__}) does not run on a prompt of text alone, so "
            "that its neurons cannot be counted"
        )
    if wanted != got:
        raise InputError(
            f"{ffn.name} ({type(ffn.module).__name__}) looks like a {ffn.form} FFN, but its "
            f"activation takes in {got[:3]}, expected {wanted[:3]}"
        )
    return Gates(
        ffn.site,
        tuple((expert, gate) for (expert, _), gate in zip(expected, calls, strict=True)),
    )
