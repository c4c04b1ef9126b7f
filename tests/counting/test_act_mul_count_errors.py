"""Bad input of act_mul_count: the error says what was expected, what came and what to do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sparcom.counting.ops import act_mul_count
from sparcom.errors import InputError

ROWS, WIDTH, BINS = 6, 24, 2


def arguments(**changed: Any) -> dict[str, Any]:
    """Good arguments, some of them changed."""
    good = {
        "gate": torch.randn(ROWS, WIDTH),
        "up": torch.randn(ROWS, WIDTH),
        "bins": torch.zeros(ROWS, dtype=torch.int32),
        "counts": torch.zeros(BINS, WIDTH, dtype=torch.int32),
        "rows": torch.zeros(BINS, dtype=torch.int32),
    }
    return good | changed


def bins(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def ints(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.int32)


def unaligned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor whose memory does not begin at a multiple of its element's size."""
    size = torch.empty((), dtype=dtype).element_size()
    n = int(torch.Size(shape).numel())
    buffer = bytearray(n * size + 16)
    at = 1 - torch.frombuffer(buffer, dtype=torch.uint8).data_ptr() % 2  # odd address
    return torch.frombuffer(buffer, dtype=dtype, count=n, offset=at).view(shape)


shared = torch.zeros(BINS * WIDTH, dtype=torch.int32)

CASES = {
    "striped counts on CPU": ({"striped": True}, "striped counts are for CUDA; on CPU, leave"),
    "gate of one dimension": ({"gate": torch.ones(4)}, r"gate must be \[rows, width\] float32"),
    "gate of integers": (
        {"gate": torch.ones(ROWS, WIDTH).long()},
        r"gate must .* got \[6, 24\] int64",
    ),
    "gate by columns": (
        {"gate": torch.ones(WIDTH, ROWS).T},
        r"gate must .* unit stride; .* strides \[1, 6\]",
    ),
    "up of another dtype": (
        {"up": torch.ones(ROWS, WIDTH).half()},
        r"up must be \[6, 24\] float32",
    ),
    "up of another shape": ({"up": torch.ones(ROWS, 23)}, r"up must be \[6, 24\] .* got \[6, 23\]"),
    "up elsewhere": ({"up": torch.ones(ROWS, WIDTH, device="meta")}, r"up must .* on meta"),
    "bins of int64": ({"bins": torch.zeros(ROWS).long()}, r"bins must be \[6\] int32.* int64"),
    "too few bins": ({"bins": ints(5)}, r"bins must be \[6\] int32, .* got \[5\]"),
    "strided bins": ({"bins": ints(12)[::2]}, r"bins must be \[6\] int32, contiguous"),
    "counts too narrow": ({"counts": ints(BINS, 23)}, r"counts must be \[2, 24\] int32"),
    "counts of int64": ({"counts": ints(BINS, WIDTH).long()}, r"counts must .* int64"),
    "counts by columns": ({"counts": ints(WIDTH, BINS).T}, r"counts must .* contiguous"),
    "rows of two dimensions": ({"rows": ints(BINS, 1)}, r"rows must be \[bins\] int32"),
    "unknown activation": ({"activation": "tanh"}, r"activation must be one of silu, .* 'tanh'"),
    "unknown signal": ({"signal": "up"}, r"signal must be one of gate, product, got 'up'"),
    "threshold": ({"threshold": float("nan")}, r"threshold must be a finite number, got -?nan"),
    "keep too narrow": ({"keep": torch.ones(1, 23)}, r"keep must be \[1, 24\] float32"),
    "keep of one dimension": ({"keep": torch.ones(WIDTH)}, r"keep must be \[experts, 24\]"),
    "fill of another dtype": ({"fill": torch.ones(1, WIDTH).half()}, r"fill must be \[1, 24\]"),
    "keep and fill differ": (
        {"keep": torch.ones(2, WIDTH), "fill": torch.ones(3, WIDTH)},
        r"fill must be \[2, 24\]",
    ),
    "no experts": ({"keep": torch.ones(0, WIDTH)}, r"keep must be \[experts, width\]"),
    "expert alone": ({"expert": ints(ROWS)}, r"expert must be None without keep and fill"),
    "expert of int64": (
        {"keep": torch.ones(1, WIDTH), "expert": torch.zeros(ROWS).long()},
        r"expert must be \[6\] int32",
    ),
    "out of another shape": ({"out": torch.ones(ROWS, 23)}, r"out must be \[6, 24\] float32"),
    "signs too narrow": ({"signs": ints(2, BINS, 23)}, r"signs must be \[2, 2, 24\] int32"),
    "signs without up": (
        {"signs": ints(2, BINS, WIDTH), "up": None},
        r"signs: .* no up projection",
    ),
    "signs at a threshold": (
        {"signs": ints(2, BINS, WIDTH), "threshold": 0.5},
        r"signs: the threshold must be 0 .* got 0\.5",
    ),
    "signs of the product": (
        {"signs": ints(2, BINS, WIDTH), "signal": "product"},
        r"signs: .* signal \"gate\", got 0 and 'product'",
    ),
    "bin beyond the last": (
        {"bins": bins(0, 1, 2, 0, 0, 0)},
        r"bins\[2\] must be in -1\.\.1, got 2",
    ),
    "bin below -1": (
        {"bins": bins(0, -1, -2, 0, 0, 0)},
        r"bins\[2\] must be in -1\.\.1, got -2; counts has one row per bin",
    ),
    "bin without bins": (
        {"counts": ints(0, WIDTH), "rows": ints(0)},
        r"bins\[0\] must be in -1\.\.-1, got 0",
    ),
    "expert beyond the last": (
        {"keep": torch.ones(2, WIDTH), "expert": bins(0, 1, 2, 0, 0, 0)},
        r"expert\[2\] must be in 0\.\.1, got 2",
    ),
    "counts on rows": (
        {"counts": shared.view(BINS, WIDTH), "rows": shared[:BINS]},
        r"counts must not share memory with rows, since it is written",
    ),
    "counts on bins": (
        {"counts": shared.view(BINS, WIDTH), "bins": shared[-ROWS:]},
        r"counts must not share memory with bins",
    ),
    "out on gate": ({"gate": (g := torch.ones(ROWS, WIDTH)), "out": g}, r"out must not .* gate"),
    "unaligned gate": (
        {"gate": unaligned((ROWS, WIDTH), torch.float32)},
        r"gate must be aligned to its elements of 4 bytes; copy it with \.clone\(\)",
    ),
    "unaligned counts": (
        {"counts": unaligned((BINS, WIDTH), torch.int32)},
        r"counts must be aligned to its elements of 4 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_argument_expectation_and_what_came(name: str) -> None:
    changed, message = CASES[name]
    given = arguments(**changed)
    before = given["counts"].clone(), given["rows"].clone()
    with pytest.raises(InputError, match=rf"^(act_mul_count: )?{message}"):
        act_mul_count(**given)
    assert torch.equal(given["counts"], before[0])
    assert torch.equal(given["rows"], before[1])


def test_the_good_arguments_are_good() -> None:
    good = arguments()
    act_mul_count(**good)
    assert good["rows"].tolist() == [ROWS, 0]
