"""How far two states lie apart, and which gates may change their sign."""

import numpy as np
import pytest
import torch

from sparcom.components import Site
from sparcom.engines.transformers.proof.compare import NEAR, Gates, difference, tolerance


def states(rows: int = 6, features: int = 5) -> torch.Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(0))


def test_the_difference_is_that_of_the_worst_row_as_a_share_of_its_size() -> None:
    plain = states()
    ours = plain.clone()
    ours[4, 2] += 0.5
    sizes = np.sqrt((plain.double().numpy() ** 2).mean(1))
    size = max(sizes[4], np.sort(sizes)[2])  # the lower median of six
    assert difference(ours, plain) == pytest.approx(0.5 / np.sqrt(5) / size, rel=1e-5)
    assert difference(plain, plain) == 0.0


def test_a_small_row_is_measured_by_the_size_of_most() -> None:
    plain = torch.ones(5, 4)
    plain[0] = 1e-6
    ours = plain.clone()
    ours[0] = 0.0
    assert difference(ours, plain) == pytest.approx(1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_differs_by_everything(value: float) -> None:
    plain = states()
    ours = plain.clone()
    ours[0, 0] = value
    assert difference(ours, plain) == float("inf")
    assert difference(plain, ours) == float("inf")


def test_states_of_zeros_agree() -> None:
    assert difference(torch.zeros(3, 2), torch.zeros(3, 2)) == 0.0
    assert difference(torch.ones(3, 2), torch.zeros(3, 2)) == float("inf")


@pytest.mark.parametrize(("dtype", "least", "most"), [
    (torch.float32, 1e-5, 1e-3), (torch.bfloat16, 2**-6, 0.1), (torch.float16, 2**-9, 0.02),
])  # fmt: skip
def test_the_tolerance_is_some_units_of_the_dtype(dtype, least, most) -> None:
    assert least < tolerance(dtype) < most


def test_counts_and_rows_of_gates_are_sums_over_their_calls() -> None:
    generator = torch.Generator().manual_seed(1)
    calls = [(e, torch.randn(rows, 3, generator=generator)) for e, rows in ((0, 4), (2, 1), (3, 5))]
    gates = Gates(Site("routed", 0, 3, "silu", experts=4, top_k=2), tuple(calls))
    expected = np.zeros((4, 3), np.int64)
    for expert, gate in calls:
        expected[expert] = (gate.numpy() > 0).sum(0)
    np.testing.assert_array_equal(gates.fired(), expected.ravel())
    np.testing.assert_array_equal(gates.routed(), [4, 0, 1, 5])


def test_a_gate_is_near_zero_by_the_size_of_its_row_or_neuron() -> None:
    gate = torch.tensor([[1.0, 0.01, -1.0], [100.0, 0.5, -100.0]])
    gates = Gates(Site("dense", 0, 3, "silu"), ((0, gate),))
    share = 0.002
    row = np.sqrt((gate.double().numpy() ** 2).mean(1, keepdims=True))
    neuron = np.sqrt((gate.double().numpy() ** 2).mean(0, keepdims=True))
    near = np.abs(gate.double().numpy()) <= NEAR * share * np.maximum(row, neuron)
    np.testing.assert_array_equal(gates.near_zero(share), near.sum(0))
    assert near.sum(0).tolist() == [1, 2, 1]


@pytest.mark.parametrize("apart", [1e-5, 1e-3, 0.01])
def test_every_sign_that_an_error_of_that_size_changes_is_near_zero(apart: float) -> None:
    """Gates of inputs that are off by a share of their size, against those of the inputs."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(200, 64, generator=generator).double()
    weight = torch.randn(64, 300, generator=generator).double()
    weight *= torch.rand(300, generator=generator)
    noise = torch.randn(200, 64, generator=generator).double()
    off = hidden + apart * noise * hidden.norm(dim=1, keepdim=True) / noise.norm(
        dim=1, keepdim=True
    )
    gate, other = hidden @ weight, off @ weight
    flips = (gate > 0) != (other > 0)
    gates = Gates(Site("dense", 0, 300, "silu"), ((0, gate.float()),))
    assert flips.any() or apart < 1e-4
    assert (flips.sum(0) <= gates.near_zero(difference(off, hidden))).all()
    assert gates.near_zero(apart).sum() < 40 * apart * gate.numel() + 300  # and few others are
