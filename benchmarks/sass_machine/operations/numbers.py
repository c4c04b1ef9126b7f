"""Floating point: float32, and two halves in a word."""

from dataclasses import replace

import numpy as np

from sass_machine import arithmetic
from sass_machine.machine import Machine, Step
from sass_machine.operands import TRUE, Operand, UnknownError
from sass_machine.operations.integers import COMPARE, combined
from sass_machine.operations.registry import operation


@operation("FMUL")
def multiply(m: Machine, s: Step) -> None:
    to, a, b = s.operands
    m.set(to, arithmetic.to_bits(m.number(a) * m.number(b)))


@operation("FADD", modifiers="FTZ")
def add_numbers(m: Machine, s: Step) -> None:
    to, a, b = s.operands
    x, y = m.number(a), m.number(b)
    if "FTZ" in s.modifiers:
        x, y = arithmetic.flushed(x), arithmetic.flushed(y)
        m.set(to, arithmetic.to_bits(arithmetic.flushed(x + y)))
    else:
        m.set(to, arithmetic.to_bits(x + y))


@operation("FFMA", modifiers="RM RP RZ")
def fuse(m: Machine, s: Step) -> None:
    to, a, b, c = s.operands
    mode = s.modifiers[0] if s.modifiers else "RN"
    x = arithmetic.fused(m.number(a), m.number(b), m.number(c))
    m.set(to, arithmetic.to_bits(arithmetic.rounded(x, mode)))


@operation("FMNMX", modifiers="NAN")
def number_bound(m: Machine, s: Step) -> None:
    to, a, b, least = s.operands
    x, y = m.number(a), m.number(b)
    # Of two zeros, -0 is the smaller.
    less = (x < y) | (x == y) & np.signbit(x) & ~np.signbit(y)
    result = np.where(less == m.predicate(least), x, y)
    if "NAN" in s.modifiers:
        result = np.where(np.isnan(x) | np.isnan(y), np.float32(np.nan), result)
    else:
        result = np.where(np.isnan(x), y, np.where(np.isnan(y), x, result))
    m.set(to, arithmetic.to_bits(result))


@operation("FSEL")
def select_number(m: Machine, s: Step) -> None:
    to, a, b, p = s.operands
    x, y = (np.asarray(m.number(o)).view(np.uint32) for o in (a, b))
    m.set(to, np.where(m.predicate(p), x, y))


@operation("FSETP", modifiers="AND OR FTZ LT LE GT GE EQ NE LTU LEU GTU GEU EQU NEU NUM NAN")
def compare_numbers(m: Machine, s: Step) -> None:
    a, b, also = s.operands[2:5]
    x, y = m.number(a), m.number(b)
    if "FTZ" in s.modifiers:
        x, y = arithmetic.flushed(x), arithmetic.flushed(y)
    name, unordered = s.modifiers[0], np.isnan(x) | np.isnan(y)
    if name in ("NUM", "NAN"):
        result = unordered if name == "NAN" else ~unordered
    elif name.endswith("U") and len(name) == 3:
        result = COMPARE[name[:2]](x, y) | unordered
    else:
        result = COMPARE[name](x, y) & ~unordered
    combined(m, s, result, also)


@operation("MUFU", modifiers="EX2 RCP RSQ")
def special_function(m: Machine, s: Step) -> None:
    to, a = s.operands
    m.set(to, arithmetic.to_bits(arithmetic.special(s.modifiers[0], m.number(a), m.error)))


@operation("FCHK")
def check_division(m: Machine, s: Step) -> None:
    """True where a quotient needs the long way, which is right everywhere."""
    to, a, b = s.operands
    x, y = ((m.word(o) >> np.uint32(23) & np.uint32(255)).astype(np.int32) for o in (a, b))
    apart = x - y
    far = (y == 0) | (y >= 252) | (x == 255) | (x < 25) | (apart > 120) | (apart < -120)
    m.set_predicate(to, far)


@operation("I2F", modifiers="U32 RP")
def to_number(m: Machine, s: Step) -> None:
    to, a = s.operands
    if "U32" not in s.modifiers:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    x = np.asarray(m.word(a)).astype(np.float64)
    m.set(to, arithmetic.to_bits(arithmetic.rounded(x, "RP" if "RP" in s.modifiers else "RN")))


@operation("F2I", modifiers="FTZ U32 TRUNC NTZ")
def to_integer(m: Machine, s: Step) -> None:
    to, a = s.operands
    x = np.asarray(m.number(a)).astype(np.float64)
    m.set(to, np.clip(np.nan_to_num(x, nan=0.0), 0, 2**32 - 1).astype(np.uint32))


# --- halves ---------------------------------------------------------------------------------------


def halves(m: Machine, s: Step, count: int) -> list[list[np.ndarray]]:
    """[operand][low, high] as float32. Of two numbers in place of a word, the first is high."""
    bf16 = "BF16_V2" in s.modifiers
    values, rest = [], list(s.operands[1:])
    for _ in range(count):
        o = rest.pop(0)
        if o.kind == "F":
            low = rest.pop(0)
            values.append([np.float32(low.value), np.float32(o.value)])
            continue
        word = m.word(o)
        pair = [word, word >> np.uint32(16)]
        pair = pair if o.half is None else [pair[o.half]] * 2
        pair = [arithmetic.from_half(x, bf16) for x in pair]
        pair = [np.abs(x) if o.absolute else x for x in pair]
        values.append([-x if o.negative else x for x in pair])
    if rest:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    return values


def set_halves(m: Machine, s: Step, pair: list[np.ndarray]) -> None:
    low, high = (arithmetic.to_half(x, "BF16_V2" in s.modifiers) for x in pair)
    m.set(s.operands[0], low | high << np.uint32(16))


@operation("HFMA2", modifiers="MMA BF16_V2")
def fuse_halves(m: Machine, s: Step) -> None:
    a, b, c = halves(m, s, 3)
    set_halves(m, s, [arithmetic.fused(a[k], b[k], c[k]) for k in range(2)])


@operation("HMUL2", modifiers="BF16_V2")
def multiply_halves(m: Machine, s: Step) -> None:
    a, b = halves(m, s, 2)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    set_halves(m, s, [a[k] * b[k] for k in range(2)])


@operation("HADD2", modifiers="F32 BF16_V2")
def add_halves(m: Machine, s: Step) -> None:
    a, b = halves(m, s, 2)
    if "F32" in s.modifiers:
        m.set(s.operands[0], arithmetic.to_bits(a[0] + b[0]))
    else:
        one = np.float64(1)
        set_halves(m, s, [arithmetic.fused(a[k], one, b[k]) for k in range(2)])


@operation("HMNMX2", "VHMNMX", modifiers="NAN BF16_V2")
def bound_halves(m: Machine, s: Step) -> None:
    """The larger of two or three; the smaller is not used by these kernels."""
    values = s.operands[1:-1]
    if "NAN" not in s.modifiers or s.operands[-1] != Operand("P", TRUE, inverted=True):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    pairs = halves(m, replace(s, operands=(s.operands[0], *values)), len(values))
    set_halves(m, s, [np.maximum.reduce([pair[k] for pair in pairs]) for k in range(2)])


@operation("F2FP", modifiers="BF16 F16 F32 PACK_AB RELU SATFINITE E4M3 PACK_AB_MERGE_C")
def pack(m: Machine, s: Step) -> None:
    if "E4M3" in s.modifiers:
        pack_bytes(m, s)
        return
    to, high, low = s.operands
    words = []
    for o in (low, high):
        x = m.number(o)
        if "RELU" in s.modifiers:
            x = np.where((x > 0) | np.isnan(x), x, np.float32(0))
        words.append(arithmetic.to_half(x, "BF16" in s.modifiers))
    m.set(to, words[0] | words[1] << np.uint32(16))


def pack_bytes(m: Machine, s: Step) -> None:
    """Two numbers as bytes of e4m3fn in the low half of a word; what they come on top of is 0."""
    to, high, low, base = s.operands
    if "SATFINITE" not in s.modifiers or np.any(m.word(base)):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    words = [arithmetic.to_fp8(m.number(o)) for o in (low, high)]
    m.set(to, words[0] | words[1] << np.uint32(8))
