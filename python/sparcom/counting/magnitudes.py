"""Magnitudes: how strongly neurons fire and how much experts contribute, beside the counts.

    per neuron      sums: sum of h;  absolutes: sum of |h|;  largest: max of h
    per expert      weights: sum of g;  norms: of ||y||;  squares: of ||y||^2;  products: of g ||y||

over the counted tokens that reach it, where h = f(gate) * up, y is an expert's output before its
router weight g is multiplied, and ||y|| its Euclidean norm. Values are those of the pass, in its
dtype; everything after them is float64. On CPU sums run over tokens in the order of the rows, so
that they repeat bit for bit. On CUDA the order of additions is not fixed: two sums of n values x
differ by at most n 2^-52 sum |x|.

This is plain torch beside the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from sparcom.components import Site

NEURONS = ("sums", "absolutes", "largest")
EXPERTS = ("weights", "norms", "squares", "products")


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes of some instructions, one row each, float64.

    sums, absolutes, largest: [n, neurons]; largest is -inf where no counted token reaches a neuron.
    weights, norms, squares, products: [n, experts].
    """

    sums: np.ndarray
    absolutes: np.ndarray
    largest: np.ndarray
    weights: np.ndarray
    norms: np.ndarray
    squares: np.ndarray
    products: np.ndarray

    @classmethod
    def empty(cls, n: int, neurons: int, experts: int) -> "Magnitudes":
        """Of n instructions that nothing was added to."""
        arrays = {name: np.zeros((n, neurons)) for name in NEURONS}
        arrays["largest"].fill(-np.inf)
        return cls(**arrays, **{name: np.zeros((n, experts)) for name in EXPERTS})

    def rows(self, index: Sequence[int] | slice) -> "Magnitudes":
        """Those of some instructions."""
        return Magnitudes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def joined(self, others: Sequence["Magnitudes"]) -> "Magnitudes":
        """These and those of others, one after the other."""
        arrays = {f.name: [getattr(m, f.name) for m in (self, *others)] for f in fields(self)}
        return Magnitudes(**{name: np.concatenate(parts) for name, parts in arrays.items()})

    def put(self, index: Sequence[int], other: "Magnitudes") -> None:
        """Let the rows `index` be those of another."""
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)

    def to_bytes(self) -> bytes:
        """All arrays, one after the other."""
        return b"".join(np.ascontiguousarray(getattr(self, f.name)).tobytes() for f in fields(self))

    @classmethod
    def from_bytes(cls, data: bytes, n: int, neurons: int, experts: int) -> "Magnitudes":
        """What `to_bytes` has written."""
        widths = [neurons] * len(NEURONS) + [experts] * len(EXPERTS)
        ends = np.cumsum([n * width for width in widths])
        parts = np.split(np.frombuffer(data, np.float64), ends[:-1])
        pairs = zip((*NEURONS, *EXPERTS), parts, widths, strict=True)
        return cls(**{name: part.reshape(n, width) for name, part, width in pairs})


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
        largest.index_reduce_(0, at, x, "amax")

    def add_outputs(
        self, site: int, y: torch.Tensor, row: torch.Tensor, weights: torch.Tensor,
        experts: torch.Tensor, slots: torch.Tensor,
    ) -> None:  # fmt: skip
        """Add what the experts of a routed site return.

        y: [rows, hidden]; row: [tokens, top_k] int64, the row of y for each of a token's experts,
        or -1; weights: [tokens, top_k]; experts: [tokens, top_k] local index of each, or -1;
        slots: [tokens] int32, or -1.
        """
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
