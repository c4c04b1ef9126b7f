"""How the rows of routed experts are laid out for torch's matrix products on CPU.

A product may round a row differently if the number of rows changes, and the number of rows of an
expert depends on every prompt of the pass. So all products have sizes from a short list, found at
load, that this machine's library rounds alike. Then the result of a row depends on the row alone.

Each expert has one *block* of `block` rows, and one batched product over the experts' weights
computes all blocks. Rows that do not fit follow in *tails*, each a product of its own:

    expert 0 [r r r . | expert 1 [r r r r | ... | tail of 1 [r r . .

The rows of an expert are in the order of their tokens, so that the rows of one prompt are
neighbours and their counts are added once (`act_mul_count`). Rows without a token (.) are computed,
but unused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

# What a product costs besides its rows, in rows: weights are repacked and threads synchronised.
_BLOCK_COST, _TAIL_COST = 64, 150
_CANDIDATES = (*range(64, 257, 32), *range(320, 513, 64))


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows that are rounded alike.

    rows: the allowed numbers, rising.
    tail_batch: how many experts the product of a tail covers; all but one have no token in it.
    """

    rows: tuple[int, ...]
    tail_batch: int


@dataclass(frozen=True)
class Tail:
    """Rows of one expert after the blocks: a product over experts [first, first + experts).

    start: its first row; size: the rows of each expert in it.
    """

    first: int
    experts: int
    start: int
    size: int


@dataclass(frozen=True)
class Tiles:
    """The rows of one pass at one site.

    block: rows of each expert's block; 0: there are only tails.
    tails: what follows the blocks.
    token: [rows] int64, the token of each row, or -1.
    expert: [rows] int32.
    row: [tokens * top_k] int64, the row of each (token, k); -1 if its id was -1.
    """

    block: int
    tails: tuple[Tail, ...]
    token: np.ndarray
    expert: np.ndarray
    row: np.ndarray


def plan_tiles(ids: np.ndarray, experts: int, sizes: Sizes) -> Tiles:
    """Lay out the rows of routed tokens.

    ids: [tokens, top_k], each in [0, experts), different for one token; -1: not computed here.
    """
    top_k = ids.shape[1]
    ids = ids.reshape(-1)
    order, load = by_expert(ids, experts)
    start = np.cumsum(load) - load
    block = _best_block(load, sizes)
    expert = [np.repeat(np.arange(experts), block)]
    rank = np.arange(len(order)) - np.repeat(start, load)
    sorted_row = np.repeat(np.arange(experts) * block, load) + rank  # of each (token, k) by expert
    tails, rows = [], experts * block
    for e in np.flatnonzero(load > block):
        at, end = start[e] + block, start[e] + load[e]
        for part in np.array_split(np.arange(at, end), -(-(end - at) // sizes.rows[-1])):
            size = min(s for s in sizes.rows if s >= len(part))
            first = min(int(e), experts - sizes.tail_batch)
            sorted_row[part] = rows + (e - first) * size + np.arange(len(part))
            tails.append(Tail(first, sizes.tail_batch, rows, size))
            expert.append(np.repeat(np.arange(first, first + sizes.tail_batch), size))
            rows += sizes.tail_batch * size
    token = np.full(rows, -1, np.int64)
    token[sorted_row] = order // top_k
    row = np.full(len(ids), -1, np.int64)
    row[order] = sorted_row
    return Tiles(block, tuple(tails), token, np.concatenate(expert).astype(np.int32), row)


def by_expert(ids: np.ndarray, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the ids that are not -1, stably sorted by expert; [experts] rows of each)."""
    order = np.argsort(ids.astype(np.uint16), kind="stable")  # -1 last
    order = order[: np.count_nonzero(ids >= 0)]
    return order, np.bincount(ids[order], minlength=experts)


def _best_block(load: np.ndarray, sizes: Sizes) -> int:
    """The block size with the least cost, counted in rows. load: [experts] rows of each."""
    block = np.asarray((0, *sizes.rows))
    over = np.maximum(load - block[:, None], 0)  # [sizes, experts]
    calls = -(-over // sizes.rows[-1])
    padded = over + sizes.rows[0] // 2 * calls
    tails = (_TAIL_COST * calls + padded).sum(1) * sizes.tail_batch
    blocks = len(load) * np.where(block > 0, _BLOCK_COST + block, 0)
    return int(block[(blocks + tails).argmin()])


@torch.inference_mode()
def agreeing_sizes(weights: Sequence[torch.Tensor], expected: int) -> Sizes:
    """The useful sizes at which products with these weights round alike.

    weights: [experts, inputs, outputs] each, with the strides that the products will read.
    expected: mean rows of an expert in a pass.

    Products of random rows are compared bit for bit, thousands of elements each. Another order of
    rounding changes about one element in 100.
    """
    wanted = [s for s in _CANDIDATES if s <= max(128, 2 * expected)]
    experts = len(weights[0])
    rows = [_random_rows(w, wanted[-1]) for w in weights]

    def products(size: int, batch: int) -> list[torch.Tensor]:
        """[batch, size, outputs] each: products of the first rows and experts."""
        pairs = zip(rows, weights, strict=True)
        return [torch.bmm(x[:batch, :size].contiguous(), w[:batch]) for x, w in pairs]

    largest = products(wanted[-1], experts)
    alike = [s for s in wanted if _agree(products(s, experts), largest)]
    for batch in (1, min(2, experts)):
        if all(_agree(products(s, batch), largest) for s in alike):
            return Sizes(tuple(alike), batch)
    return Sizes(tuple(alike), experts)


def _random_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """[experts, rows, inputs]: the same rows for every expert."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, rows, weight.shape[1], generator=generator).to(weight.dtype)
    return one.expand(len(weight), -1, -1)


def _agree(some: list[torch.Tensor], all_rows: list[torch.Tensor]) -> bool:
    """True if products of the first rows and experts equal those of all rows and experts."""
    pairs = zip(some, all_rows, strict=True)
    return all(torch.equal(a, b[: len(a), : a.shape[1]]) for a, b in pairs)
