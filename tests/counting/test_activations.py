"""Activations with parameters: their names, and what they compute against plain torch."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import draw

from sparcom.counting.activations import ACTIVATIONS, name_activation, parse_activation
from sparcom.counting.ops import act_mul_count
from sparcom.errors import InputError


def test_a_name_says_its_parameters() -> None:
    c = parse_activation("swiglu(limit=7,alpha=1.702,beta=1)")
    assert (c.name, c.limit, c.beta) == ("swiglu", 7.0, 1.0)
    assert c.alpha == float(torch.tensor(1.702))  # as a float32 holds it
    assert parse_activation("swiglu").limit == float("inf")
    assert parse_activation("situ").beta == 1.0
    assert [parse_activation(name).code for name in ACTIVATIONS] == list(range(8))


@pytest.mark.parametrize(
    "values", [{"limit": 7.0}, {"limit": 0.1, "alpha": 1.702, "beta": 1.0}, {}]
)
def test_a_name_comes_back(values: dict[str, float]) -> None:
    c = parse_activation(name_activation("swiglu", **values))
    for key, value in values.items():
        assert getattr(c, key) == float(torch.tensor(value, dtype=torch.float32))


@pytest.mark.parametrize(
    "text",
    ["swiglu(limit=0)", "swiglu(limit=-1)", "swiglu(limit=nan)", "swiglu(limit=7", "swiglu(7)",
     "swiglu(gamma=1)", "situ(beta=0)", "swiglu_step(limit=x)", "swiglu(alpha=1,alpha=2,limit=)"],
)  # fmt: skip
def test_a_wrong_parameter_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"expected \w+\(.*=NUMBER.*\) with .* above 0"):
        parse_activation(text)


@pytest.mark.parametrize("text", ["tanh", "silu(limit=7)", "", "silu()"])
def test_an_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="activation must be one of silu, .*, got"):
        parse_activation(text)


def gpt_oss(x: torch.Tensor) -> torch.Tensor:
    """The gating of gpt-oss: gate and up take turns."""
    gate, up = x[:, ::2].clamp(max=7.0), x[:, 1::2].clamp(-7.0, 7.0)
    return (up + 1) * (gate * torch.sigmoid(1.702 * gate))


def deepseek(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, 1)
    return F.silu(gate.clamp(max=10.0)) * up.clamp(-10.0, 10.0)


def step(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, 1)
    return F.silu(gate).clamp(max=2.0) * up.clamp(-2.0, 2.0)


def kimi(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, 1)
    return (3 * torch.tanh(gate / 3) * torch.sigmoid(gate)) * (2 * torch.tanh(up / 2))


@pytest.mark.parametrize(
    ("plain", "activation", "turns"),
    [
        (gpt_oss, "swiglu(limit=7,alpha=1.702,beta=1)", True),
        (deepseek, "swiglu(limit=10)", False),
        (step, "swiglu_step(limit=2)", False),
        (kimi, "situ(beta=3,linear_beta=2)", False),
    ],
)
def test_each_form_is_what_its_models_compute(plain, activation: str, turns: bool) -> None:
    x = draw(50, 2 * 77, torch.float32, 3, scale=6.0)
    gate, up = (x[:, ::2], x[:, 1::2]) if turns else x.chunk(2, 1)
    counts, rows = torch.zeros(1, 77, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    bins = torch.zeros(50, dtype=torch.int32)
    out = act_mul_count(gate, up, bins, counts, rows, activation=activation)
    torch.testing.assert_close(out, plain(x), rtol=2e-6, atol=1e-6)
    assert torch.equal(counts[0], (gate > 0).sum(0, dtype=torch.int32))


def test_halves_of_two_tensors_do_not_take_turns() -> None:
    x, y = draw(4, 20, torch.float32, 0), draw(4, 20, torch.float32, 1)
    counts, rows = torch.zeros(1, 10, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    bins = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(
        InputError, match=r"gate and up must be x\[:, ::2\] and x\[:, 1::2\] of one"
    ):
        act_mul_count(x[:, ::2], y[:, 1::2], bins, counts, rows)
