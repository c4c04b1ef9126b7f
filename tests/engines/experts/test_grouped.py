"""Grouped experts: their parts, and workers that have some of a layer's experts."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom import native
from sparcom.components import Site
from sparcom.counting.ops import act_mul_count
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts import grouped as experts_module
from sparcom.engines.experts.grouped import (
    GroupedExperts,
    Workspace,
    can_pack,
    check_routing,
    grouped_product,
    pack,
    route,
    routed_experts,
    weighted_sum,
)
from sparcom.engines.experts.tiles import Sizes
from sparcom.errors import CountError

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 40),
    top_k=st.integers(1, 5),
    width=st.sampled_from([1, 16, 31, 64, 100]),
    dtype=st.sampled_from(DTYPES),
    same=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_weighted_sum_rounds_as_transformers_does(
    tokens: int, top_k: int, width: int, dtype: torch.dtype, same: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(60, width, generator=generator).to(dtype)
    row = torch.randint(-1, 60, (tokens, top_k), generator=generator)
    weights = torch.rand(tokens, top_k, generator=generator).to(dtype if same else torch.float32)
    products = y[row] * weights[:, :, None] * (row >= 0)[:, :, None]
    plain = torch.zeros(tokens, width)
    for k in range(top_k):  # torch may add up in another order
        plain += products[:, k].float()
    assert torch.equal(weighted_sum(y, row, weights), plain.to(dtype))


def test_the_weighted_sum_writes_to_strided_memory_and_refuses_unknown_rows() -> None:
    y, out = torch.ones(3, 8), torch.zeros(2, 16)
    weighted_sum(y, torch.tensor([[0, 1], [2, -1]]), torch.ones(2, 2), out[:, :8])
    assert out[:, :8].tolist() == [[2.0] * 8, [1.0] * 8]
    assert out[:, 8:].sum() == 0
    with pytest.raises(ValueError, match="row must be below the 3 rows of y, got 3"):
        weighted_sum(y, torch.tensor([[3]]), torch.ones(1, 1))


def bank(local: tuple[int, ...], site: Site, gate_up, down) -> tuple[GroupedExperts, Recorder]:
    some = local or tuple(range(site.experts))
    part = Site("routed", 0, site.width, "silu", experts=len(some), top_k=site.top_k)
    recorder = Recorder([part], 2, partial=[0] if local else [])
    weights = gate_up[list(some)], down[list(some)]
    sizes = Sizes((8, 16), 1)
    return GroupedExperts(*weights, site, 0, recorder, Workspace(), sizes, "bank", local), recorder


def test_banks_that_share_a_layers_experts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    site = Site("routed", 0, 12, "silu", experts=6, top_k=2)
    gate_up = torch.randn(6, 16, 24, generator=generator)
    down = torch.randn(6, 12, 16, generator=generator)
    hidden = torch.randn(50, 16, generator=generator)
    ids = torch.rand(50, 6, generator=generator).topk(2).indices
    weights = torch.rand(50, 2, generator=generator)
    slots = torch.arange(50, dtype=torch.int32) % 3 - 1
    tokens = [int((slots == s).sum()) for s in (0, 1)]
    found = []
    for local in ((), (4, 0, 2), (1, 3, 5)):
        experts, recorder = bank(local, site, gate_up, down)
        recorder.begin(slots)
        found.append((experts(hidden, ids, weights), recorder.take(["a", "b"], [0, 1], tokens)))
    (whole, counted), *parts = found
    torch.testing.assert_close(sum(y for y, _ in parts), whole)
    order = [4, 0, 2, 1, 3, 5]
    neurons = [part.neurons.reshape(2, 3, 12) for _, part in parts]
    np.testing.assert_array_equal(
        np.concatenate(neurons, 1), counted.neurons.reshape(2, 6, 12)[:, order]
    )
    routed = np.concatenate([part.experts for _, part in parts], 1)
    np.testing.assert_array_equal(routed, counted.experts[:, order])


def test_a_whole_bank_with_missing_rows_and_a_partial_one_with_too_many_are_caught() -> None:
    site = Site("routed", 0, 4, "silu", experts=3, top_k=2)
    whole, partial = Recorder([site], 1), Recorder([site], 1, partial=[0])
    for recorder, rows in ((whole, 3), (partial, 5)):
        recorder.begin(torch.zeros(2, dtype=torch.int32))
        gate, token = torch.ones(rows, 4), torch.arange(rows) % 2
        recorder.count_routed(0, gate, gate, token, torch.arange(rows, dtype=torch.int32) % 3)
        with pytest.raises(CountError, match=f"saw {rows} rows of instruction a, expected 4"):
            recorder.take(["a"], [0], [2])


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.integers(0, 60),
    top_k=st.integers(1, 4),
    local=st.sampled_from([(), (4, 0, 2), (5,)]),
    kind=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 99),
)
def test_rows_are_laid_out_by_expert_and_token(tokens, top_k, local, kind, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    site = Site("routed", 0, 8, "silu", experts=6, top_k=top_k)
    ids = torch.rand(tokens, 6, generator=generator).topk(top_k).indices.to(kind)
    slots = torch.randint(-1, 3, (tokens,), dtype=torch.int32, generator=generator)
    some = list(local or range(6))
    index = None
    if local:
        index = np.full(6, -1, np.int64)
        index[some] = np.arange(len(some))
    token, row_of_id, begin, bins = route(ids, index, site, len(some), slots)
    rows = [
        (e, t, int(slots[t]) * len(some) + e if slots[t] >= 0 else -1)
        for e, expert in enumerate(some)
        for t in range(tokens)
        if expert in ids[t].tolist()
    ]
    assert token.tolist() == [t for _, t, _ in rows]
    assert bins.tolist() == [b for _, _, b in rows]
    assert np.diff(begin).tolist() == [sum(e == row[0] for row in rows) for e in range(len(some))]
    for t in range(tokens):
        for k in range(top_k):
            row = int(row_of_id[t, k])
            expert = int(ids[t, k])
            assert (row >= 0) == (expert in some)
            if row >= 0:
                assert rows[row][:2] == (some.index(expert), t)


@pytest.mark.parametrize(
    "ids", [[[0, 6]], [[-1, 0]], [[1, 2], [3, 3]], [[1, 2, 3]], [1, 2]],
    ids=["beyond", "below", "twice", "three", "flat"],
)  # fmt: skip
def test_wrong_routing_is_refused(ids: list) -> None:
    site = Site("routed", 0, 8, "silu", experts=6, top_k=2)
    wrong = torch.tensor(ids)
    assert route(wrong, None, site, 6, torch.zeros(len(ids), dtype=torch.int32)) is None
    with pytest.raises(CountError):
        check_routing(wrong, site, "experts")


# -- packed weights, where the processor has AMX ---------------------------------------------------

amx = pytest.mark.skipif(not native.cpu().has_amx(), reason="this processor has no AMX for bf16")


@amx
@settings(max_examples=30, deadline=None)
@given(
    load=st.lists(st.integers(0, 70), min_size=1, max_size=6),
    inputs=st.sampled_from([32, 96, 352]),
    outputs=st.sampled_from([32, 288, 512]),
    seed=st.integers(0, 99),
)
def test_a_grouped_product_is_right_and_a_row_does_not_depend_on_its_group(
    load: list[int], inputs: int, outputs: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(load), outputs, inputs, generator=generator).bfloat16()
    x = torch.randn(sum(load), inputs, generator=generator).bfloat16()
    begin = np.concatenate([[0], np.cumsum(load)])
    out = torch.full((len(x), outputs), torch.nan, dtype=torch.bfloat16)
    grouped_product(x, pack(weight), begin, out)
    for group, (start, stop) in enumerate(itertools.pairwise(begin)):
        exact = x[start:stop].double() @ weight[group].double().T
        bound = 2**-8 * exact.abs() + 1e-3  # half a unit of bf16, and the sum's own rounding
        assert ((out[start:stop].double() - exact).abs() <= bound).all()
        for row in range(start, stop, 13):
            one = np.array([0, 1])
            alone = torch.empty(1, outputs, dtype=torch.bfloat16)
            grouped_product(x[row : row + 1], pack(weight[group : group + 1]), one, alone)
            assert torch.equal(alone[0], out[row])


@amx
@settings(max_examples=40, deadline=None)
@given(
    load=st.lists(st.integers(0, 150), min_size=1, max_size=5),
    hidden=st.sampled_from([32, 96, 512]),
    width=st.sampled_from([32, 160, 352]),
    gated=st.booleans(),
    activation=st.sampled_from(["silu", "gelu_tanh", "relu2"]),
    signal=st.sampled_from(["gate", "product"]),
    threshold=st.sampled_from([0.0, 0.1]),
    threads=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 99),
)
def test_routed_experts_are_their_steps_bit_for_bit(
    load, hidden, width, gated, activation, signal, threshold, threads, seed
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, outputs = sum(load), width * (1 + gated)
    x = torch.randn(60, hidden, generator=generator).bfloat16()
    gate_up = pack(torch.randn(len(load), outputs, hidden, generator=generator).bfloat16() / 8)
    down = pack(torch.randn(len(load), hidden, width, generator=generator).bfloat16() / 8)
    token = torch.randint(0, 60, (rows,), generator=generator)
    bins = torch.randint(-1, 3, (rows,), dtype=torch.int32, generator=generator).sort().values
    begin, options = np.concatenate([[0], np.cumsum(load)]), (activation, signal, threshold)

    def zeros() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        counts, rows = torch.ones(3, width, dtype=torch.int32), torch.ones(3, dtype=torch.int32)
        return counts, rows, torch.ones(2, 3, width, dtype=torch.int32) if signed else None

    signed = gated and options[1:] == ("gate", 0.0)
    between = torch.empty(rows, outputs, dtype=torch.bfloat16)
    grouped_product(x[token], gate_up, begin, between)
    gate, up = between.chunk(2, 1) if gated else (between, None)
    counts, seen, signs = zeros()
    h = act_mul_count(gate, up, bins, counts, seen, activation=activation, signal=signal,
                      threshold=threshold, signs=signs)  # fmt: skip
    expected = torch.empty(rows, hidden, dtype=torch.bfloat16)
    grouped_product(h, down, begin, expected)

    found_counts, found_seen, found_signs = zeros()
    y = torch.full((rows, hidden), torch.nan, dtype=torch.bfloat16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        routed_experts(
            x, token, begin, gate_up, down, y, bins, found_counts, found_seen, found_signs, *options
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, expected)
    assert torch.equal(found_counts, counts)
    assert torch.equal(found_seen, seen)
    if signs is not None:
        assert torch.equal(found_signs, signs)


@amx
def test_routed_experts_refuse_unknown_tokens_and_bins() -> None:
    x, y = torch.ones(2, 32).bfloat16(), torch.zeros(2, 32).bfloat16()
    gate_up, down = torch.ones(1, 64, 32).bfloat16(), torch.ones(1, 32, 32).bfloat16()
    counts, seen = torch.zeros(1, 32, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    for token, bins, message in (
        ([0, 2], [0, 0], r"token\[1\] must be in \[0, 2\), got 2"),
        ([-1, 0], [0, 0], r"token\[0\] must be in \[0, 2\), got -1"),
        ([0, 1], [0, 1], r"bins\[1\] must be "),
    ):
        with pytest.raises(ValueError, match=message):
            routed_experts(
                x, torch.tensor(token), np.array([0, 2]), gate_up, down, y,
                torch.tensor(bins, dtype=torch.int32), counts, seen, None, "silu", "gate", 0.0,
            )  # fmt: skip
    assert y.abs().sum() + counts.sum() + seen.sum() == 0


@amx
@pytest.mark.parametrize("local", [(), (4, 0, 2)])
def test_packed_experts_in_one_pass_and_in_steps_are_equal(monkeypatch, local: tuple) -> None:
    generator = torch.Generator().manual_seed(0)
    site = Site("routed", 0, 64, "silu", experts=6, top_k=2)
    some = list(local or range(6))
    part = Site("routed", 0, 64, "silu", experts=len(some), top_k=2)
    weights = [
        pack(torch.randn(6, *shape, generator=generator).bfloat16()[some] / 8)
        for shape in ((128, 96), (96, 64))
    ]
    hidden = torch.randn(200, 96, generator=generator).bfloat16()
    ids = torch.rand(200, 6, generator=generator).topk(2).indices
    share, slots = torch.rand(200, 2, generator=generator), torch.arange(200) // 80 - 1
    found, called = [], []
    real = experts_module.routed_experts
    monkeypatch.setattr(
        experts_module, "routed_experts", lambda *a: (called.append(len(a)), real(*a))
    )
    for verify in (False, True):
        recorder = Recorder([part], 2, partial=[0] if local else [], verify=verify)
        recorder.begin(slots)
        experts = GroupedExperts(*weights, site, 0, recorder, Workspace(), None, "bank", local)
        y = experts(hidden, ids, share)
        found.append((y, recorder.take(["a", "b"], [0, 1], [80, 40])))
        assert len(called) == 1  # a recount sees the steps
    (ours, counted), (steps, expected) = found
    assert torch.equal(ours, steps)
    np.testing.assert_array_equal(counted.neurons, expected.neurons)
    np.testing.assert_array_equal(counted.experts, expected.experts)


@amx
def test_packed_experts_make_and_count_what_tiled_ones_do() -> None:
    generator = torch.Generator().manual_seed(0)
    site = Site("routed", 0, 64, "silu", experts=6, top_k=2)
    shapes = ((128, 96), (96, 64))
    weights = [torch.randn(6, *s, generator=generator).bfloat16() / 8 for s in shapes]
    hidden = torch.randn(80, 96, generator=generator).bfloat16()
    ids = torch.rand(80, 6, generator=generator).topk(2).indices
    share = torch.rand(80, 2, generator=generator)
    assert can_pack(*weights)
    assert not can_pack(weights[0].float())
    found = []
    for packed in (True, False):
        recorder = Recorder([site], 1, verify=True)
        recorder.begin(torch.zeros(80, dtype=torch.int32))
        laid = [pack(w) if packed else w.transpose(1, 2) for w in weights]
        sizes = None if packed else Sizes((64, 128), 1)
        experts = GroupedExperts(*laid, site, 0, recorder, Workspace(), sizes, "experts")
        found.append((experts(hidden, ids, share), recorder.take(["a"], [0], [80])))
    (ours, counted), (theirs, expected) = found
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    np.testing.assert_array_equal(counted.experts, expected.experts)
    apart = np.abs(counted.neurons - expected.neurons)
    assert apart.max() <= 1  # gates near zero, whose sums are rounded in another order
    assert (apart > 0).mean() < 0.01


def test_workers_that_share_every_expert_add_up_to_the_whole() -> None:
    """Tensor parallel: each holds half of the units of all experts, and sees all their rows."""
    generator = torch.Generator().manual_seed(0)
    site = Site("routed", 0, 12, "silu", experts=4, top_k=2)
    gate, up = torch.randn(2, 4, 16, 12, generator=generator)
    down = torch.randn(4, 12, 16, generator=generator)
    hidden = torch.randn(30, 16, generator=generator)
    ids = torch.rand(30, 4, generator=generator).topk(2).indices
    weights = torch.rand(30, 2, generator=generator)
    found = []
    for units in (slice(0, 12), slice(0, 6), slice(6, 12)):
        part = Site("routed", 0, units.stop - units.start, "silu", experts=4, top_k=2)
        recorder = Recorder([part], 1)
        recorder.begin(torch.zeros(30, dtype=torch.int32))
        gate_up = torch.cat([gate[..., units], up[..., units]], 2)
        laid = gate_up, down[:, units]
        experts = GroupedExperts(
            *laid, site, 0, recorder, Workspace(), Sizes((8, 16), 1), "experts"
        )
        found.append((experts(hidden, ids, weights), recorder.take(["a"], [0], [30])))
    (whole, counted), *halves = found
    torch.testing.assert_close(sum(y for y, _ in halves), whole)
    neurons = [half.neurons.reshape(4, 6) for _, half in halves]
    np.testing.assert_array_equal(np.concatenate(neurons, 1), counted.neurons.reshape(4, 12))
    for _, half in halves:
        np.testing.assert_array_equal(half.experts, counted.experts)
