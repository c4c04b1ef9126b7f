"""The registered operator: opcheck, torch.compile, what tracing sees."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparcom.counting.ops import act_mul_count
from sparcom.errors import InputError

OP = torch.ops.sparcom.act_mul_count
SILU = ("silu", 0.0, "gate", None, None, None, None)


def inputs(rows: int = 6, width: int = 40) -> list[Tensor]:
    """gate, up, bins, counts, rows"""
    torch.manual_seed(0)
    both = torch.randn(rows, 2 * width)
    bins = torch.tensor([0, 0, 1, -1, 1, 1], dtype=torch.int32)[:rows]
    counts = torch.zeros(2, width, dtype=torch.int32)
    return [both[:, :width], both[:, width:], bins, counts, torch.zeros(2, dtype=torch.int32)]


@pytest.mark.parametrize("gated", [True, False])
def test_opcheck(gated: bool) -> None:
    gate, up, *rest = inputs()
    up = up if gated else None
    torch.library.opcheck(OP.default, (gate, up, *rest, *SILU))
    keep, fill, expert = torch.ones(2, 40), torch.zeros(2, 40), torch.zeros(6, dtype=torch.int32)
    ablating = ("gelu", 0.1, "product", keep, fill, expert, None)
    torch.library.opcheck(OP.default, (gate, up, *rest, *ablating))
    torch.library.opcheck(OP.out, (gate, up, *rest, *SILU, torch.empty(6, 40)))
    if gated:
        signs = torch.zeros(2, 2, 40, dtype=torch.int32)
        torch.library.opcheck(OP.default, (gate, up, *rest, *SILU[:-1], signs))
        torch.library.opcheck(OP.out, (gate, up, *rest, *SILU[:-1], signs, torch.empty(6, 40)))


def layer(gate: Tensor, up: Tensor, bins: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
    return act_mul_count(gate + 0, up, bins, counts, rows) @ torch.eye(gate.shape[1])


def calls_in_graphs(function: Callable[..., Tensor], arguments: list[Tensor]) -> int:
    """How often the operator occurs in the graphs that Dynamo makes."""
    found = 0

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        nonlocal found
        found += sum(node.target in (OP.default, OP) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(function, backend=backend, fullgraph=True)(*arguments)
    return found


def test_a_compiled_graph_keeps_the_call() -> None:
    assert calls_in_graphs(layer, inputs()) == 1


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_counts_each_call(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=backend, dynamic=dynamic, fullgraph=True)
    for rows in (6, 4, 6):
        plain, ours = inputs(rows), inputs(rows)
        for _ in range(2):
            expected, out = layer(*plain), compiled(*ours)
            torch.testing.assert_close(out, expected)
        assert torch.equal(ours[3], plain[3])
        assert torch.equal(ours[4], plain[4])
        assert int(ours[4].sum()) == 2 * int((ours[2] >= 0).sum())


def test_tracing_checks_shapes() -> None:
    gate, up, bins, counts, rows = (x.to("meta") for x in inputs())
    out = act_mul_count(gate, up, bins, counts, rows)
    assert out.shape == (6, 40)
    assert out.is_contiguous()
    with pytest.raises(InputError, match="counts must be"):
        act_mul_count(gate, up, bins, counts[:, 1:], rows)
