"""What vLLM's graphs call at a site, as opaque operators that count into this process's recorder.

    count_site            out = f(gate) * up of a dense or shared site
    count_site_quant      the same in fp8, 128 columns to a scale: (q, scales)
    count_experts         out = what the routed experts of a layer make of their input
    count_token_order     out = f(gate) * up of a routed site, row t * top_k + k

A compiled graph keeps the call, and nothing else: the site is a constant, and the buffers are found
through the recorder, where they stay at one address, which CUDA graphs need. One process holds one
worker, hence one recorder. Their kernel is `torch.ops.sparcom.act_mul_count`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparcom.counting.quant_ops import GROUP, new_scales
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.grouped import GroupedExperts
from sparcom.errors import CountError

_library = torch.library.Library("sparcom", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
_library.define("count_site(Tensor x, int site, bool paired) -> Tensor", tags=_TAGS)
_library.define("count_site_quant(Tensor x, int site) -> (Tensor, Tensor)", tags=_TAGS)
_library.define(
    "count_experts(Tensor(a!) out, Tensor hidden, Tensor weights, Tensor ids, int site) -> ()",
    tags=_TAGS,
)
_library.define(
    "count_token_order(Tensor(a!) out, Tensor x, Tensor ids, Tensor? place, int site) -> ()",
    tags=_TAGS,
)


class StepCounter:
    """The recorder of a worker, and the bins of its running step in one buffer that never moves.

    max_rows: rows of the largest step.
    ends: tokens that end an answer, if vLLM plans a pass before it knows what the one before wrote.
    experts: site -> the routed experts that run here.
    turns: sites whose gate and up take turns in a row, instead of lying side by side.
    """

    def __init__(self, recorder: Recorder, max_rows: int, ends: Sequence[int] = ()) -> None:
        self.recorder = recorder
        self._ends = torch.tensor(list(ends), dtype=torch.int64, device=recorder.device)
        self.experts: dict[int, GroupedExperts] = {}
        self.turns: set[int] = set()
        self.host = torch.full((max_rows,), -1, dtype=torch.int32)
        on_host = recorder.device.type == "cpu"
        self._bins = self.host if on_host else self.host.to(recorder.device)
        self._rows = 0

    @property
    def bins(self) -> Tensor:
        """[max_rows] int32 on the device: the slot of each row of the running step, or -1."""
        return self._bins

    def begin(self, answers: Sequence[tuple[int, int]] = (), tokens: Tensor | None = None) -> None:
        """The bins in `host` are those of the next pass.

        answers: rows that read a generated token; tokens: [rows or more] what each row reads, on
            the device. Where passes are planned ahead, a row that reads one of `ends` is not
            counted: the answer had ended with it.
        """
        if self._bins is not self.host:
            self._bins.copy_(self.host)
        seen = self.host
        if answers and len(self._ends):
            if tokens is None:
                raise CountError("passes are planned ahead, and this one does not show its tokens")
            for first, stop in answers:
                ended = torch.isin(tokens[first:stop], self._ends)
                self._bins[first:stop].masked_fill_(ended, -1)
            seen = self._bins
        if self.recorder.trace is not None:
            self.recorder.trace.step(seen.cpu())

    def end(self) -> None:
        """Passes that follow without `begin` (dummy and warm-up ones) count nothing."""
        self.host.fill_(-1)
        self.begin()

    def count(self, site: int, x: Tensor, paired: bool) -> Tensor:
        """f(gate) * up of one site; x: [rows, 2 width], gate and up, or [rows, width]."""
        self._expect(len(x))
        return self.recorder.count(site, *(self._split(site, x) if paired else (x, None)))

    def count_quantised(self, site: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(gate) * up of one site in fp8, and its scales; x: [rows, 2 width]."""
        self._expect(len(x))
        return self.recorder.count_quantised(site, *self._split(site, x))

    def run_experts(
        self, site: int, hidden: Tensor, weights: Tensor, ids: Tensor, out: Tensor
    ) -> None:
        """out = the experts of a routed site on hidden [rows, hidden size] (`GroupedExperts`)."""
        self._expect(len(hidden))
        self.experts[site](hidden, ids, weights, out)

    def count_token_order(
        self, site: int, x: Tensor, ids: Tensor, place: Tensor | None, out: Tensor
    ) -> None:
        """out [rows * top_k, width] = f(gate) * up of x [rows * top_k, 2 width], or f(x) of x
        [rows * top_k, width] without a gate.

        ids: [rows, top_k]; place: [experts] index of each among the local ones, or -1; None: all
        are local, in their order.
        """
        rows, top_k = ids.shape
        self._expect(rows)
        token = torch.arange(rows * top_k, device=x.device) // top_k
        expert = ids.reshape(-1)
        if place is not None:
            expert = place[expert.long()]
        self.recorder.count_routed(site, *self._split(site, x), token, expert.to(torch.int32), out)

    def _split(self, site: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """gate and up of x [rows, 2 width]; x [rows, width] itself at a site without a gate."""
        if not self.recorder.sites[site].gated:
            return x, None
        if site in self.turns:
            return x[:, ::2], x[:, 1::2]
        gate, up = x.chunk(2, dim=1)
        return gate, up

    def _expect(self, rows: int) -> None:
        """Any site may be the first of a pass."""
        if rows != self._rows:
            self._rows = rows
            self.recorder.begin(self._bins[:rows])


_counter: StepCounter | None = None


def use_counter(counter: StepCounter | None) -> None:
    """Make this the counter of the process."""
    global _counter
    _counter = counter


def _here() -> StepCounter:
    if _counter is None:
        raise CountError("vllm: this process has no recorder")
    return _counter


def _count_site(x: Tensor, site: int, paired: bool) -> Tensor:
    return _here().count(site, x, paired)


def _count_site_quant(x: Tensor, site: int) -> tuple[Tensor, Tensor]:
    return _here().count_quantised(site, x)


def _count_experts(out: Tensor, hidden: Tensor, weights: Tensor, ids: Tensor, site: int) -> None:
    _here().run_experts(site, hidden, weights, ids, out)


def _count_token_order(
    out: Tensor, x: Tensor, ids: Tensor, place: Tensor | None, site: int
) -> None:
    _here().count_token_order(site, x, ids, place, out)


def _count_site_fake(x: Tensor, site: int, paired: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2 if paired else x.shape[1])


def _count_site_quant_fake(x: Tensor, site: int) -> tuple[Tensor, Tensor]:
    h = x.new_empty(x.shape[0], x.shape[1] // 2)
    return h.new_empty(h.shape, dtype=torch.float8_e4m3fn), new_scales(h)


def _writes_out(*_: object) -> None:
    """The fake of the operators that only write to `out`."""


for _name, _run, _fake in (
    ("count_site", _count_site, _count_site_fake),
    ("count_site_quant", _count_site_quant, _count_site_quant_fake),
    ("count_experts", _count_experts, _writes_out),
    ("count_token_order", _count_token_order, _writes_out),
):
    _library.impl(_name, _run, "CPU")
    _library.impl(_name, _run, "CUDA")
    torch.library.register_fake(f"sparcom::{_name}", _fake, lib=_library)


class CountedActivation(nn.Module):
    """Takes the place of the model's activation module.

    paired: the input is gate and up side by side.
    gives_h: its output is h; False if gate and up are multiplied after it, so that it is f(gate).
    site_index: of the worker's sites, set once they are all known.
    """

    site_index: int

    def __init__(self, paired: bool, gives_h: bool = True) -> None:
        super().__init__()
        self.paired, self.gives_h = paired, gives_h

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., 2 width] or [..., width] -> [..., width]."""
        rows = x if x.dim() == 2 else x.flatten(0, -2)
        out = torch.ops.sparcom.count_site(rows, self.site_index, self.paired)
        return out if x.dim() == 2 else out.view(*x.shape[:-1], out.shape[-1])

    def quantises(self, x: Tensor) -> bool:
        """Whether h of this input may leave as fp8 in groups of 128 columns."""
        halves = x.dtype in (torch.bfloat16, torch.float16)
        return self.paired and halves and x.shape[-1] % (2 * GROUP) == 0
