"""Which instructions a pass is not finite for, on their counted rows."""

import pytest
import torch

from sparcom.engines.vllm.worker.finite import FiniteCheck


def hidden(dtype=torch.float32, **rows: float) -> torch.Tensor:
    out = torch.ones(6, 4, dtype=dtype)
    for name, value in rows.items():
        out[int(name[1:]), 2] = value
    return out


SLOTS = torch.tensor([0, 0, -1, 2, 2, 2, -1, -1], dtype=torch.int32)  # two rows more than the pass


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_instruction_of_a_counted_row_is_named(value: float) -> None:
    check = FiniteCheck(3, "cpu")
    check.note(hidden(r4=value), SLOTS)
    check.note(hidden(r5=value, r3=value), SLOTS)
    assert check.check(["a"], [0]) is None
    assert check.check(["a", "b"], [0, 2]) == (
        "instruction b: its hidden states are not finite in float32 on 3 counted tokens; its "
        "weights may be damaged"
    )


def test_rows_that_are_not_counted_may_be_anything() -> None:
    check = FiniteCheck(3, "cpu")
    check.note(hidden(r2=float("nan")), SLOTS)
    assert check.check(["a", "b", "c"], [0, 1, 2]) is None


def test_a_slot_is_new_once_it_was_cleared() -> None:
    check = FiniteCheck(3, "cpu")
    check.note(hidden(r0=float("nan"), r4=float("nan")), SLOTS)
    check.clear([0])
    assert check.check(["a"], [0]) is None
    assert "instruction c" in check.check(["c"], [2])


def test_float16_is_told_to_be_another_dtype() -> None:
    check = FiniteCheck(3, "cpu")
    check.note((hidden(torch.float16, r1=1e5), "aux"), SLOTS)
    assert check.check(["a"], [0]).endswith(
        "in float16 on 1 counted tokens; use bfloat16 or float32"
    )


def test_what_an_earlier_stage_of_a_pipeline_hands_on_is_not_looked_at() -> None:
    check = FiniteCheck(3, "cpu")
    check.note({"hidden_states": hidden(r0=float("nan"))}, SLOTS)
    assert check.check(["a"], [0]) is None
