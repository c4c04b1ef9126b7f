"""Two traces of the same tokens: how far their states lie apart, and whether their counts agree.

A state's difference is measured row by row, as a share of the row's own size. Rounding may change a
count by its gates that are near zero, and by no others. A gate g is near zero if
`|g| <= NEAR * d * size`: d is the difference of what the FFN took in, and size the root mean square
of the gates of its row or of its neuron, whichever is larger.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sparcom.components import Site

NEAR = 8.0
_LEAST = 1e-5  # share of a gate's size that the order of a float32 sum can change


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference of a state that rounding in a dtype explains, as a share of its row."""
    return max(8 * torch.finfo(dtype).eps, 1e-4)


def difference(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """Largest difference of a row, as a share of the row's size (of most rows' size, if a row
    is smaller); infinite if a row is not finite in one of the two.

    ours, plain: [rows, features].
    """
    plain = plain.float()
    apart = (ours.float() - plain).square().mean(1).sqrt()
    size = plain.square().mean(1).sqrt()
    share = apart / size.clamp(min=float(size.median()))
    share = share.masked_fill(apart == 0, 0.0)
    return float(torch.where(share.isnan(), torch.inf, share).max())


@dataclass(frozen=True)
class Gates:
    """The gates of one site for one prompt, as transformers' own modules computed them.

    calls: (expert or 0, [rows, width]) each.
    """

    site: Site
    calls: tuple[tuple[int, torch.Tensor], ...]

    def fired(self) -> torch.Tensor:
        """[neurons] int64: rows in which each neuron's gate is positive."""
        return self._sum(lambda gate: gate > 0)

    def near_zero(self, apart: float) -> torch.Tensor:
        """[neurons] int64: rows in which a gate may change its sign.

        apart: `difference` of what the FFN took in.
        """
        share = NEAR * max(apart, _LEAST)
        return self._sum(lambda gate: gate.float().abs() <= share * _sizes(gate))

    def routed(self) -> torch.Tensor:
        """[experts] int64: rows of each expert; empty for other sites."""
        out = torch.zeros(self.site.experts, dtype=torch.int64)
        for expert, gate in self.calls if self.site.experts else ():
            out[expert] += len(gate)
        return out

    def _sum(self, of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        out = torch.zeros(self.site.bins, self.site.width, dtype=torch.int64)
        for expert, gate in self.calls:
            out[expert] += of(gate).sum(0).cpu()
        return out.flatten()


def _sizes(gate: torch.Tensor) -> torch.Tensor:
    """[rows, width]: how large gates of this row and of this neuron are."""
    square = gate.float().square()
    return torch.maximum(square.mean(1, keepdim=True), square.mean(0, keepdim=True)).sqrt()
