"""Distances between floating-point values, for tests."""

import torch
from torch import Tensor


def units_apart(a: Tensor, b: Tensor) -> Tensor:
    """How many representable values lie from a to b, element by element; 0 from NaN to NaN."""
    assert a.dtype is b.dtype
    bits = {4: torch.int32, 2: torch.int16}[a.element_size()]

    def order(x: Tensor) -> Tensor:
        i = x.contiguous().view(bits).long()
        return torch.where(i < 0, -(i & (2 ** (8 * x.element_size() - 1) - 1)), i)

    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0, (order(a) - order(b)).abs())
