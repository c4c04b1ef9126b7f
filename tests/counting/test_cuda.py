"""The CUDA kernel on a device: the properties of the emulation; streams, graphs, compile."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import ACTIVATIONS, Case, cases, check, check_activation, draw
from quant_cases import QuantCase, quant_cases
from quant_cases import check as check_quantised

from sparcom import native
from sparcom.counting import layout
from sparcom.counting.ops import DTYPES, act_mul_count
from sparcom.counting.quant_ops import act_mul_count_quant
from sparcom.errors import InputError

pytestmark = pytest.mark.gpu
LIST = list(DTYPES)


def new_counts(bins: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.zeros(bins, width, dtype=torch.int32, device="cuda"),
        torch.zeros(bins, dtype=torch.int32, device="cuda"),
    )


def prompts(rows: int, width: int, dtype: torch.dtype, run: int = 100) -> Case:
    """Rows in runs of one bin; gate and up are halves of one tensor, as in vLLM."""
    both = draw(rows, 2 * width, dtype, rows + width)
    bins = (torch.arange(rows) // run).to(torch.int32)
    return Case(both[:, :width], both[:, width:], bins, rows // run + 1).to("cuda")


def striped(gate, up, bins, counts, rows, *, signs=None, **options) -> torch.Tensor:
    """act_mul_count with striped counts, which come back in order."""
    options |= {"signs": signs, "striped": True}
    out = act_mul_count(gate, up, bins, counts, rows, **options)
    for buffer in (counts, signs):
        if buffer is not None:
            buffer.copy_(layout.in_order(buffer))
    return out


@settings(max_examples=300, deadline=None)
@given(case=cases(), stripes=st.booleans())
def test_property_any_case(case: Case, stripes: bool) -> None:
    check(striped if stripes else act_mul_count, case.to("cuda"))


@settings(max_examples=200, deadline=None)
@given(case=quant_cases(), stripes=st.booleans())
def test_quantised_property_any_case(case: QuantCase, stripes: bool) -> None:
    def call(gate, up, bins, counts, rows, q, scales, *, signs=None, **options):
        options |= {"signs": signs, "striped": stripes}
        act_mul_count_quant(gate, up, bins, counts, rows, q=q, scales=scales, **options)
        for buffer in (counts, signs):
            if stripes and buffer is not None:
                buffer.copy_(layout.in_order(buffer))

    check_quantised(call, act_mul_count, case.to("cuda"))


@pytest.mark.parametrize("dtype", LIST)
@pytest.mark.parametrize(
    ("rows", "width"), [(4096, 11008), (256, 11008), (4096, 1408), (333, 1407)]
)
def test_shapes_of_models(rows: int, width: int, dtype: torch.dtype) -> None:
    for call in (act_mul_count, striped):
        check(call, prompts(rows, width, dtype))
        check(call, prompts(rows, width, dtype, run=1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half(dtype: torch.dtype, activation: str) -> None:
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)[None].cuda()
    counts, rows = new_counts(1, 2**16)
    bins = torch.zeros(1, dtype=torch.int32, device="cuda")
    out = act_mul_count(gate, None, bins, counts, rows, activation=activation)
    check_activation(out, gate, activation)
    assert torch.equal(counts[0].bool(), gate[0] > 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_floats_are_those_of_the_cpu(activation: str) -> None:
    """fp32 runs the same source on both, so the bits are the same."""
    gate = torch.cat([torch.linspace(-110, 30, 2**16), torch.logspace(-38, 38, 2**12)])[None]
    results = []
    for device in ("cpu", "cuda"):
        counts, rows = (
            torch.zeros(s, dtype=torch.int32, device=device) for s in ((1, 69632), (1,))
        )
        bins = torch.zeros(1, dtype=torch.int32, device=device)
        x = gate.to(device)
        results.append(act_mul_count(x, None, bins, counts, rows, activation=activation).cpu())
    assert torch.equal(*results)


def test_a_graph_captures_and_replays_it() -> None:
    case = prompts(512, 1536, torch.bfloat16)
    counts, rows = new_counts(case.n_bins, 1536)
    out = torch.empty_like(case.gate, memory_format=torch.contiguous_format)

    def call() -> None:
        act_mul_count(case.gate, case.up, case.bins, counts, rows, out=out)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    expected = copy.deepcopy((out, counts, rows))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    counts.zero_()
    rows.zero_()
    for _ in range(3):
        out.fill_(float("nan"))
        graph.replay()
    assert torch.equal(out, expected[0])
    assert torch.equal(counts, 3 * expected[1])
    assert torch.equal(rows, 3 * expected[2])


def chain(case: Case, times: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(out, counts, rows). Each call's gate is what the kernel before has just written, by turns
    one of torch and one of ours: a kernel that did not wait for it would read other numbers.
    """
    counts, rows = new_counts(case.n_bins, case.gate.shape[1])
    x = case.gate
    for _ in range(times):
        x = act_mul_count(x.tanh(), case.up, case.bins, counts, rows, striped=True)
        x = act_mul_count(x, case.up, case.bins, counts, rows, striped=True)
    return x, counts, rows


@pytest.mark.parametrize("rows", [1, 64, 4096])
def test_a_chain_of_kernels_that_start_early_is_that_of_kernels_that_wait(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programmatic dependent launch, on and off; on, also in a graph that is replayed."""
    case = prompts(rows, 4096, torch.bfloat16)
    monkeypatch.setattr(native, "pdl", lambda: False)
    expected = chain(case, 20)
    torch.cuda.synchronize()
    monkeypatch.setattr(native, "pdl", lambda: True)
    assert all(map(torch.equal, chain(case, 20), expected))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = chain(case, 20)
    for _ in range(3):
        for buffer in found[1:]:
            buffer.zero_()
        graph.replay()
        assert all(map(torch.equal, found, expected))


def test_it_runs_on_the_current_stream() -> None:
    case = prompts(4096, 4096, torch.bfloat16)
    counts, rows = new_counts(case.n_bins, 4096)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # only what follows on this stream waits
        act_mul_count(case.gate, case.up, case.bins, counts, rows)
    assert not stream.query()
    assert int(rows.sum()) == 0
    stream.synchronize()
    assert int(rows.sum()) == 4096


def test_compiled_code_keeps_it() -> None:
    case = prompts(128, 512, torch.float32)

    def layer(gate, up, bins, counts, rows):
        return act_mul_count(gate * 2, up, bins, counts, rows) + 1

    results = []
    for call in (layer, torch.compile(layer, fullgraph=True)):
        counts, rows = new_counts(case.n_bins, 512)
        results.append((call(case.gate, case.up, case.bins, counts, rows), counts, rows))
    for plain, compiled in zip(*results, strict=True):
        assert torch.equal(plain, compiled)


@pytest.mark.parametrize("overload", ["default", "out"])
def test_opcheck(overload: str) -> None:
    case = prompts(32, 64, torch.bfloat16, run=7)
    inputs = (case.gate, case.up, case.bins, *new_counts(case.n_bins, 64), "silu", 0.0, "gate")
    out = (
        () if overload == "default" else (torch.empty(32, 64, dtype=torch.bfloat16, device="cuda"),)
    )
    op = getattr(torch.ops.sparcom.act_mul_count, overload)
    for stripes in (False, True):
        torch.library.opcheck(op, (*inputs, None, None, None, None, *out, stripes))


def test_devices_are_not_mixed() -> None:
    case = prompts(8, 64, torch.bfloat16)
    counts, rows = new_counts(case.n_bins, 64)
    with pytest.raises(InputError, match="bins must be"):
        act_mul_count(case.gate, case.up, case.bins.cpu(), counts, rows)
    gate = case.gate.contiguous()
    with pytest.raises(InputError, match="out must not share memory with gate"):
        act_mul_count(gate, case.up, case.bins, counts, rows, out=gate)


def test_more_elements_than_an_int_holds() -> None:
    """Offsets beyond 2^31: rows with a huge stride."""
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of free device memory")
    gate = torch.empty(2**31 + 2**20, dtype=torch.bfloat16, device="cuda").view(-1, 2**20)
    gate.fill_(-1)
    gate[-1, :8] = 1
    bins = torch.zeros(len(gate), dtype=torch.int32, device="cuda")
    counts, rows = new_counts(1, 8)
    out = act_mul_count(gate[:, :8], gate[:, 8:16], bins, counts, rows)
    assert counts.tolist() == [[1] * 8]
    assert rows.tolist() == [len(gate)]
    assert bool((out[:-1] > 0).all())
