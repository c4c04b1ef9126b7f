"""vLLM's fusing of an activation and of the rounding behind it, with counting activations."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from kernel_cases import draw
from torch import nn

from sparcom.components import Site
from sparcom.counting import reference
from sparcom.counting.recorder import Recorder
from sparcom.errors import CountError

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.model_executor.layers.fusion import fused_act_quant
from vllm.model_executor.layers.fusion.fused_act_quant import maybe_fused_act_quant
from vllm.model_executor.layers.fusion.quant_activation import QuantizedActivation
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    kFp8Dynamic128Sym,
    kFp8StaticTensorSym,
)

from sparcom.engines.vllm.worker import counting_op, sites

WIDTH, ROWS = 256, 5


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Of one site, in a process whose pass has begun: rows 0 to 2 are of slot 0, row 4 is of 1."""
    for name in ("_FUSED_ACT_QUANT", "_FUSED_ACT_QUANT_SUPPORT"):
        monkeypatch.setattr(fused_act_quant, name, dict(getattr(fused_act_quant, name)))
    made = Recorder([Site("dense", 0, WIDTH, "silu", gated=True)], 2, verify=True)
    counter = counting_op.StepCounter(made, ROWS)
    counter.host[:] = torch.tensor([0, 0, 0, -1, 1])
    counter.begin()
    counting_op.use_counter(counter)
    yield made
    counting_op.use_counter(None)


def mlp(key: object) -> tuple[nn.Module, nn.Module]:
    """(the activation that counts, a linear that shows a key), as `instrument` makes them."""

    class Down(sites.RowParallelLinear):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.tp_rank, self.input_size, self.input_size_per_partition = 0, WIDTH, WIDTH
            self._input_quant_key = key

    class SiluAndMul(nn.Module):
        pass

    parent = nn.Module()
    parent.gate_up_proj, parent.act_fn, parent.down_proj = nn.Linear(4, 8), SiluAndMul(), Down()
    ((_, counting),) = sites._exchange("model.layers.0.mlp", parent, "dense", "gate")
    counting.site_index = 0
    return counting, parent.down_proj


def expected(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(q, scales) of silu and product in 16 bits each, then vLLM's own plain group quantisation."""
    from vllm.model_executor.layers.quantization.input_quant_fp8 import QuantFP8

    gate, up = x.chunk(2, -1)
    quantise = SimpleNamespace(group_size=128, use_ue8m0=False, column_major_scales=False)
    h = reference.silu(gate.double()).to(x.dtype) * up
    return QuantFP8._quantize_group_native(quantise, h)


def test_the_linear_gets_fp8_and_its_scales(recorder: Recorder) -> None:
    counting, linear = mlp(kFp8Dynamic128Sym)
    x = draw(ROWS, 2 * WIDTH, torch.bfloat16, 0)
    found = maybe_fused_act_quant(counting, x, linear)
    assert isinstance(found, QuantizedActivation)
    assert (found.quant_key, found.orig_dtype) == (kFp8Dynamic128Sym, torch.bfloat16)
    assert found.orig_shape == found.data.shape == (ROWS, WIDTH)
    q, scales = expected(x)
    assert found.scale.is_contiguous()
    torch.testing.assert_close(found.scale, scales, rtol=2**-7, atol=0)  # h is within 1 unit
    back, exact = (a.float().unflatten(1, (2, 128)) * s[..., None]
                   for a, s in ((found.data, found.scale), (q, scales)))  # fmt: skip
    torch.testing.assert_close(back, exact, rtol=2**-3, atol=1e-3)
    counted = recorder.take(["a", "b"], [0, 1], [3, 1])
    positive = x[:, :WIDTH] > 0
    assert counted.neurons[0].tolist() == positive[:3].sum(0).tolist()
    assert counted.neurons[1].tolist() == positive[4].int().tolist()


def test_a_compiled_graph_keeps_the_call(recorder: Recorder) -> None:
    counting, linear = mlp(kFp8Dynamic128Sym)
    x = draw(ROWS, 2 * WIDTH, torch.bfloat16, 1)

    def layer(x: torch.Tensor) -> torch.Tensor:
        found = maybe_fused_act_quant(counting, x + 0, linear)
        return found.data.float().unflatten(1, (-1, 128)) * found.scale[..., None]

    plain = layer(x)
    assert torch.equal(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), plain)
    twice = recorder.take(["a", "b"], [0, 1], [6, 2])
    assert twice.neurons[1].tolist() == (2 * (x[4, :WIDTH] > 0)).tolist()


def test_what_is_not_fp8_in_groups_stays_in_16_bits(recorder: Recorder) -> None:
    x = draw(ROWS, 2 * WIDTH, torch.bfloat16, 2)
    for key in (None, kFp8StaticTensorSym):
        counting, linear = mlp(key)
        out = maybe_fused_act_quant(counting, x, linear)
        assert isinstance(out, torch.Tensor)
        assert (out.dtype, out.shape) == (torch.bfloat16, (ROWS, WIDTH))
    counting, linear = mlp(kFp8Dynamic128Sym)
    assert isinstance(maybe_fused_act_quant(counting, x.float(), linear), torch.Tensor)
    other, _ = mlp(kFp8Dynamic128Sym)  # the activation of another layer
    assert isinstance(maybe_fused_act_quant(other, x, linear), torch.Tensor)
    assert not counting.quantises(x[:, : 3 * 128])  # 192 columns: a group and a half


@pytest.mark.parametrize("changed", ["ablated", "summed"])
def test_what_looks_at_h_is_the_same(recorder: Recorder, changed: str) -> None:
    """Ablation runs in the kernel; sums are taken of h before it is rounded."""
    counting, linear = mlp(kFp8Dynamic128Sym)
    x = draw(ROWS, 2 * WIDTH, torch.bfloat16, 3)
    h = counting(x)
    if changed == "ablated":
        keep = (torch.arange(WIDTH) % 3 > 0).to(x.dtype)[None]
        recorder.ablate({0: (keep, None)})
        h = h * keep
        found = maybe_fused_act_quant(counting, x, linear)
    else:
        with recorder.summing() as sums:
            found = maybe_fused_act_quant(counting, x, linear)
        counted = [0, 1, 2, 4]
        torch.testing.assert_close(sums[0][0], h[counted].double().sum(0))
    q, scales = reference.quantise(h, torch.float8_e4m3fn)
    assert torch.equal(found.data.view(torch.uint8), q.view(torch.uint8))
    assert torch.equal(found.scale, scales)
    assert recorder.take(["a"], [0], [6]).neurons.sum() == 2 * (x[:3, :WIDTH] > 0).sum()


def test_every_row_must_be_there(recorder: Recorder) -> None:
    recorder.begin(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(CountError, match=r"layer0.dense: got 5 rows, but the pass has 3"):
        recorder.count_quantised(0, *draw(5, 2 * WIDTH, torch.bfloat16, 0).chunk(2, 1))
