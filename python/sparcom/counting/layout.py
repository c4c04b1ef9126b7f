"""The layout of count buffers: the one place in Python that knows where a column's count lies.

On CPU a row of counts has its columns in order. On CUDA it is striped, so that the 32 threads of a
warp add to 32 neighbouring words at once (csrc/cuda/count_layout.h says why, and has the same
formula). Only `act_mul_count` writes striped buffers, and only `in_order` reads them.
"""

import functools

import torch

BLOCK, GROUP = 256, 8


def striped(device: torch.device) -> bool:
    """Whether buffers on a device are striped."""
    return device.type == "cuda"


@functools.cache
def places(width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """[width] int64: the place of each column in a striped row.

    Column 256 b + 8 l + i is at 256 b + 32 i + l. Of the last block, if it is shorter, `lanes` is
    the number of whole groups of 8: they lie at lanes * i + l, the columns behind them in order.

    >>> places(17).tolist()
    [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 16]
    """
    column = torch.arange(width)
    inside = column % BLOCK
    start = column - inside
    lanes = (width - start).clamp(max=BLOCK) // GROUP
    moved = start + inside % GROUP * lanes + inside // GROUP
    return torch.where(inside < lanes * GROUP, moved, column).to(device)


def in_order(buffer: torch.Tensor) -> torch.Tensor:
    """A copy of a striped buffer [..., width] with its columns in order."""
    return buffer.index_select(-1, places(buffer.shape[-1], buffer.device))
