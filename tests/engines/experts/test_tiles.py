"""Tiles: every routed token has one row, in a product over its expert, of an allowed size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom.engines.experts.tiles import Sizes, agreeing_sizes, plan_tiles

SIZES = [Sizes((64,), 1), Sizes((64, 96, 128), 1), Sizes((96, 160), 2), Sizes((64, 128), 4)]


def draw_ids(tokens: int, top_k: int, experts: int, skew: float, seed: int) -> np.ndarray:
    """[tokens, top_k] different experts for each token; with skew, low ones more often."""
    generator = np.random.default_rng(seed)
    scores = generator.random((tokens, experts)) - skew * np.arange(experts)
    return np.argsort(-scores, axis=1)[:, :top_k].astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 300),
    top_k=st.integers(1, 4),
    experts=st.integers(4, 70),
    skew=st.sampled_from([0.0, 0.02, 0.5]),
    sizes=st.sampled_from(SIZES),
    seed=st.integers(0, 99),
)
def test_every_token_has_its_own_row_with_its_expert(
    tokens: int, top_k: int, experts: int, skew: float, sizes: Sizes, seed: int
) -> None:
    ids = draw_ids(tokens, top_k, experts, skew, seed)
    tiles = plan_tiles(ids, experts, sizes)
    row = tiles.row.reshape(tokens, top_k)
    assert len(np.unique(row)) == tokens * top_k
    np.testing.assert_array_equal(tiles.token[row], np.repeat(np.arange(tokens)[:, None], top_k, 1))
    np.testing.assert_array_equal(tiles.expert[row], ids)
    assert (tiles.token >= 0).sum() == tokens * top_k  # the other rows belong to no token


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 200), experts=st.integers(1, 8), seed=st.integers(0, 99))
def test_experts_of_other_workers_get_no_rows(tokens: int, experts: int, seed: int) -> None:
    ids = draw_ids(tokens, 3, 8, 0.1, seed)
    local = np.where(ids < experts, ids, -1)
    tiles = plan_tiles(local, experts, SIZES[0])
    row = tiles.row.reshape(tokens, 3)
    assert (row[local < 0] == -1).all()
    assert len(np.unique(row[local >= 0])) == (local >= 0).sum() == (tiles.token >= 0).sum()
    np.testing.assert_array_equal(tiles.expert[row[local >= 0]], local[local >= 0])


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 400),
    skew=st.sampled_from([0.0, 0.5]),
    sizes=st.sampled_from(SIZES),
    seed=st.integers(0, 99),
)
def test_products_cover_the_rows_and_have_allowed_sizes(
    tokens: int, skew: float, sizes: Sizes, seed: int
) -> None:
    tiles = plan_tiles(draw_ids(tokens, 2, 8, skew, seed), 8, sizes)
    assert tiles.block in (0, *sizes.rows)
    of_row = [np.repeat(np.arange(8), tiles.block)]
    for tail in tiles.tails:
        assert tail.size in sizes.rows
        assert tail.experts == sizes.tail_batch
        assert tail.start == sum(map(len, of_row))
        of_row.append(np.repeat(np.arange(tail.first, tail.first + tail.experts), tail.size))
    np.testing.assert_array_equal(np.concatenate(of_row), tiles.expert)


def test_rows_of_an_expert_are_in_the_order_of_their_tokens() -> None:
    tiles = plan_tiles(draw_ids(200, 2, 8, 0.1, 0), 8, Sizes((64, 96), 1))
    for expert in range(8):
        tokens = tiles.token[(tiles.expert == expert) & (tiles.token >= 0)]
        assert (np.diff(tokens) > 0).all()


def test_one_busy_expert_costs_a_tail_and_not_larger_blocks() -> None:
    ids = np.concatenate([np.full(500, 3), np.arange(60)])[:, None]
    tiles = plan_tiles(ids, 60, Sizes((64, 128, 256, 512), 1))
    assert tiles.block == 64
    assert [tail.first for tail in tiles.tails] == [3]


def test_a_pass_of_few_tokens_computes_their_experts_only() -> None:
    tiles = plan_tiles(np.array([[3, 50], [50, 7]]), 60, Sizes((64, 128), 1))
    assert tiles.block == 0
    assert [tail.first for tail in tiles.tails] == [3, 7, 50]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_agreeing_sizes_really_agree(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 512, 704, generator=generator).to(dtype)
    sizes = agreeing_sizes([weight], 100)
    assert sizes.rows[-1] >= 128
    rows = torch.randn(1, 256, 512, generator=generator).to(dtype)
    longest = rows[:, : sizes.rows[-1]].expand(6, -1, -1).contiguous()
    seen, whole = set(), torch.bmm(longest, weight)[0].double()
    for size in sizes.rows:
        for batch in (sizes.tail_batch, 6):
            x = rows[:, :size].expand(batch, -1, -1).contiguous()
            found = torch.bmm(x, weight[:batch])[0].double()
            seen.add(found[:64].numpy().tobytes())
            assert torch.equal(found, whole[:size])
    assert len(seen) == 1


def test_sizes_that_round_differently_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.bmm

    def odd(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """A library that rounds products of fewer than 96 rows, or of one expert, differently."""
        return real(x, w) + (1e-3 if x.shape[1] < 96 or len(x) == 1 else 0.0)

    monkeypatch.setattr(torch, "bmm", odd)
    assert agreeing_sizes([torch.randn(6, 16, 24)], 60) == Sizes((96, 128), 2)


def test_sizes_whose_last_rows_round_differently_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = torch.bmm

    def odd(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """A library that multiplies the rows after a multiple of 64 with another kernel."""
        out = real(x, w)
        out[:, out.shape[1] // 64 * 64 :] += 1e-3
        return out

    monkeypatch.setattr(torch, "bmm", odd)
    assert agreeing_sizes([torch.randn(6, 16, 24)], 60) == Sizes((64, 128), 1)
