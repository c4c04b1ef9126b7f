"""Magnitudes by slot against plain loops over rows."""

import math

import numpy as np
import pytest
import torch

from sparcom.components import Site
from sparcom.counting.magnitudes import EXPERTS, NEURONS, Magnitudes
from sparcom.counting.recorder import Recorder

SITES = (Site("dense", 0, 6, "gelu", gated=False), Site("routed", 1, 5, "silu", experts=3, top_k=2))
SLOTS = [0, 0, 0, -1, 1, 1, 1, 1, -1]
EXPERT_OF = [[0, 1], [2, 0], [1, 2], [0, 1], [2, 1], [0, 2], [1, 0], [2, 0], [1, 2]]


def passed(dtype: torch.dtype) -> tuple[Recorder, dict[str, dict[str, list[float]]]]:
    """A recorder after one pass, and by hand: slot -> what should have been added up."""
    recorder = Recorder(SITES, 3, magnitudes=True)
    recorder.begin(torch.tensor(SLOTS))
    generator = torch.Generator().manual_seed(0)
    gate = torch.randn(9, 6, generator=generator).to(dtype)
    gate[3] = torch.nan  # a row that is not counted may hold anything
    routed = torch.randn(2, 18, 5, generator=generator).to(dtype)
    expert, token = torch.tensor(EXPERT_OF).flatten(), torch.arange(18) // 2
    h = [recorder.count(0, gate, None), recorder.count_routed(1, *routed, token, expert.int())]
    y = torch.randn(18, 7, generator=generator).to(dtype)
    weights = torch.rand(9, 2, generator=generator)
    recorder.add_outputs(1, y, torch.arange(18).view(9, 2), weights, torch.tensor(EXPERT_OF))
    return recorder, {name: by_hand(slot, h, y, weights) for slot, name in enumerate("abc")}


def by_hand(slot: int, h: list, y: torch.Tensor, weights: torch.Tensor) -> dict[str, list[float]]:
    values: list[list[float]] = [[] for _ in range(6 + 15)]
    outputs: list[list[tuple[float, float]]] = [[] for _ in range(3)]
    for row, of in enumerate(SLOTS):
        if of != slot:
            continue
        for unit in range(6):
            values[unit].append(float(h[0][row, unit]))
        for k, expert in enumerate(EXPERT_OF[row]):
            for unit in range(5):
                values[6 + 5 * expert + unit].append(float(h[1][2 * row + k, unit]))
            norm = math.sqrt(math.fsum(float(v) ** 2 for v in y[2 * row + k]))
            outputs[expert].append((float(weights[row, k]), norm))
    return {
        "sums": [math.fsum(v) for v in values],
        "absolutes": [math.fsum(map(abs, v)) for v in values],
        "largest": [max(v, default=-math.inf) for v in values],
        "weights": [math.fsum(g for g, _ in o) for o in outputs],
        "norms": [math.fsum(n for _, n in o) for o in outputs],
        "squares": [math.fsum(n * n for _, n in o) for o in outputs],
        "products": [math.fsum(g * n for g, n in o) for o in outputs],
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_magnitudes_are_those_by_hand(dtype: torch.dtype) -> None:
    recorder, plain = passed(dtype)
    counted = recorder.take(("a", "b"), (0, 1), (3, 4))
    for name in (*NEURONS, *EXPERTS):
        found = getattr(counted.magnitudes, name)
        expected = [plain["a"][name], plain["b"][name]]
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)
    recorder.begin(torch.tensor([-1]))
    empty = recorder.take(("c",), (0,), (0,)).magnitudes  # the slot was cleared
    for name in (*NEURONS, *EXPERTS):
        np.testing.assert_array_equal(getattr(empty, name), [plain["c"][name]])


def test_what_is_dropped_is_forgotten() -> None:
    for forget in (lambda r: r.drop([0, 1]), lambda r: r.discard()):
        recorder, plain = passed(torch.float32)
        forget(recorder)
        recorder.begin(torch.tensor([-1]))
        left = recorder.take(("a", "b"), (0, 1), (0, 0)).magnitudes
        for name in (*NEURONS, *EXPERTS):
            np.testing.assert_array_equal(getattr(left, name), [plain["c"][name]] * 2)


def test_bytes_of_the_buffers_and_of_a_message() -> None:
    plain, more = Recorder(SITES, 3), Recorder(SITES, 3, magnitudes=True)
    neurons, experts = sum(s.neurons for s in SITES), 3
    spare = 8 * (3 * (6 + 5) + 4)  # a row more at each site
    assert more.nbytes - plain.nbytes == 3 * (3 * neurons + 4 * experts) * 8 + spare
    recorder, _ = passed(torch.float32)
    sent = recorder.take(("a", "b"), (0, 1), (3, 4)).magnitudes
    got = Magnitudes.from_bytes(sent.to_bytes(), 2, neurons, experts)
    for name in (*NEURONS, *EXPERTS):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


def test_a_pass_that_chooses_none_of_the_experts_here_adds_nothing() -> None:
    """As a worker sees it that holds some of the experts."""
    recorder, plain = passed(torch.float32)
    nowhere = torch.full((9, 2), -1)
    recorder.add_outputs(1, torch.zeros(0, 7), nowhere, torch.rand(9, 2), nowhere)
    found = recorder.take(("a",), (0,), (3,)).magnitudes
    for name in EXPERTS:
        np.testing.assert_allclose(getattr(found, name), [plain["a"][name]], rtol=1e-14, atol=1e-14)
