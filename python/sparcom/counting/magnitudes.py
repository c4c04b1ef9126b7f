"""Magnitudes: how strongly neurons fire and how much experts contribute, beside the counts.

    per neuron      sums: sum of h;  absolutes: sum of |h|;  largest: max of h
    per expert      weights: sum of g;  norms: of ||y||;  squares: of ||y||^2;  products: of g ||y||

over the counted tokens that reach it, where h = f(gate) * up, y is an expert's output before its
router weight g is multiplied, and ||y|| its Euclidean norm. Values are those of the pass, in its
dtype; everything after them is float64. On CPU sums run over tokens in the order of the rows, so
that they repeat bit for bit. On CUDA the order of additions is not fixed: two sums of n values x
differ by at most n 2^-52 sum |x|.

They are added up in plain torch beside the kernel: `magnitude_buffers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

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
