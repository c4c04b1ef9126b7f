"""Cases of act_mul_count for every backend, and what must hold for them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparcom.counting import reference
from sparcom.counting.activations import parse_activation
from sparcom.counting.ops import DTYPES

GUARD = 64  # elements on both sides of what a kernel writes, which must not change
Call = Callable[..., Tensor]

ACTIVATIONS = (
    "silu",
    "gelu",
    "gelu_tanh",
    "relu",
    "relu2",
    "swiglu",
    "swiglu(limit=7,alpha=1.702,beta=1)",
    "swiglu(limit=1.3)",
    "swiglu_step(limit=2.5)",
    "situ",
    "situ(beta=4,linear_beta=3)",
)
"""Every activation, those with parameters in the forms that models use."""


@dataclass(frozen=True)
class Case:
    """One call. options: activation, threshold, signal, keep, fill, expert. signs: count them."""

    gate: Tensor
    up: Tensor | None
    bins: Tensor
    n_bins: int
    options: dict[str, Any] = field(default_factory=dict)
    signs: bool = False

    def to(self, device: str) -> "Case":
        """The case on a device, with the same strides and alignment."""

        def move(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            base = x._base if x._base is not None else x
            return base.to(device).as_strided(x.shape, x.stride(), x.storage_offset())

        options = {name: move(value) for name, value in self.options.items()}
        return replace(
            self, gate=move(self.gate), up=move(self.up), bins=move(self.bins), options=options
        )


def units_apart(a: Tensor, b: Tensor) -> Tensor:
    """How many representable values a and b are apart; NaN and NaN: 0."""
    bits = {4: torch.int32, 2: torch.int16}[a.element_size()]

    def order(x: Tensor) -> Tensor:
        i = x.contiguous().view(bits).long()
        return torch.where(i < 0, -(i & (2 ** (8 * x.element_size() - 1) - 1)), i)

    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0, (order(a) - order(b)).abs())


def same(a: Tensor, b: Tensor) -> bool:
    """True if equal bit for bit, except for the sign of zero and the payload of NaN."""
    return bool((units_apart(a, b) == 0).all())


def check_activation(out: Tensor, gate: Tensor, activation: str) -> None:
    """f must be within 1 unit in the last place for bf16 and fp16, 4 for fp32."""
    expected = reference.activate(activation, gate).to(gate.dtype)
    limit = 4 if gate.dtype is torch.float32 else 1
    assert int(units_apart(out, expected).max()) <= limit if out.numel() else True


def check_shaped(out: Tensor, expected: Tensor, case: Case) -> None:
    """A product of two approximations must be within a few units; ablated, of its largest term."""
    assert torch.equal(out.isnan(), expected.isnan())
    if not out.numel():
        return
    eps = torch.finfo(out.dtype).eps * (8 if out.dtype is torch.float32 else 2)
    fill = case.options.get("fill")
    size = expected.abs() + (0 if fill is None else fill.abs().max())
    tiny = torch.finfo(out.dtype).smallest_normal
    close = (out - expected).abs() <= eps * size + tiny
    assert bool((close | (out == expected) | out.isnan()).all())


def check(call: Call, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Call a kernel, check its results and return them: out, counts, rows.

    f must be near the reference's. Given this f, everything after it must be exact: the product,
    the ablation, counts, rows and signs. Nothing else may be written.
    """
    options = dict(case.options)
    activation = options.get("activation", "silu")
    plain = {"activation": activation}
    alone = replace(case, gate=_dense(case.gate), up=None, options=plain, signs=False)
    f = _guarded(call, alone)[0]
    check_activation(f, case.gate, activation)
    out, counts, rows, signs = _guarded(call, case)

    c = parse_activation(activation)
    h = f if case.up is None else f * reference.shape_up(c, case.up)
    expected, valid = _ablated(h, options)
    if c.linear_beta > 0 and case.up is not None:  # u(up) is approximated too
        check_shaped(out, expected, case)
        h = _guarded(call, replace(case, options=plain, signs=False))[0]  # counted: not ablated
    else:
        assert same(out, expected)
    counted = torch.where(valid & (case.bins < case.n_bins) & (case.bins >= 0), case.bins, -1)
    exact = reference.activate(activation, case.gate)
    value = exact if options.get("signal", "gate") == "gate" else h.double()
    plain_counts, plain_rows = torch.zeros_like(counts), torch.zeros_like(rows)
    reference.count(value, options.get("threshold", 0.0), counted, plain_counts, plain_rows)
    assert torch.equal(counts, plain_counts)
    assert torch.equal(rows, plain_rows)
    if signs is not None:
        check_signs(case, counted, signs)
    return out, counts, rows


def check_signs(case: Case, counted: Tensor, signs: Tensor) -> None:
    """Each bin's rows, compared with 0 one bin after the other."""
    for at in range(case.n_bins):
        gate, up = case.gate[counted == at] > 0, case.up[counted == at] > 0
        assert signs[0, at].tolist() == up.sum(0).tolist()
        assert signs[1, at].tolist() == (gate & up).sum(0).tolist()


def _dense(x: Tensor) -> Tensor:
    """x, or a copy of it if its rows are not dense."""
    return x if x.stride(1) == 1 else x.contiguous()


def _ablated(h: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(h * keep + fill, whether the row's expert exists); if it does not, h itself."""
    keep, fill, expert = (options.get(name) for name in ("keep", "fill", "expert"))
    valid = torch.ones(len(h), dtype=torch.bool, device=h.device)
    if keep is None and fill is None:
        return h, valid
    n_experts = len(fill if keep is None else keep)
    row = torch.zeros(len(h), dtype=torch.long, device=h.device) if expert is None else expert
    valid = (row >= 0) & (row < n_experts)
    at = torch.where(valid, row, 0).long()
    out = h if keep is None else h * keep[at]
    out = out if fill is None else out + fill[at]
    return torch.where(valid[:, None], out, h), valid


def _guarded(call: Call, case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """out, counts, rows and signs of a call, in poisoned memory with guards on both sides."""
    rows, width = case.gate.shape
    device = case.gate.device
    out, out_all = _between_guards((rows, width), case.gate.dtype, float("nan"), device)
    counts, counts_all = _between_guards((case.n_bins, width), torch.int32, -77, device)
    seen, seen_all = _between_guards((case.n_bins,), torch.int32, -77, device)
    memory = [(out_all, out), (counts_all, counts), (seen_all, seen)]
    signs, options = None, case.options
    if case.signs:
        signs, signs_all = _between_guards((2, case.n_bins, width), torch.int32, -77, device)
        memory.append((signs_all, signs))
        options = {**options, "signs": signs}
    for _, inside in memory[1:]:
        inside.zero_()
    call(case.gate, case.up, case.bins, counts, seen, out=out, **options)
    for whole, inside in memory:
        guards = torch.cat([whole[:GUARD], whole[GUARD + inside.numel() :]])
        assert bool(((guards == -77) | guards.isnan()).all()), "written beyond its end"
    return out, counts, seen, signs


def _between_guards(shape, dtype, poison, device) -> tuple[Tensor, Tensor]:
    size = int(torch.Size(shape).numel())
    whole = torch.full((size + 2 * GUARD,), poison, dtype=dtype, device=device)
    return whole[GUARD : GUARD + size].view(shape), whole


def draw(rows: int, width: int, dtype: torch.dtype, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, width, generator=generator) * scale).to(dtype)


@st.composite
def cases(draws: st.DrawFn) -> Case:
    """Any shape, stride, alignment, dtype and option; any bins, even wrong ones."""
    rows = draws(st.integers(0, 40))
    width = draws(st.one_of(st.integers(0, 70), st.integers(0, 12).map(lambda n: 8 * n)))
    dtype = draws(st.sampled_from(list(DTYPES)))
    seed = draws(st.integers(0, 10**6))
    halves, start = draws(st.booleans()), draws(st.sampled_from([0, 0, 0, 1, 4, 8]))
    room = draws(st.sampled_from([0, 8, 16, 3]))

    def matrix(n: int, columns: int, offset: int, kind: int) -> Tensor:
        return draw(n, columns, dtype, seed + kind)[:, offset : offset + width]

    both = draw(rows, 2 * width + room, dtype, seed)
    gate = both[:, :width] if halves else matrix(rows, width + start + room, start, 0)
    up = both[:, width : 2 * width] if halves else matrix(rows, width + room, 0, 1)
    gated = draws(st.booleans())
    if gated and halves and draws(st.booleans()):
        gate, up = both[:, : 2 * width : 2], both[:, 1 : 2 * width : 2]
    n_bins = draws(st.integers(0, 4))
    options: dict[str, Any] = {
        "activation": draws(st.sampled_from(ACTIVATIONS)),
        "threshold": draws(st.sampled_from([0.0, 0.0, 0.3, -0.05, -2.0])),
        "signal": draws(st.sampled_from(["gate", "gate", "product"])),
    }
    if draws(st.integers(0, 3)) == 0:
        options |= draws(ablations(rows, width, dtype, seed))
    bins = draws(bins_of(rows, n_bins))
    signs = gated and draws(st.booleans())
    if signs:
        options |= {"threshold": 0.0, "signal": "gate"}
    return Case(gate, up if gated else None, bins, n_bins, options, signs)


@st.composite
def bins_of(draws: st.DrawFn, rows: int, n_bins: int) -> Tensor:
    known = st.integers(-1, n_bins - 1)
    kind = draws(st.sampled_from(["runs", "any", "none", "alternating", "wrong"]))
    if kind == "runs":
        lengths = draws(st.lists(st.tuples(known, st.integers(1, 12)), min_size=1, max_size=8))
        bins = [b for b, length in lengths for _ in range(length)]
        bins = (bins * (rows // len(bins) + 1))[:rows]
    elif kind == "alternating":
        bins = [i % (n_bins + 1) - 1 for i in range(rows)]
    elif kind == "none":
        bins = [-1] * rows
    else:
        any_bin = st.one_of(known, st.sampled_from([n_bins, n_bins + 9, -5, 2**31 - 1, -(2**31)]))
        each = known if kind == "any" else any_bin
        bins = draws(st.lists(each, min_size=rows, max_size=rows))
    return torch.tensor(bins, dtype=torch.int32)


@st.composite
def ablations(draws: st.DrawFn, rows: int, width: int, dtype, seed: int) -> dict[str, Any]:
    n = draws(st.integers(1, 3))
    which = draws(st.sampled_from(["keep", "fill", "both"]))
    options: dict[str, Any] = {}
    if which != "fill":
        options["keep"] = (draw(n, width, dtype, seed + 2) > 0).to(dtype)
    if which != "keep":
        options["fill"] = draw(n, width, dtype, seed + 3)
    if draws(st.booleans()):
        experts = draws(st.lists(st.integers(-1, n), min_size=rows, max_size=rows))
        options["expert"] = torch.tensor(experts, dtype=torch.int32)
    return options
