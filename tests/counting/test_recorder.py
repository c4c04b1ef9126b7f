"""The recorder: every way of counting wrongly is caught, and reused slots are empty."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparcom.components import Site
from sparcom.counting import recorder as recorder_module
from sparcom.counting.conservation import check_conservation, check_signs_conserved
from sparcom.counting.recorder import Recorder
from sparcom.errors import CountError, InputError

DENSE = (Site("dense", 0, 6, "silu"), Site("dense", 1, 9, "gelu", gated=False))
IDS, TOKENS = ("a", "b"), (3, 4)
SLOTS = [0, 0, 0, -1, 1, 1, 1, 1, -1]  # the rows of one pass: 3 of a, 4 of b, two not counted


def gates(seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """(gate, up) of every site for the pass of `SLOTS`."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(SLOTS)
    return [
        (
            torch.randn(rows, s.width, generator=generator),
            torch.randn(rows, s.width, generator=generator) if s.gated else None,
        )
        for s in DENSE
    ]


def begun(slots: list[int] = SLOTS, **options) -> Recorder:
    recorder = Recorder(DENSE, 3, **options)
    recorder.begin(torch.tensor(slots))
    return recorder


def by_hand(slot: int, seed: int = 0) -> list[int]:
    of = torch.tensor(SLOTS) == slot
    return [int(v) for gate, _ in gates(seed) for v in (gate[of] > 0).sum(0)]


def run(recorder: Recorder, seed: int = 0) -> None:
    for site, (gate, up) in enumerate(gates(seed)):
        recorder.count(site, gate, up)


@pytest.mark.parametrize("verify", [False, True])
def test_counts_are_those_by_hand(verify: bool) -> None:
    recorder = begun(verify=verify)
    run(recorder)
    counted = recorder.take(IDS, (0, 1), TOKENS)
    assert counted.ids == IDS
    assert counted.tokens.tolist() == list(TOKENS)
    assert counted.neurons.tolist() == [by_hand(0), by_hand(1)]
    assert counted.experts.shape == (2, 0)


def test_uncounted_rows_are_computed_too() -> None:
    gate, up = gates()[0]
    out = begun().count(0, gate, up)
    torch.testing.assert_close(out, torch.nn.functional.silu(gate) * up)


# -- each way of counting wrongly -----------------------------------------------------------------


def never_called(recorder: Recorder) -> None:
    recorder.count(0, *gates()[0])


def called_twice(recorder: Recorder) -> None:
    run(recorder)
    recorder.count(1, *gates()[1])


def pass_repeated(recorder: Recorder) -> None:
    run(recorder)
    recorder.begin(torch.tensor(SLOTS))
    run(recorder)


def row_lost(recorder: Recorder) -> None:
    recorder.begin(torch.tensor([0, 0, -1, *SLOTS[3:]]))
    run(recorder)


def row_of_another(recorder: Recorder) -> None:
    recorder.begin(torch.tensor([0, 0, 1, *SLOTS[3:]]))
    run(recorder)


def padding_counted(recorder: Recorder) -> None:
    recorder.begin(torch.tensor([*SLOTS[:-1], 1]))
    run(recorder)


def left_over_from_before(recorder: Recorder) -> None:
    run(recorder)
    recorder.begin(torch.tensor([0] + [-1] * 8))
    run(recorder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (never_called, "layer1.dense saw 0 rows of instruction a, expected 3; 2 of 2"),
        (called_twice, "layer1.dense saw 6 rows of instruction a, expected 3; 2 of 2"),
        (pass_repeated, "layer0.dense saw 6 rows of instruction a, expected 3"),
        (row_lost, "layer0.dense saw 2 rows of instruction a, expected 3; 1 of 2"),
        (row_of_another, "layer0.dense saw 2 rows of instruction a, expected 3; 2 of 2"),
        (padding_counted, "layer0.dense saw 5 rows of instruction b, expected 4; 1 of 2"),
        (left_over_from_before, "layer0.dense saw 4 rows of instruction a, expected 3; 1 of 2"),
    ],
)
def test_rows_that_are_not_conserved_are_named(
    wrong: Callable[[Recorder], None], message: str
) -> None:
    recorder = begun()
    wrong(recorder)
    with pytest.raises(CountError, match=message):
        recorder.take(IDS, (0, 1), TOKENS)


def test_a_pass_of_another_size_is_refused_at_once() -> None:
    recorder = begun()
    with pytest.raises(CountError, match=r"layer0.dense: got 8 rows, but the pass has 9"):
        recorder.count(0, gates()[0][0][:8], None)


MIXED = (
    Site("dense", 0, 3, "silu"),
    Site("routed", 1, 2, "silu", experts=3, top_k=2),
    Site("shared", 1, 4, "silu"),
)


def conserved(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, neurons, rows) of two instructions, all conserved."""
    rng = np.random.default_rng(seed)
    tokens = np.array([5, 8])
    rows = np.array([[5, 4, 5, 1, 5], [8, 8, 0, 8, 8]], np.int32)  # dense, three experts, shared
    of_neuron = np.repeat([0, 1, 1, 2, 2, 3, 3, 4], [3, 1, 1, 1, 1, 1, 1, 4])
    neurons = rng.integers(0, rows[:, of_neuron] + 1).astype(np.int32)
    return tokens, neurons, rows


@given(st.integers(0, 10_000))
def test_conserved_counts_pass(seed: int) -> None:
    check_conservation(MIXED, IDS, *conserved(seed))


@given(st.integers(0, 10_000), st.integers(0, 1), st.integers(0, 4), st.sampled_from((-1, 1)))
def test_one_row_more_or_less_anywhere_is_caught(seed, instruction, at, change) -> None:
    tokens, neurons, rows = conserved(seed)
    rows[instruction, at] += change
    site = ("layer0.dense", "layer1.routed", "layer1.routed", "layer1.routed", "layer1.shared")[at]
    with pytest.raises(CountError, match=f"{site} saw .* instruction {IDS[instruction]}, expected"):
        check_conservation(MIXED, IDS, tokens, neurons, rows)


@given(st.integers(0, 10_000), st.integers(0, 1), st.integers(0, 12), st.integers(1, 9))
def test_one_firing_over_the_rows_of_its_bin_is_caught(seed, instruction, neuron, over) -> None:
    """c <= r for each expert: an expert's neurons fire only in its own rows."""
    tokens, neurons, rows = conserved(seed)
    of_neuron = [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4][neuron]
    neurons[instruction, neuron] = rows[instruction, of_neuron] + over
    with pytest.raises(CountError, match=f"firings of a neuron in instruction {IDS[instruction]} "):
        check_conservation(MIXED, IDS, tokens, neurons, rows)


@given(st.integers(0, 10_000), st.integers(0, 1), st.integers(0, 12))
def test_a_negative_count_is_caught_and_its_instruction_named(seed, instruction, neuron) -> None:
    tokens, neurons, rows = conserved(seed)
    neurons[instruction, neuron] = -1
    with pytest.raises(CountError, match=rf"instruction {IDS[instruction]} .lowest count -1"):
        check_conservation(MIXED, IDS, tokens, neurons, rows)


def test_rows_moved_between_experts_keep_their_sum_but_not_their_firings() -> None:
    tokens, neurons, rows = conserved()
    neurons[0, 3] = 4  # the first expert fires in all of its rows
    rows[0, 1:4] = (3, 5, 2)
    with pytest.raises(CountError, match=r"counts 4 firings .* but saw \[3, 5, 2\] rows"):
        check_conservation(MIXED, IDS, tokens, neurons, rows)


# -- routed sites ---------------------------------------------------------------------------------


def routed_pass(recorder: Recorder, keep: slice = slice(None)) -> tuple[torch.Tensor, ...]:
    """Four tokens of two slots and one of none, top 2 of three experts, ordered by expert; `keep`:
    the rows that reach the site. Returns (gate, slot and expert of each row)."""
    routing = torch.tensor([[0, 1], [0, 2], [1, 2], [0, 1], [0, 2]])
    slots = torch.tensor([0, 0, 1, 1, -1])
    expert, order = routing.flatten().sort(stable=True)
    expert, token = expert[keep].int(), (order // 2)[keep]
    gate = torch.randn(len(token), 2, generator=torch.Generator().manual_seed(0))
    recorder.begin(slots)
    out = recorder.count_routed(0, gate, gate.clone(), token, expert)
    torch.testing.assert_close(out, torch.nn.functional.silu(gate) * gate)
    return gate, slots[token], expert


def test_routed_sites_count_by_slot_and_expert() -> None:
    recorder = Recorder([MIXED[1]], 2, verify=True)
    gate, slots, experts = routed_pass(recorder)
    counted = recorder.take(IDS, (0, 1), (2, 2))
    assert counted.experts.tolist() == [[2, 1, 1], [1, 2, 1]]
    for slot in (0, 1):
        expected = [
            int((gate[(slots == slot) & (experts == e), unit] > 0).sum())
            for e in range(3)
            for unit in range(2)
        ]
        assert counted.neurons[slot].tolist() == expected


def test_rows_of_no_token_are_not_counted() -> None:
    """Tiles are padded: their spare rows have token -1."""
    recorder = Recorder([MIXED[1]], 1, verify=True)
    recorder.begin(torch.tensor([0]))
    token, expert = torch.tensor([0, -1, 0, -1]), torch.tensor([0, 0, 2, 2], dtype=torch.int32)
    recorder.count_routed(0, torch.ones(4, 2), None, token, expert)
    counted = recorder.take(("a",), (0,), (1,))
    assert counted.experts.tolist() == [[1, 0, 1]]
    assert counted.neurons.tolist() == [[1, 1, 0, 0, 1, 1]]


def test_a_routed_row_that_was_dropped_is_caught() -> None:
    recorder = Recorder([MIXED[1]], 2)
    routed_pass(recorder, slice(1, None))
    with pytest.raises(CountError, match=r"layer1.routed saw 3 rows of instruction a, expected 4"):
        recorder.take(IDS, (0, 1), (2, 2))


@pytest.mark.parametrize("wrong", [3, 4, -2])
def test_an_unknown_expert_is_caught(wrong: int) -> None:
    """Ids on a GPU are not checked: these would count for another slot."""
    recorder = Recorder([MIXED[1]], 2)
    recorder.begin(torch.tensor([0, 1]))
    token, expert = torch.tensor([0, 0, 1, 1]), torch.tensor([0, wrong, 0, 1], dtype=torch.int32)
    recorder.count_routed(0, torch.ones(4, 2), None, token, expert)
    with pytest.raises(CountError, match=r"saw 1 rows of instruction a, expected 2"):
        recorder.take(IDS, (0, 1), (1, 1))


# -- verify ---------------------------------------------------------------------------------------


def miscounting(monkeypatch: pytest.MonkeyPatch, harm: Callable) -> None:
    real = recorder_module.act_mul_count

    def kernel(gate, up, bins, counts, rows, **options):
        out = real(gate, up, bins, counts, rows, **options)
        harm(counts, rows)
        return out

    monkeypatch.setattr(recorder_module, "act_mul_count", kernel)


def moves_one(counts: torch.Tensor, rows: torch.Tensor) -> None:
    """One count moves from a neuron to another, which breaks no conservation rule."""
    source = int(counts[0].argmax())
    counts[0, source] -= 1
    counts[0, int(counts[0].argmin())] += 1


def test_verify_catches_a_kernel_that_miscounts(monkeypatch: pytest.MonkeyPatch) -> None:
    miscounting(monkeypatch, moves_one)
    recorder = begun(verify=True)
    run(recorder)
    with pytest.raises(CountError, match=r"verify: \d counts differ .* instruction a, column"):
        recorder.take(IDS, (0, 1), TOKENS)
    blind = begun()
    run(blind)
    assert blind.take(IDS, (0, 1), TOKENS).neurons.tolist()[0] != by_hand(0)  # why verify exists


def test_verify_catches_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def sees_one_more(counts: torch.Tensor, rows: torch.Tensor) -> None:
        rows[2] += 1

    miscounting(monkeypatch, sees_one_more)
    recorder = begun(verify=True)
    run(recorder)
    with pytest.raises(CountError, match=r"verify: 2 rows differ .* instruction c, column 0"):
        recorder.take(("c",), (2,), (0,))


@pytest.mark.parametrize("options", [{"threshold": 0.3}, {"signal": "product"}])
def test_verify_agrees_for_every_signal_and_threshold(options: dict) -> None:
    recorder = begun(verify=True, **options)
    run(recorder)
    counted = recorder.take(IDS, (0, 1), TOKENS)
    assert counted.neurons[0].tolist() != by_hand(0)


# -- slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_a_slot_is_empty_after_take(verify: bool) -> None:
    recorder = begun(verify=verify)
    for seed in (1, 2):
        recorder.begin(torch.tensor(SLOTS))
        run(recorder, seed)
        counted = recorder.take(IDS, (0, 1), TOKENS)
        assert counted.neurons.tolist() == [by_hand(0, seed), by_hand(1, seed)]


def test_taking_one_slot_leaves_the_others() -> None:
    recorder = begun()
    run(recorder)
    assert recorder.take(("b",), (1,), (4,)).neurons.tolist() == [by_hand(1)]
    assert recorder.take(("a",), (0,), (3,)).neurons.tolist() == [by_hand(0)]


@pytest.mark.parametrize("verify", [False, True])
def test_discard_forgets_an_unfinished_pass(verify: bool) -> None:
    recorder = begun(verify=verify)
    never_called(recorder)
    recorder.discard()
    recorder.begin(torch.tensor(SLOTS))
    run(recorder)
    assert recorder.take(IDS, (0, 1), TOKENS).neurons.tolist() == [by_hand(0), by_hand(1)]


def test_drop_forgets_only_some_slots() -> None:
    recorder = begun(verify=True)
    run(recorder)
    recorder.drop([0])
    assert recorder.take(("b",), (1,), (4,)).neurons.tolist() == [by_hand(1)]
    with pytest.raises(CountError, match="saw 0 rows of instruction a"):
        recorder.take(("a",), (0,), (3,))


def test_a_prompt_of_many_passes_adds_up() -> None:
    """Chunked prefill: the slot is taken once, after all of its rows."""
    recorder = begun()
    run(recorder, 1)
    recorder.begin(torch.tensor(SLOTS))
    run(recorder, 2)
    counted = recorder.take(("a",), (0,), (6,))
    assert counted.neurons[0].tolist() == np.add(by_hand(0, 1), by_hand(0, 2)).tolist()


def test_the_returned_counts_are_a_copy() -> None:
    recorder = begun()
    run(recorder)
    counted = recorder.take(IDS, (0, 1), TOKENS)
    recorder.begin(torch.tensor(SLOTS))
    run(recorder, 5)
    assert counted.neurons.tolist() == [by_hand(0), by_hand(1)]


def test_nbytes_is_the_size_of_the_buffers() -> None:
    recorder = Recorder(MIXED, 5)
    buffers = (*recorder._buffers.counts, *recorder._buffers.rows)
    assert recorder.nbytes == sum(b.numel() * b.element_size() for b in buffers)


# -- signs ----------------------------------------------------------------------------------------

GATED = (DENSE[0], Site("routed", 1, 5, "silu", experts=3, top_k=2))


def passed_with_signs(**options) -> tuple[Recorder, dict[str, list[torch.Tensor]]]:
    """A recorder after the pass of `SLOTS`, and by hand: instruction -> up > 0, both > 0."""
    recorder = Recorder(GATED, 3, signs=True, **options)
    recorder.begin(torch.tensor(SLOTS))
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(2, n, s.width, generator=generator).bfloat16()
             for n, s in zip((9, 18), GATED, strict=True)]  # fmt: skip
    expert = torch.tensor([0, 1] * 3 + [2, 0] * 3 + [1, 2] * 3, dtype=torch.int32)
    token = torch.arange(18) // 2
    recorder.count(0, *draws[0])
    recorder.count_routed(1, *draws[1], token, expert)
    plain: dict[str, list[torch.Tensor]] = {}
    for slot, name in enumerate(IDS):
        rows = torch.tensor(SLOTS) == slot
        whole = []
        for sign in ((lambda g, u: u > 0), (lambda g, u: (g > 0) & (u > 0))):
            dense = sign(*draws[0][:, rows]).sum(0)
            routed = [sign(*draws[1][:, rows[token] & (expert == e)]).sum(0) for e in range(3)]
            whole.append(torch.cat([dense, *routed]))
        plain[name] = whole
    return recorder, plain


@pytest.mark.parametrize("verify", [False, True])
def test_signs_are_those_by_hand(verify: bool) -> None:
    recorder, plain = passed_with_signs(verify=verify)
    signs = recorder.take(IDS, (0, 1), TOKENS).signs
    assert signs is not None
    assert signs.shape == (2, 2, 6 + 15)
    for row, name in enumerate(IDS):
        assert signs[:, row].tolist() == [x.tolist() for x in plain[name]]
    recorder.begin(torch.tensor([-1]))
    empty = recorder.take(("c",), (0,), (0,)).signs
    assert empty is not None
    assert not empty.any()  # the slot was cleared


def test_signs_take_three_times_the_counters() -> None:
    neurons, bins = sum(s.neurons for s in GATED), sum(s.bins for s in GATED)
    assert Recorder(GATED, 3, signs=True).nbytes == 4 * 3 * (3 * neurons + bins)
    assert Recorder(GATED, 3).take((), (), ()).signs is None


def test_signs_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="signs: the FFN has no up projection"):
        Recorder(DENSE, 3, signs=True)
    with pytest.raises(InputError, match=r"signs: the threshold must be 0 .* got 0\.5"):
        Recorder(GATED, 3, signs=True, threshold=0.5)


def test_a_wrong_sign_is_found_by_the_recount() -> None:
    recorder, _ = passed_with_signs(verify=True)
    recorder._buffers.signs[1][0, 0, 0] += 1
    with pytest.raises(CountError, match="verify: 1 signs differ from plain torch; .* a, column 6"):
        recorder.take(IDS, (0, 1), TOKENS)


@pytest.mark.parametrize(
    ("gate", "up", "both"), [(2, 3, 3), (3, 2, 3), (3, 4, 1), (0, 0, -1), (5, 5, 4)]
)
def test_signs_are_conserved(gate: int, up: int, both: int) -> None:
    sites = (Site("dense", 0, 2, "silu"),)
    neurons, rows = np.array([[0, gate]], np.int32), np.array([[5]], np.int32)
    signs = np.array([[[0, up]], [[0, both]]], np.int32)
    with pytest.raises(CountError, match=rf"layer0.dense counts .* \[{gate}, {up}, {both}\] times"):
        check_signs_conserved(sites, ("a",), neurons, signs, rows)
    signs[:, 0, 1] = 5 - gate, 0
    check_signs_conserved(sites, ("a",), neurons, signs, rows)
