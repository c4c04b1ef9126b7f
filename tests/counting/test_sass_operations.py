"""The interpreter of machine code by itself: arithmetic, operations, warps and memory.

Compared with Python's integers and fractions; no compiler is needed.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch

from sass_machine import arithmetic
from sass_machine.machine import Machine, Step
from sass_machine.memory import ADD, LOAD, STORE, AccessError, Memory
from sass_machine.operands import Operand, UnknownError, parse
from sass_machine.operations import OPERATIONS

RANDOM = np.random.default_rng(0)
WORDS = [0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF, 12345678]
MASK = 0xFFFFFFFF


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Overflow is part of what is tested."""
    with np.errstate(all="ignore"):
        yield


def program(*lines: str) -> list[Step]:
    """Instructions, 16 bytes each: "@P0 IADD3 R0, R1, R2, RZ"."""
    steps = []
    for k, line in enumerate([*lines, "EXIT"]):
        guard, line = line.split(" ", 1) if line.startswith("@") else ("", line)
        operation, _, operands = line.partition(" ")
        steps.append(Step.of(16 * k, guard, operation, operands))
    return steps


def run(*lines: str, memory: Memory | None = None, parameters: bytes = b"", threads: int = 32):
    machine = Machine(
        program(*lines), OPERATIONS, {0: parameters}, memory or Memory(1024), 1, threads
    )
    machine.run()
    return machine


def result(*lines: str, register: int = 0) -> int:
    """What lane 0 has in a register after the lines."""
    return int(run(*lines)._registers[register][0])


def floats(count: int) -> np.ndarray:
    """float32 of every size, subnormals and numbers of equal size among them."""
    anywhere = RANDOM.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    return np.where(np.isfinite(anywhere) & (RANDOM.random(count) < 0.5), anywhere,
                    RANDOM.standard_normal(count).astype(np.float32))  # fmt: skip


def nearest(x: Fraction, mode: str) -> float:
    """x on float32's grid, by fractions alone."""
    if x == 0:
        return 0.0
    exponent = max(abs(x).numerator.bit_length() - abs(x).denominator.bit_length() - 24, -149)
    while abs(x) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    scaled = x / Fraction(2) ** exponent
    whole = {
        "RN": round(scaled), "RM": scaled.__floor__(), "RP": scaled.__ceil__(), "RZ": int(scaled),
    }[mode]  # fmt: skip
    value = Fraction(whole) * Fraction(2) ** exponent
    return float(value)


@pytest.mark.parametrize("mode", ["RN", "RM", "RP", "RZ"])
def test_fused_products_are_rounded_once(mode: str) -> None:
    a, b, c = (floats(800) for _ in range(3))
    c[:200] = -(a[:200] * b[:200])  # what is left is the product's own rounding error
    found = arithmetic.rounded(arithmetic.fused(a, b, c), mode)
    largest = float(np.finfo(np.float32).max)
    for x, y, z, ours in zip(a, b, c, found, strict=True):
        if not np.isfinite([x, y, z]).all():
            continue
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        expected = nearest(exact, mode)
        if abs(expected) <= largest:
            assert float(ours) == expected, (x, y, z)


@pytest.mark.parametrize("bf16", [True, False])
def test_halves_are_rounded_to_nearest_even(bf16: bool) -> None:
    """Between any two neighbours: the middle to the even one, all else to the nearer."""
    top = 0x7F80 if bf16 else 0x7C00
    word = np.arange(top, dtype=np.uint32)
    low = arithmetic.from_half(word, bf16).astype(np.float64)
    high = np.append(low[1:], 2 * low[-1] - low[-2])  # where the grid would go on
    middle = (low + high) / 2
    for x, expected in (
        (low, word),
        (middle, word + word % 2),
        (np.nextafter(middle, 0), word),
        (np.nextafter(middle, np.inf), word + 1),
    ):
        sign = np.uint32(0x8000)
        assert np.array_equal(arithmetic.to_half(x, bf16), expected)
        assert np.array_equal(arithmetic.to_half(-x, bf16), expected | sign)
    ends = arithmetic.to_half(np.array([np.inf, -np.inf, np.nan, 1e300]), bf16)
    assert ends.tolist() == [top, top | 0x8000, 0x7FFF, top]


def test_sums_of_several_words_carry() -> None:
    for a in WORDS:
        for b in WORDS:
            low = f"MOV R1, {a:#x}", f"MOV R2, {b:#x}"
            wide = (*low, "IADD3 R3, P0, R1, R2, RZ", "IADD3.X R0, RZ, RZ, RZ, P0, !PT")
            assert result(*wide, register=3) == a + b & MASK
            assert result(*wide) == a + b >> 32
            less = (*low, "IADD3 R3, P0, R1, -R2, RZ", "IADD3.X R0, RZ, ~RZ, RZ, P0, !PT")
            assert result(*less, register=3) == a - b & MASK
            assert result(*less) == (a - b >> 32) & MASK
            scaled = (*low, "LEA R3, P0, R1, R2, 0x2", "LEA.HI.X R0, R1, RZ, RZ, 0x2, P0")
            assert result(*scaled) << 32 | result(*scaled, register=3) == 4 * a + b


def test_products_and_shifts() -> None:
    for a in WORDS:
        for b in WORDS[:8]:
            start = f"MOV R2, {a:#x}", f"MOV R3, {b:#x}", "MOV R4, 0x7", "MOV R5, 0x1"
            wide = (*start, "IMAD.WIDE.U32 R0, R2, R3, R4")
            expected = a * b + (1 << 32) + 7
            assert result(*wide) == expected & MASK
            assert result(*wide, register=1) == expected >> 32 & MASK
            assert result(*start, "IMAD.HI.U32 R0, R2, R3, R4") == expected >> 32 & MASK
            assert result(*start, "IMAD R0, R2, R3, -R4") == a * b - 7 & MASK
            signed = a - (a >> 31 << 32), b - (b >> 31 << 32)
            expected = signed[0] * signed[1] + (1 << 32) + 7
            assert result(*start, "IMAD.WIDE R0, R2, R3, R4", register=1) == expected >> 32 & MASK
            assert result(*start, "SHF.R.U32.HI R0, RZ, R3, R2") == (a >> b if b < 64 else 0)
            assert result(*start, "SHF.R.S32.HI R0, RZ, R3, R2") == signed[0] >> min(b, 31) & MASK
            assert result(*start, "SHF.L.U64.HI R0, R2, 0x3, R3") == (b << 32 | a) << 3 >> 32 & MASK


def test_logic_by_table_and_permuted_bytes() -> None:
    a, b, c = 0b11110000, 0b11001100, 0b10101010
    start = f"MOV R1, {a:#x}", f"MOV R2, {b:#x}", f"MOV R3, {c:#x}"
    for table in (0xC0, 0xFC, 0x3C, 0x96, 0xE8, 0x01):
        assert result(*start, f"LOP3.LUT R0, R1, R2, R3, {table:#x}, !PT") & 0xFF == table
    bytes_ = "MOV R1, 0x33221100", "MOV R2, 0x77665544"
    assert result(*bytes_, "PRMT R0, R1, 0x1054, R2") == 0x11005544
    kept = "ISETP.NE.AND P3, PT, RZ, 0x1, PT", "MOV R1, 0xff"
    assert result(*kept, "P2R R0, PR, R1, 0x48") == 0xBF  # P3 is true, P6 false


@pytest.mark.parametrize("name", ["LT", "LE", "GT", "GE", "EQ", "NE"])
def test_comparisons_of_two_words(name: str) -> None:
    python = {"LT": "<", "LE": "<=", "GT": ">", "GE": ">=", "EQ": "==", "NE": "!="}[name]
    pairs = [0, 1, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFF00000005, 2**64 - 1, 2**63]
    for a in pairs:
        for b in pairs:
            lines = [
                f"MOV R{k + 1}, {x:#x}"
                for k, x in enumerate((a & MASK, a >> 32, b & MASK, b >> 32))
            ]
            for kind, offset in ((".U32", 0), ("", 2**63)):
                x, y = ((v + offset) % 2**64 for v in (a, b))
                found = result(
                    *lines, f"ISETP.{name}.U32.AND P0, PT, R1, R3, PT",
                    f"ISETP.{name}{kind}.AND.EX P1, PT, R2, R4, PT, P0", "SEL R0, RZ, 0x1, !P1",
                )  # fmt: skip
                assert found == eval(f"{x} {python} {y}")


def test_comparisons_of_numbers_know_nan() -> None:
    for name, expected in (("GE", 0), ("GEU", 1), ("NE", 0), ("NEU", 1), ("EQ", 0), ("LT", 0)):
        lines = "MOV R1, 0x7fffffff", f"FSETP.{name}.AND P0, PT, R1, 1, PT", "SEL R0, RZ, 0x1, !P0"
        assert result(*lines) == expected, name
    assert result("MOV R1, 0x80000000", "FSETP.GE.AND P0, PT, R1, RZ, PT", "SEL R0, RZ, 0x1, !P0")
    assert result("MOV R1, 0x7fffffff", "FMNMX R0, R1, 2, PT") == 0x40000000
    assert result("MOV R1, 0x7fffffff", "FMNMX.NAN R0, R1, 2, PT") == 0x7FFFFFFF


DIVERGING = (
    "S2R R1, SR_TID.X",
    "LOP3.LUT P0, RZ, R1, 0x1, RZ, 0xc0, !PT",  # odd threads
    "BSSY B0, 0x70",
    "@P0 BRA 0x60",
    "MOV R0, 0x5",
    "BRA 0x70",
    "MOV R0, 0x9",
    "BSYNC B0",
    "IADD3 R0, R0, 0x1, RZ",
)


def test_lanes_part_and_meet_again() -> None:
    machine = run(*DIVERGING, threads=64)
    assert machine._registers[0].tolist() == [6, 10] * 32
    assert machine.executed == 10  # what follows once, for all


def test_lanes_wait_for_others_that_are_further_on() -> None:
    lines = list(DIVERGING[:3])
    lines += ["@P0 BRA 0x80", "MOV R0, 0x5", "BSYNC B0", "IADD3 R0, R0, 0x1, RZ", "EXIT"]
    machine = run(*lines, "MOV R0, 0x9", "BRA 0x50", threads=64)
    assert machine._registers[0].tolist() == [6, 10] * 32
    assert machine.executed == 11  # BSYNC alone twice


def test_a_lane_that_leaves_is_not_waited_for() -> None:
    lines = list(DIVERGING)
    lines[6] = "EXIT"
    machine = run(*lines)
    assert machine._registers[0].tolist()[::2] == [6] * 16


def test_lanes_shuffle_within_their_warp() -> None:
    for apart in (1, 2, 8, 16):
        machine = run(
            "S2R R1, SR_TID.X", "IADD3 R1, R1, 0x64, RZ", f"MOV R2, {apart:#x}", "MOV R3, 0x1f",
            "SHFL.BFLY P1, R0, R1, R2, R3", threads=64,
        )  # fmt: skip
        assert machine._registers[0].tolist() == [100 + (lane ^ apart) for lane in range(64)]
        assert machine._predicates[1].all()


# Odd threads are further on when even ones come to the WARPSYNC; both shuffle behind it.
GATHERED = (
    "S2R R1, SR_TID.X",
    "LOP3.LUT P0, RZ, R1, 0x1, RZ, 0xc0, !PT",
    "MOV R4, 0xffffffff",
    "@P0 BRA 0x80",
    "WARPSYNC R4",
    "SHFL.BFLY PT, R0, R1, 0x1, 0x1f",
    "IADD3 R0, R0, 0x1, RZ",
    "EXIT",
    "IADD3 R1, R1, 0x3e8, RZ",
    "BRA 0x40",
)


def test_a_warp_gathers_before_it_shuffles() -> None:
    machine = run(*GATHERED, threads=64)
    expected = [(lane ^ 1) + (1 if lane % 2 else 1001) for lane in range(64)]
    assert machine._registers[0].tolist() == expected
    with pytest.raises(RuntimeError, match="a lane shuffles with one that is elsewhere"):
        run(*GATHERED[:4], "NOP", *GATHERED[5:])


def test_a_warp_that_is_not_whole_takes_the_branch() -> None:
    lines = (*GATHERED[:3], "@P0 EXIT", "MOV R0, 0x5", "BRA.DIV ~URZ, 0x80", "EXIT", "NOP")
    machine = run(*lines, "MOV R0, 0x7", threads=32)
    assert machine._registers[0].tolist()[::2] == [7] * 16
    whole = run(*lines[:3], "NOP", *lines[4:], "MOV R0, 0x7", threads=32)
    assert whole._registers[0].tolist() == [5] * 32


def test_a_lane_that_breaks_is_not_waited_for() -> None:
    lines = list(DIVERGING)
    lines[6] = "BREAK B0"  # odd threads go on, and do not meet the others
    lines[7:7] = ["@P0 BRA 0xb0", "BSYNC B0", "IADD3 R0, R0, 0x1, RZ", "EXIT"]
    lines[5], lines[2] = "BRA 0x80", "BSSY B0, 0x80"
    machine = run(*lines[:11], "MOV R0, 0x9", threads=32)
    assert machine._registers[0].tolist() == [6, 9] * 16


def test_fp8_is_rounded_to_nearest_even() -> None:
    """Between any two neighbours: the middle to the even one, all else to the nearer."""
    code = np.arange(0x7F, dtype=np.uint32)
    exponent, fraction = code >> 3, code & 7
    low = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0))
    middle = (low[1:] + low[:-1]) / 2
    for x, expected in (
        (low, code),
        (middle, np.where(code[:-1] % 2 == 0, code[:-1], code[1:])),
        (np.nextafter(middle.astype(np.float32), np.float32(0)), code[:-1]),
        (np.nextafter(middle.astype(np.float32), np.float32(np.inf)), code[1:]),
    ):
        x = x.astype(np.float32)
        assert np.array_equal(arithmetic.to_fp8(x), expected)
        assert np.array_equal(arithmetic.to_fp8(-x), expected | np.uint32(0x80))
    ends = arithmetic.to_fp8(np.float32([449, 1e30, np.inf, -np.inf, np.nan]))
    assert ends.tolist() == [0x7E, 0x7E, 0x7E, 0xFE, 0x7F]


def test_larger_halves_and_packed_bytes() -> None:
    one, two, nan = 0x3F80, 0x4000, 0x7FFF  # bf16
    start = f"MOV R1, {two << 16 | one:#x}", f"MOV R2, {one << 16 | two:#x}"
    assert result(*start, "HMNMX2.BF16_V2.NAN R0, R1, R2, !PT") == two << 16 | two
    third = f"MOV R3, {nan:#x}"
    assert result(*start, third, "VHMNMX.BF16_V2.NAN R0, R1, R2, R3, !PT") == two << 16 | nan
    line = "F2FP.SATFINITE.E4M3.F32.PACK_AB_MERGE_C R0, 1.5, -1000, RZ"
    assert result(line) == 0x3C << 8 | 0xFE
    with pytest.raises(UnknownError, match="is not known"):
        run("HMNMX2.BF16_V2.NAN R0, R1, R2, PT")  # the smaller


def test_memory_allows_what_it_was_given_for() -> None:
    memory = Memory(4096)
    x = memory.copy(torch.arange(16, dtype=torch.int32)[4:8], LOAD | STORE)
    y = memory.copy(torch.zeros(4, dtype=torch.int32), ADD)
    at = lambda tensor, more: (tensor.data_ptr() + more).to_bytes(8, "little")  # noqa: E731

    def access(line: str, where: bytes) -> Machine:
        return run("LDC.64 R2, c[0x0][0x0]", line, memory=memory, parameters=where, threads=32)

    assert access("LDG.E R0, [R2.64+0x4]", at(x, 0))._registers[0][0] == 5
    access("RED.E.ADD.STRONG.GPU [R2.64], R255", at(y, 0))
    access("@P1 LDG.E R0, [R2.64]", at(y, 0))  # no lane does it
    for line, where, why in (
        ("LDG.E R0, [R2.64]", at(x, -4), "not allowed"),  # of its storage, but not of it
        ("LDG.E R0, [R2.64]", at(x, 16), "not allowed"),
        ("LDG.E R0, [R2.64]", at(x, 2), "misaligned"),
        ("LDG.E.128 R4, [R2.64+0x4]", at(x, -4 + 16 - 8), "not allowed|misaligned"),
        ("LDG.E R0, [R2.64]", at(y, 0), "load of 4 bytes"),
        ("RED.E.ADD.STRONG.GPU [R2.64], R0", at(x, 0), "atomic addition"),
        ("STG.E [R2.64], R0", at(y, 0), "store"),
        ("STG.E [R2.64], R0", bytes(8), "outside all memory"),
    ):
        with pytest.raises(AccessError, match=why):
            access(line, where)


def test_additions_count_their_sectors() -> None:
    memory = Memory(64 * 1024)
    x = memory.copy(torch.zeros(1024, dtype=torch.int32), ADD)
    start = "S2R R1, SR_TID.X", "LDC.64 R2, c[0x0][0x0]", "MOV R6, 0x1"
    where = x.data_ptr().to_bytes(8, "little")
    for shift, sectors in ((2, 8), (5, 64)):  # neighbouring words; a sector apart
        machine = run(
            *start, f"LEA R4, P0, R1, R2, {shift:#x}", f"LEA.HI.X R5, R1, R3, RZ, {shift:#x}, P0",
            "RED.E.ADD.STRONG.GPU [R4.64], R6", memory=memory, parameters=where, threads=64,
        )  # fmt: skip
        assert machine.sectors == [(5 * 16, 2, sectors)]
    assert int(x.sum()) == 128


def test_what_is_not_known_stops() -> None:
    for line in ("SHFL.UP PT, R0, R1, 0x1, 0x1f", "IADD3.FOO R0, R1, R2, RZ", "MUFU.SIN R0, R1"):
        with pytest.raises(UnknownError, match="is not known"):
            run(line)
    with pytest.raises(UnknownError, match="operand"):
        parse("SR_CLOCKLO")
    assert parse("-|R3|") == Operand("R", 3, negative=True, absolute=True)
    assert parse("c[0x2][R4+0x8]") == Operand("C", 2, offset=8, index=4)
    assert parse("c[0x2][UR4+0x8]") == Operand("C", 2, offset=8, index=4, uniform=True)
    assert parse("desc[UR4][R6.64+-0x10]") == Operand("A", 6, offset=-16)
