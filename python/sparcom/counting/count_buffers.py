"""The count buffers of one worker: of every site, a row for each slot and expert."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sparcom.components import Site
from sparcom.counting import layout


class CountBuffers:
    """counts [slots * bins, width], rows [slots * bins] and, if wanted, signs [2, slots * bins,
    width] of every site, int32, zeroed. striped: as `counting.layout` says; else in order."""

    def __init__(
        self, sites: Sequence[Site], slots: int, signs: bool, device: torch.device, striped: bool
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, dtype=torch.int32, device=device)

        self.striped = striped
        self.counts = [zeros(slots * s.bins, s.width) for s in sites]
        self.rows = [zeros(slots * s.bins) for s in sites]
        self.signs = [zeros(2, slots * s.bins, s.width) for s in sites] if signs else []

    def of(self, site: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """(counts, rows, signs or None) of a site."""
        return self.counts[site], self.rows[site], self.signs[site] if self.signs else None

    def gather(self, slots: torch.Tensor, n_slots: int) -> "Gathered":
        """The counts of some slots, their columns in order."""

        def gathered(buffer: torch.Tensor) -> torch.Tensor:
            """[..., slots * bins, width] -> [..., n, bins * width]."""
            *first, rows, width = buffer.shape
            found = buffer.view(*first, n_slots, rows // n_slots, width)[..., slots, :, :]
            return (layout.in_order(found) if self.striped else found).flatten(-2)

        counts = torch.cat([gathered(c) for c in self.counts], 1)
        rows = torch.cat([r.view(n_slots, -1)[slots] for r in self.rows], 1)
        signs = [gathered(s) for s in self.signs]
        return Gathered(counts, rows, torch.cat(signs, 2) if signs else None)

    def clear(self, slots: torch.Tensor, n_slots: int) -> None:
        for buffer in (*self.counts, *self.rows, *(half for both in self.signs for half in both)):
            buffer.view(n_slots, -1)[slots] = 0

    def discard(self) -> None:
        for buffer in (*self.counts, *self.rows, *self.signs):
            buffer.zero_()


class Gathered(NamedTuple):
    """counts [n, neurons], rows [n, bins of all sites], signs [2, n, neurons] or None."""

    counts: torch.Tensor
    rows: torch.Tensor
    signs: torch.Tensor | None
