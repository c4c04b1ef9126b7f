"""The recorder: count buffers of one worker, the bins of the current pass, and conservation.

A *slot* is the place of one instruction in the buffers. For each pass the engine gives the slot of
every row (-1: not counted); each site then adds to its own buffers through `act_mul_count`. `take`
returns the counts of finished slots, after it has proved that every site saw exactly the rows that
the corpus side expects.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sparcom.components import Site
from sparcom.counting import layout, nvtx, reference
from sparcom.counting.changes import Change
from sparcom.counting.conservation import check_conservation, check_signs_conserved
from sparcom.counting.count_buffers import CountBuffers, Gathered
from sparcom.counting.counted import Counted
from sparcom.counting.magnitude_buffers import MagnitudeBuffers
from sparcom.counting.ops import act_mul_count, check_signs
from sparcom.counting.quant_ops import act_mul_count_quant
from sparcom.counting.trace import Trace
from sparcom.errors import CountError


class Recorder:
    """Counts, per slot, how often each neuron of each site fires.

    sites: the worker's sites; counts come out in their order.
    slots: how many instructions may be in progress at once; buffers take
        `slots * (neurons + bins) * 4` bytes, and with signs three times as many neurons (`nbytes`).
    partial: indices of routed sites of which this worker has only some experts, so that a token may
        have fewer than `top_k` rows here.
    threshold, signal: when a neuron fires, as in `act_mul_count`.
    signs: count up > 0, and gate and up > 0, too. Raises InputError if a site has no up.
    magnitudes: add up h, and what experts return (`counting.magnitudes`).
    verify: recount every call with plain torch and require equality.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        slots: int,
        *,
        partial: Collection[int] = (),
        threshold: float = 0.0,
        signal: str = "gate",
        signs: bool = False,
        magnitudes: bool = False,
        verify: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sites = tuple(sites)
        self.slots = slots
        self.partial = frozenset(partial)
        self.threshold = threshold
        self.signal = signal
        if signs:
            check_signs(all(s.gated for s in self.sites), threshold, signal)
        self.signs = signs
        self.device = torch.device(device)
        striped = layout.striped(self.device)
        self._buffers = CountBuffers(self.sites, slots, signs, self.device, striped)
        recount = CountBuffers(self.sites, slots, signs, self.device, False) if verify else None
        self._recount = recount
        self._magnitudes = MagnitudeBuffers(self.sites, slots, self.device) if magnitudes else None
        self._bins = torch.zeros(0, dtype=torch.int32, device=self.device)
        self._ablated: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._changes: dict[int, Change] = {}
        self._sums: list[torch.Tensor] | None = None
        self._absolute = False
        self.trace: Trace | None = None

    def ablate(
        self,
        masks: Mapping[int, tuple[torch.Tensor, torch.Tensor | None]],
        changes: Mapping[int, Change] | None = None,
    ) -> None:
        """Ablate neurons in every later pass: h becomes `h * keep + fill` (`act_mul_count`), and
        then what a change makes of it.

        masks: site -> (keep, fill or None for zeros), each [experts or 1, width] in the model's
            dtype on the recorder's device; {} ablates nothing.
        changes: site -> what is done to its h afterwards; None: nothing.

        A site counts before all that, so its own ablation does not change its counts.
        """
        self._ablated, self._changes = dict(masks), dict(changes or {})

    @contextmanager
    def summing(self, *, absolute: bool = False) -> Iterator[list[torch.Tensor]]:
        """Within the block, sum each site's output, or its absolute value, over its counted rows.

        Yields one [experts or 1, width] float64 for each site.
        """
        self._absolute = absolute
        self._sums = [torch.zeros(s.bins, s.width, dtype=torch.float64, device=self.device)
                      for s in self.sites]  # fmt: skip
        try:
            yield self._sums
        finally:
            self._sums = None

    @contextmanager
    def tracing(self, index: np.ndarray) -> Iterator[Trace]:
        """Within the block, `trace` keeps what some neurons (flat indices) do at counted rows."""
        self.trace = Trace(self.sites, index, self.device)
        try:
            yield self.trace
        finally:
            self.trace = None

    @property
    def nbytes(self) -> int:
        """Bytes of the count buffers."""
        counters = 3 if self.signs else 1
        counts = 4 * self.slots * sum(counters * s.neurons + s.bins for s in self.sites)
        return counts + (self._magnitudes.nbytes if self._magnitudes else 0)

    def begin(self, slot_of_row: torch.Tensor) -> None:
        """Start a pass: slot_of_row [rows] int32 is the slot of each activation row, or -1."""
        self._bins = slot_of_row.to(device=self.device, dtype=torch.int32)

    def count(self, site: int, gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
        """f(gate) * up of a dense or shared site, counted into the slots of the current pass.

        gate, up: [rows, width]; up is None if the MLP is ungated.
        """
        self.check_rows(site, len(gate))
        return self._count(site, gate, up, self._bins)

    def count_quantised(
        self, site: int, gate: torch.Tensor, up: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `count`, but h as (q, scales) in fp8: `act_mul_count_quant`, rows of scales dense."""
        self.check_rows(site, len(gate))
        others = (self._sums, self._magnitudes, self.trace)
        if site in self._changes or any(more is not None for more in others):  # they see h
            return reference.quantise(self._count(site, gate, up, self._bins), torch.float8_e4m3fn)
        options = self._options(site)
        self._recount_rows(site, gate, up, self._bins, options)
        counts, rows, signs = self._buffers.of(site)
        options |= self._ablation(site, None)
        with nvtx.site(self.sites[site].name):
            return act_mul_count_quant(
                gate, up, self._bins, counts, rows, signs=signs, striped=self._buffers.striped,
                **options,
            )  # fmt: skip

    def count_routed(
        self,
        site: int,
        gate: torch.Tensor,
        up: torch.Tensor | None,
        token_of_row: torch.Tensor,
        expert_of_row: torch.Tensor,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """f(gate) * up of a routed site, counted per slot and expert.

            bins[r] = slot of token_of_row[r] * experts + expert_of_row[r]

        gate, up: [rows, width], each row one token in one of its experts, in any order. They are
            counted fastest if ordered by expert, and by token within one.
        token_of_row: [rows] int64, the row of the pass that was routed; -1: none.
        expert_of_row: [rows] int32; -1: an expert of another worker.
        out: [rows, width] to write to; None: a new tensor.
        """
        slots, experts = self._bins[token_of_row], self.sites[site].experts
        counted = (token_of_row >= 0) & (slots >= 0)
        counted &= (expert_of_row >= 0) & (expert_of_row < experts)  # `take` reports an unknown one
        bins = torch.where(counted, slots * experts + expert_of_row, -1)
        return self._count(site, gate, up, bins, out, expert_of_row, token_of_row)

    @property
    def magnitudes(self) -> bool:
        """Whether magnitudes are added up."""
        return self._magnitudes is not None

    def add_outputs(
        self, site: int, y: torch.Tensor, row: torch.Tensor, weights: torch.Tensor,
        experts: torch.Tensor,
    ) -> None:  # fmt: skip
        """Add up what the experts of a routed site return: `MagnitudeBuffers.add_outputs`."""
        if self._magnitudes is not None:
            self._magnitudes.add_outputs(site, y, row, weights, experts, self._bins)

    @property
    def slots_of_rows(self) -> torch.Tensor:
        """[rows] int32, the slots that the current pass began with."""
        return self._bins

    def buffers_of(
        self, site: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None:
        """(counts, rows, signs or None) of a site, for a kernel that computes and counts by itself;
        None while more than counting is wanted: a recount, ablation, sums, magnitudes, a trace; or
        if the buffers are striped, which only `act_mul_count` knows."""
        wanted = (self._recount, self._sums, self._magnitudes, self.trace)
        changed = site in self._ablated or site in self._changes
        other = changed or any(more is not None for more in wanted)
        if other or self._buffers.striped:
            return None
        return self._buffers.of(site)

    def check_rows(self, site: int, rows: int) -> None:
        """Raise CountError if a site is called with another number of rows than the pass has."""
        if rows != len(self._bins):
            raise CountError(
                f"{self.sites[site].name}: got {rows} rows, but the pass has {len(self._bins)}"
            )

    def _count(
        self,
        site: int,
        gate: torch.Tensor,
        up: torch.Tensor | None,
        bins: torch.Tensor,
        out: torch.Tensor | None = None,
        expert: torch.Tensor | None = None,
        token: torch.Tensor | None = None,
    ) -> torch.Tensor:
        options, striped = self._options(site), self._buffers.striped
        self._recount_rows(site, gate, up, bins, options)
        counts, rows, signs = self._buffers.of(site)
        before = self._before_change(site, gate, up, bins, options)
        options |= self._ablation(site, expert)
        with nvtx.site(self.sites[site].name):
            h = act_mul_count(
                gate, up, bins, counts, rows, signs=signs, out=out, striped=striped, **options
            )
        if site in self._changes:
            self._changes[site](h, gate, token, expert)
        if self._sums is not None:
            counted = bins >= 0
            of = torch.zeros_like(bins) if expert is None else expert
            added = h[counted].double()
            added = added.abs() if self._absolute else added
            self._sums[site].index_add_(0, of[counted].long(), added)
        if self._magnitudes is not None:
            self._magnitudes.add(site, h, bins)
        if self.trace is not None:
            self.trace.add(site, (gate, up, h, before), bins >= 0, token, expert)
        return h

    def _options(self, site: int) -> dict[str, Any]:
        activation = self.sites[site].activation
        return {"activation": activation, "threshold": self.threshold, "signal": self.signal}

    def _ablation(self, site: int, expert: torch.Tensor | None) -> dict[str, Any]:
        if site not in self._ablated:
            return {}
        keep, fill = self._ablated[site]
        return {
            "keep": keep, "fill": fill, "expert": None if expert is None else expert.clamp(min=0)
        }  # fmt: skip

    def _recount_rows(
        self, site: int, gate: torch.Tensor, up: torch.Tensor | None, bins: torch.Tensor,
        options: dict[str, Any],
    ) -> None:  # fmt: skip
        """Count by plain torch, too, if that is wanted."""
        if self._recount is not None:
            counts, rows, signs = self._recount.of(site)
            reference.act_mul_count(gate, up, bins, counts, rows, signs=signs, **options)

    def _before_change(
        self, site: int, gate: torch.Tensor, up: torch.Tensor | None, bins: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor | None:  # fmt: skip
        """h of a traced site as it is counted, before the site's own ablation; None if it has
        none, or nothing is traced."""
        if self.trace is None or not (site in self._ablated or site in self._changes):
            return None
        counts, rows, _ = self._buffers.of(site)
        return act_mul_count(gate, up, torch.full_like(bins, -1), counts, rows, **options)

    def take(self, ids: Sequence[str], slots: Sequence[int], tokens: Sequence[int]) -> Counted:
        """The counts of finished slots, checked; the slots are cleared for reuse.

        ids, slots, tokens: [n] the instructions, their slots, and T of each from the corpus.
        Raises CountError, with the numbers, if a count is not conserved.
        """
        at = torch.as_tensor(slots, dtype=torch.int64, device=self.device)
        found = self._buffers.gather(at, self.slots)
        if self._recount is not None:
            self._check_recount(ids, found, self._recount.gather(at, self.slots))
            self._recount.clear(at, self.slots)
        self._buffers.clear(at, self.slots)
        neurons, seen = found.counts.cpu().numpy(), found.rows.cpu().numpy()
        signs = None if found.signs is None else found.signs.cpu().numpy()
        expected = np.asarray(tokens, dtype=np.int64)
        check_conservation(self.sites, ids, expected, neurons, seen, self.partial)
        if signs is not None:
            check_signs_conserved(self.sites, ids, neurons, signs, seen)
        routed = [
            seen[:, start : start + s.bins]
            for s, start in zip(self.sites, self._bin_starts(), strict=True)
            if s.experts
        ]
        experts = np.concatenate(routed, 1) if routed else np.zeros((len(ids), 0), np.int32)
        magnitudes = self._magnitudes.take(at) if self._magnitudes else None
        return Counted(tuple(ids), expected, neurons, experts, signs, magnitudes)

    def drop(self, slots: Sequence[int]) -> None:
        """Forget the counts of some slots (instructions that were given up)."""
        at = torch.as_tensor(slots, dtype=torch.int64, device=self.device)
        for buffers in (self._buffers, self._recount):
            if buffers:
                buffers.clear(at, self.slots)
        if self._magnitudes:
            self._magnitudes.clear(at)

    def discard(self) -> None:
        """Forget the counts of all slots (after a pass that failed)."""
        for buffers in (self._buffers, self._recount):
            if buffers:
                buffers.discard()
        if self._magnitudes:
            self._magnitudes.discard()

    def _bin_starts(self) -> np.ndarray:
        return np.cumsum([0, *(s.bins for s in self.sites)])[:-1]

    def _check_recount(self, ids: Sequence[str], found: Gathered, recount: Gathered) -> None:
        for what, ours, plain in zip(found._fields, found, recount, strict=True):
            if ours is None or plain is None:
                continue
            wrong = (ours != plain).nonzero()
            if len(wrong):
                at = tuple(wrong[0].tolist())
                raise CountError(
                    f"verify: {len(wrong)} {what} differ from plain torch; the first: "
                    f"instruction {ids[at[-2]]}, column {at[-1]}: kernel {int(ours[at])}, "
                    f"plain {int(plain[at])}"
                )
