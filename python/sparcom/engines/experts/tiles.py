"""How the rows of routed experts are laid out for matrix products on CPU.

A product may round a row differently when the number of rows changes, and how many rows an expert
gets depends on every prompt of the pass. So products have sizes out of a short list, found at load,
that this machine's library rounds alike: the result of a row depends on nothing but the row.

Each expert owns one *block* of `block` rows; all blocks are one batched product over the experts'
weights as they lie. What does not fit follows behind in *tails*, products of their own:

    expert 0 [r r r . | expert 1 [r r r r | ... | tail of 1 [r r . .

Rows of an expert lie in the order of their tokens, so that the rows of one prompt are neighbours
and their counts are added once (`act_mul_count`). Rows without a token (.) are computed and unused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

# What a call costs before its first row, in rows: weights are repacked, threads meet.
_BLOCK_COST, _TAIL_COST = 64, 150
_CANDIDATES = (*range(64, 257, 32), *range(320, 513, 64))


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows that are rounded alike.

    rows: the allowed ones, rising.
    tail_batch: experts of a product that computes a tail; all but one are idle in it.
    """

    rows: tuple[int, ...]
    tail_batch: int


@dataclass(frozen=True)
class Tail:
    """Rows of one expert behind the blocks: a product over experts [first, first + tail_batch).

    start, size: first row, and rows of each expert in it.
    """

    first: int
    start: int
    size: int


@dataclass(frozen=True)
class Tiles:
    """One pass's rows at one site.

    block: rows of each expert's block; 0 where there are tails only.
    tails: what follows.
    token: [rows] int64, the token of each row, or -1.
    expert: [rows] int32.
    place: [tokens * top_k] int64, the row of each (token, k); -1 where the id was -1.
    """

    block: int
    tails: tuple[Tail, ...]
    token: np.ndarray
    expert: np.ndarray
    place: np.ndarray


def plan_tiles(ids: np.ndarray, experts: int, sizes: Sizes) -> Tiles:
    """Lay the rows of routed tokens out.

    ids: [tokens, top_k], each in [0, experts), no expert twice in a row; -1: not computed here.
    """
    top_k = ids.shape[1]
    ids = ids.reshape(-1)
    order, load = by_expert(ids, experts)
    start = np.cumsum(load) - load
    block = _best_block(load, sizes)
    expert = [np.repeat(np.arange(experts), block)]
    rank = np.arange(len(order)) - np.repeat(start, load)
    row_of = np.repeat(np.arange(experts) * block, load) + rank  # of each sorted (token, k)
    tails, rows = [], experts * block
    for e in np.flatnonzero(load > block):
        at, end = start[e] + block, start[e] + load[e]
        for part in np.array_split(np.arange(at, end), -(-(end - at) // sizes.rows[-1])):
            size = min(s for s in sizes.rows if s >= len(part))
            first = min(int(e), experts - sizes.tail_batch)
            row_of[part] = rows + (e - first) * size + np.arange(len(part))
            tails.append(Tail(first, rows, size))
            expert.append(np.repeat(np.arange(first, first + sizes.tail_batch), size))
            rows += sizes.tail_batch * size
    token = np.full(rows, -1, np.int64)
    token[row_of] = order // top_k
    place = np.full(len(ids), -1, np.int64)
    place[order] = row_of
    return Tiles(block, tuple(tails), token, np.concatenate(expert).astype(np.int32), place)


def by_expert(ids: np.ndarray, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the ids that are not -1, by expert and then as they come; [experts] loads)."""
    order = np.argsort(ids.astype(np.uint16), kind="stable")  # -1 last
    order = order[: np.count_nonzero(ids >= 0)]
    return order, np.bincount(ids[order], minlength=experts)


def _best_block(load: np.ndarray, sizes: Sizes) -> int:
    """The block size that costs least, in rows, given how many rows each expert has."""
    block = np.asarray((0, *sizes.rows))
    over = np.maximum(load - block[:, None], 0)  # [sizes, experts]
    calls = -(-over // sizes.rows[-1])
    padded = over + sizes.rows[0] // 2 * calls
    tails = (_TAIL_COST * calls + padded).sum(1) * sizes.tail_batch
    blocks = len(load) * np.where(block > 0, _BLOCK_COST + block, 0)
    return int(block[(blocks + tails).argmin()])


@torch.inference_mode()
def agreeing_sizes(weights: Sequence[torch.Tensor], expected: int) -> Sizes:
    """The sizes, of those worth having, at which products with some weights round alike.

    weights: [experts, inputs, outputs] each, strided as the products will read them.
    expected: mean rows of an expert in a pass.
    Products of random rows are compared bit for bit; one that rounds in another order differs in
    about one element of 100, out of thousands.
    """
    wanted = [s for s in _CANDIDATES if s <= max(128, 2 * expected)]
    experts = len(weights[0])
    rows = [_random_rows(w, wanted[-1]) for w in weights]

    def products(size: int, batch: int) -> list[torch.Tensor]:
        """[batch, size, outputs] each: products of the first rows and experts."""
        pairs = zip(rows, weights, strict=True)
        return [torch.bmm(x[:batch, :size].contiguous(), w[:batch]) for x, w in pairs]

    norm = products(wanted[-1], experts)
    alike = [s for s in wanted if _agree(products(s, experts), norm)]
    for batch in (1, min(2, experts)):
        if all(_agree(products(s, batch), norm) for s in alike):
            return Sizes(tuple(alike), batch)
    return Sizes(tuple(alike), experts)


def _random_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """[experts, rows, inputs]: the same rows for every expert."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, rows, weight.shape[1], generator=generator).to(weight.dtype)
    return one.expand(len(weight), -1, -1)


def _agree(some: list[torch.Tensor], norm: list[torch.Tensor]) -> bool:
    """Whether products of the first rows and experts are equal to those of all."""
    return all(torch.equal(a, b[: len(a), : a.shape[1]]) for a, b in zip(some, norm, strict=True))
