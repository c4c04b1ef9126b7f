"""`torch.ops.sparcom.count_site`: one site's activation, as one opaque operator of the graph.

    out = f(gate) * up, counted into the recorder of this process

A compiled graph keeps the call, and nothing else: the site is a constant, and the buffers are found
through the recorder, where they stay at one address, which CUDA graphs need. One process holds one
worker, hence one recorder. Its kernel is `torch.ops.sparcom.act_mul_count`.
"""

import torch
from torch import Tensor, nn

from sparcom.counting.recorder import Recorder
from sparcom.errors import CountError

_library = torch.library.Library("sparcom", "FRAGMENT")
_library.define(
    "count_site(Tensor x, int site, bool paired) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)


class StepCounter:
    """The recorder of a worker, and the bins of its running step in one buffer that never moves.

    max_rows: rows of the largest step.
    """

    def __init__(self, recorder: Recorder, max_rows: int) -> None:
        self.recorder = recorder
        self.host = torch.full((max_rows,), -1, dtype=torch.int32)
        on_host = recorder.device.type == "cpu"
        self._bins = self.host if on_host else self.host.to(recorder.device)
        self._rows = 0

    def begin(self) -> None:
        """The bins in `host` are those of the next pass."""
        if self._bins is not self.host:
            self._bins.copy_(self.host)

    def end(self) -> None:
        """Passes that follow without `begin` (dummy and warm-up ones) count nothing."""
        self.host.fill_(-1)
        self.begin()

    def count(self, site: int, x: Tensor, paired: bool) -> Tensor:
        """f(gate) * up of one site; x: [rows, 2 width], gate then up, or [rows, width]."""
        if len(x) != self._rows:
            self._rows = len(x)
            self.recorder.begin(self._bins[: self._rows])
        if not paired:
            return self.recorder.count(site, x, None)
        gate, up = x.chunk(2, dim=1)
        return self.recorder.count(site, gate, up)


_counter: StepCounter | None = None


def use_counter(counter: StepCounter | None) -> None:
    """Make this the counter of the process."""
    global _counter
    _counter = counter


def _count_site(x: Tensor, site: int, paired: bool) -> Tensor:
    if _counter is None:
        raise CountError("count_site: this process has no recorder")
    return _counter.count(site, x, paired)


def _count_site_fake(x: Tensor, site: int, paired: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2 if paired else x.shape[1])


_library.impl("count_site", _count_site, "CPU")
_library.impl("count_site", _count_site, "CUDA")
torch.library.register_fake("sparcom::count_site", _count_site_fake, lib=_library)


class CountedActivation(nn.Module):
    """Stands where the model's activation module stood.

    paired: the input holds gate and up side by side.
    """

    def __init__(self, site: int, paired: bool) -> None:
        super().__init__()
        self.site, self.paired = site, paired

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., 2 width] or [..., width] -> [..., width]."""
        rows = x if x.dim() == 2 else x.flatten(0, -2)
        out = torch.ops.sparcom.count_site(rows, self.site, self.paired)
        return out if x.dim() == 2 else out.view(*x.shape[:-1], out.shape[-1])
