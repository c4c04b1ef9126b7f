"""Integers, bits and predicates."""

from collections.abc import Callable

import numpy as np

from sass_machine.machine import Machine, Step
from sass_machine.operands import TRUE, ZERO_REGISTER, ZERO_UNIFORM, Operand, UnknownError
from sass_machine.operations.registry import BITS, ONES, operation, signed, u32, u64

_ZEROS = (Operand("R", ZERO_REGISTER), Operand("U", ZERO_UNIFORM))


def sources(s: Step, first: int = 1) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """(predicates written, values read, predicates read) behind a destination."""
    written = []
    rest = list(s.operands[first:])
    while rest and rest[0].kind in ("P", "UP"):
        written.append(rest.pop(0))
    values = [o for o in rest if o.kind not in ("P", "UP")]
    return written, values, [o for o in rest if o.kind in ("P", "UP")]


def summed(m: Machine, s: Step, terms: list[np.ndarray], carries: list[Operand]) -> np.ndarray:
    """The sum of terms below 2^33 and of carries, if the operation takes them."""
    total = sum(terms, np.uint64(0))
    if "X" in s.modifiers:
        for p in carries:
            total = total + u64(m.predicate(p))
    return total


def term(m: Machine, o: Operand, extended: bool) -> np.ndarray:
    """An operand of a sum of several words. -x is ~x + 1, so that x = 0 carries."""
    x = u64(m.word(o))
    if o.inverted:
        return x ^ ONES
    if o.negative:
        return (x ^ ONES) + np.uint64(0 if extended else 1)
    return x


@operation("IADD3", "UIADD3", "VIADD", modifiers="X")
def add(m: Machine, s: Step) -> None:
    written, values, read = sources(s)
    extended = "X" in s.modifiers
    if extended and any(o.negative for o in values):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    total = summed(m, s, [term(m, o, extended) for o in values], read)
    m.set(s.operands[0], u32(total))
    for k, p in enumerate(written):
        m.set_predicate(p, total >> BITS > np.uint64(k))


@operation("IMAD", "UIMAD", modifiers="X MOV U32 IADD SHL WIDE HI")
def multiply_add(m: Machine, s: Step) -> None:
    written, (a, b, c), read = sources(s)
    to, unsigned = s.operands[0], "U32" in s.modifiers
    wide = "WIDE" in s.modifiers or "HI" in s.modifiers
    changed = "X" in s.modifiers or any(o.negative or o.inverted for o in (a, b, c))
    if changed if wide else written:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    if not wide:
        product = u64(m.integer(a)) * u64(m.integer(b)) & ONES
        m.set(to, u32(summed(m, s, [product, term(m, c, "X" in s.modifiers)], read)))
        return
    if unsigned:
        product = u64(m.word(a)) * u64(m.word(b))
    else:
        product = (signed(m.word(a)).astype(np.int64) * signed(m.word(b))).view(np.uint64)
    total = product + m.wide(c)
    for p in written:
        m.set_predicate(p, total < product)
    if "WIDE" in s.modifiers:
        m.set_wide(to, total)
    else:
        m.set(to, u32(total >> BITS))


@operation("LEA", "ULEA", modifiers="HI X SX32")
def shift_add(m: Machine, s: Step) -> None:
    written, values, read = sources(s)
    to, extended = s.operands[0], "X" in s.modifiers
    if "HI" not in s.modifiers:
        a, b, by = values
        shifted = u64(m.integer(a) << m.word(by))
    elif "SX32" in s.modifiers:
        a, b, by = values
        whole = signed(m.integer(a)).astype(np.int64).view(np.uint64)
        shifted = (whole << u64(m.word(by))) >> BITS
    else:
        a, b, high, by = values
        whole = u64(m.word(high)) << BITS | u64(m.integer(a))
        shifted = (whole << u64(m.word(by))) >> BITS
    total = summed(m, s, [shifted & ONES, term(m, b, extended)], read)
    m.set(to, u32(total))
    for p in written:
        m.set_predicate(p, total >> BITS != 0)


@operation("SHF", "USHF", modifiers="L R U32 S32 U64 HI")
def shift(m: Machine, s: Step) -> None:
    to, low, by, high = s.operands
    n = np.minimum(u64(m.word(by)), np.uint64(63))
    whole = u64(m.word(high)) << BITS | u64(m.word(low))
    if "L" in s.modifiers:
        result = whole << n
        m.set(to, u32(result >> BITS if "HI" in s.modifiers else result))
    elif "U64" in s.modifiers and "HI" not in s.modifiers:
        m.set(to, u32(whole >> n))
    elif "HI" not in s.modifiers or low not in _ZEROS:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    elif "S32" in s.modifiers:
        by_most_31 = np.minimum(n, np.uint64(31)).astype(np.int32)
        m.set(to, (signed(m.word(high)) >> by_most_31).view(np.uint32))
    else:
        m.set(to, u32(whole >> BITS >> n))


def looked_up(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: int) -> np.ndarray:
    """Bit by bit, the entry 4 a + 2 b + c of an 8-bit table."""
    result = a & ~a
    for k in range(8):
        if table >> k & 1:
            result = result | (
                (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
            )  # fmt: skip
    return result


@operation("LOP3", "ULOP3", modifiers="LUT")
def logic(m: Machine, s: Step) -> None:
    predicate = s.operands[0].kind in ("P", "UP")
    to = s.operands[1 if predicate else 0]
    a, b, c, table, also = s.operands[2 if predicate else 1 :]
    word = looked_up(m.integer(a), m.integer(b), m.integer(c), table.number)
    m.set(to, word)
    if predicate:
        m.set_predicate(s.operands[0], (word != 0) | m.predicate(also))


@operation("PLOP3", "UPLOP3", modifiers="LUT")
def predicate_logic(m: Machine, s: Step) -> None:
    to, second, a, b, c, table, other = s.operands
    values = [np.asarray(m.predicate(p)) for p in (a, b, c)]
    first = looked_up(*values, table.number)
    if second.number != TRUE:
        m.set_predicate(second, looked_up(*values, other.number))
    m.set_predicate(to, first)


@operation("IMNMX", "VIMNMX", modifiers="U32")
def integer_bound(m: Machine, s: Step) -> None:
    to, a, b, least = s.operands
    bound(m, s, to, m.integer(a), m.integer(b), least)


@operation("VIADDMNMX", modifiers="U32")
def add_and_bound(m: Machine, s: Step) -> None:
    to, a, b, c, least = s.operands
    bound(m, s, to, m.integer(a) + m.integer(b), m.integer(c), least)


def bound(m: Machine, s: Step, to: Operand, a: np.ndarray, b: np.ndarray, least: Operand) -> None:
    """The smaller of two where a predicate holds, else the larger."""
    less = a < b if "U32" in s.modifiers else signed(a) < signed(b)
    m.set(to, np.where(less == m.predicate(least), a, b))


COMPARE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal,
    "EQ": np.equal, "NE": np.not_equal,
}  # fmt: skip


def combined(m: Machine, s: Step, result: np.ndarray, with_: Operand) -> None:
    """Write a comparison, and or or a predicate; the second result is not used by these kernels."""
    if s.operands[1].number != TRUE:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    also = m.predicate(with_)
    m.set_predicate(s.operands[0], result | also if "OR" in s.modifiers else result & also)


@operation("ISETP", "UISETP", modifiers="U32 EX AND OR LT LE GT GE EQ NE")
def compare_integers(m: Machine, s: Step) -> None:
    a, b, also = s.operands[2:5]
    x, y = m.integer(a), m.integer(b)
    if "U32" not in s.modifiers:
        x, y = signed(x), signed(y)
    name = s.modifiers[0]
    result = COMPARE[name](x, y)
    if "EX" in s.modifiers:  # the words above those of an earlier comparison
        lower = m.predicate(s.operands[5])
        if name == "NE":
            result = result | lower
        else:
            strict = {"LE": "LT", "GE": "GT"}.get(name, name)
            apart = COMPARE[strict](x, y) if name != "EQ" else np.zeros_like(result)
            result = apart | (x == y) & lower
    combined(m, s, result, also)
