"""Adding up magnitudes (`counting.magnitudes`) of the instructions that are under way."""

from collections.abc import Sequence

import numpy as np
import torch

from sparcom.components import Site
from sparcom.counting.magnitudes import EXPERTS, NEURONS, Magnitudes


class MagnitudeBuffers:
    """Magnitudes of one worker by slot, as the recorder's counts.

    `slots * (3 neurons + 4 experts) * 8` bytes (`nbytes`). Each buffer has one row more, for the
    rows of a pass that are not counted: so its operations have fixed shapes.
    """

    def __init__(self, sites: Sequence[Site], slots: int, device: torch.device) -> None:
        self._sites, self._slots = tuple(sites), slots

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._neurons = [[zeros(slots * s.bins + 1, s.width) for _ in NEURONS] for s in sites]
        self._experts = [
            [zeros(slots * s.experts + 1) for _ in EXPERTS] if s.experts else [] for s in sites
        ]
        self.discard()

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        buffers = [b for site in (*self._neurons, *self._experts) for b in site]
        return sum(b.nbytes for b in buffers)

    def add(self, site: int, h: torch.Tensor, bins: torch.Tensor) -> None:
        """Add the rows of a site's call: h [rows, width], bins [rows] int32, -1: not counted."""
        sums, absolutes, largest = self._neurons[site]
        last = len(sums) - 1
        at = torch.where(bins >= 0, bins, last).long()
        x = h.double()
        sums.index_add_(0, at, x)
        absolutes.index_add_(0, at, x.abs())
        largest.scatter_reduce_(0, at[:, None].expand_as(x), x, "amax")

    def add_outputs(
        self, site: int, y: torch.Tensor, row: torch.Tensor, weights: torch.Tensor,
        experts: torch.Tensor, slots: torch.Tensor,
    ) -> None:  # fmt: skip
        """Add what the experts of a routed site return.

        y: [rows, hidden]; row: [tokens, top_k] int64, the row of y for each of a token's experts,
        or -1; weights: [tokens, top_k]; experts: [tokens, top_k] local index of each, or -1;
        slots: [tokens] int32, or -1.
        """
        if not len(y):  # none of a worker's experts was chosen
            return
        buffers = self._experts[site]
        last = len(buffers[0]) - 1
        counted = (row >= 0) & (experts >= 0) & (slots >= 0)[:, None]
        bins = slots[:, None] * self._sites[site].experts + experts
        at = torch.where(counted, bins, last).long().flatten()
        norm = torch.linalg.vector_norm(y.double(), dim=1)[row.clamp(min=0)].flatten()
        g = weights.double().flatten()
        for buffer, value in zip(buffers, (g, norm, norm**2, g * norm), strict=True):
            buffer.index_add_(0, at, value)

    def take(self, slots: torch.Tensor) -> Magnitudes:
        """The magnitudes of some slots, which are cleared."""

        def gathered(buffers: list[torch.Tensor]) -> np.ndarray:
            parts = [b[:-1].view(self._slots, -1)[slots] for b in buffers]
            none = torch.zeros(len(slots), 0, dtype=torch.float64, device=slots.device)
            out: np.ndarray = torch.cat([none, *parts], 1).cpu().numpy()
            return out

        neurons = {n: gathered([s[k] for s in self._neurons]) for k, n in enumerate(NEURONS)}
        experts = {n: gathered([s[k] for s in self._experts if s]) for k, n in enumerate(EXPERTS)}
        self.clear(slots)
        return Magnitudes(**neurons, **experts)

    def clear(self, slots: torch.Tensor) -> None:
        """Forget what was added in some slots."""
        for site in (*self._neurons, *self._experts):
            for k, buffer in enumerate(site):
                empty = -torch.inf if buffer.dim() == 2 and NEURONS[k] == "largest" else 0.0
                buffer[:-1].view(self._slots, -1)[slots] = empty

    def discard(self) -> None:
        """Forget everything."""
        everywhere = self._neurons[0][0].device if self._neurons else None
        self.clear(torch.arange(self._slots, device=everywhere))
