"""The operands of an instruction, from their text."""

import functools
import math
import re
import struct
from dataclasses import dataclass, replace

ZERO_REGISTER, ZERO_UNIFORM, TRUE = 255, 63, 7


class UnknownError(Exception):
    """An operand, an operation or a form of one that this machine does not have."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand.

    kind: R register, U uniform register, P predicate, UP uniform predicate, C constant, I integer,
        F number, A address, S special register, B barrier.
    number: of the register, or the bank of a constant; or the bits of an integer.
    value: of a number.
    offset: of an address or a constant, in bytes; index: the register added to it, or None, which
        is a uniform one if `uniform`.
    negative, inverted, absolute: what happens to the value; a predicate is only inverted.
    half: 0 or 1 if one half of the word is meant twice.
    """

    kind: str
    number: int = 0
    value: float = 0.0
    offset: int = 0
    index: int | None = None
    uniform: bool = False
    negative: bool = False
    inverted: bool = False
    absolute: bool = False
    half: int | None = None

    @property
    def bits(self) -> int:
        """The 32 bits of an integer or a number."""
        if self.kind == "I":
            return self.number
        if math.isnan(self.value):
            return 0xFFC00000 if math.copysign(1, self.value) < 0 else 0x7FC00000
        return int(struct.unpack("<I", struct.pack("<f", self.value))[0])


def split(operation: str, text: str) -> list[str]:
    """The texts of an instruction's operands."""
    text = text.replace("] [", "][").replace(".reuse", "").strip()
    separator = r"\s+" if operation.startswith(("BRX", "RET")) else r"\s*,\s*"
    return [part.strip() for part in re.split(separator, text) if part.strip()]


@functools.cache
def parse(text: str) -> Operand:
    """What one operand names. Raises UnknownError if its form is."""
    if match := re.fullmatch(r"(.*)\.H([01])_H\2", text):
        return replace(parse(match[1]), half=int(match[2]))
    if match := re.fullmatch(r"(?:desc\[UR\d+\])?\[R(\d+|Z)\.64(?:\+(-?0x[0-9a-f]+))?\]", text):
        return Operand("A", _register(match[1]), offset=int(match[2] or "0", 16))
    if match := re.fullmatch(r"-?0x[0-9a-f]+", text):
        return Operand("I", int(text, 16) & 0xFFFFFFFF)
    if re.fullmatch(r"[+-]?(\d+(\.\d+)?(e[+-]?\d+)?|INF|QNAN)", text):
        return Operand("F", value=float(text.replace("QNAN", "NAN")))
    if text[0] == "!":
        return replace(parse(text[1:]), inverted=True)
    if text[0] == "~":
        return replace(parse(text[1:]), inverted=True)
    if text[0] == "-":
        return replace(parse(text[1:]), negative=True)
    if text[0] == "|":
        return replace(parse(text.strip("|")), absolute=True)
    if match := re.fullmatch(r"c\[(0x\w+)\]\[(?:(U?)R(\d+|Z)\+?)?(-?0x\w+)?\]", text):
        index = None if match[3] is None else _register(match[3])
        offset, uniform = int(match[4] or "0", 16), match[2] == "U"
        if uniform and match[3] == "Z":
            index = ZERO_UNIFORM
        return Operand("C", int(match[1], 16), offset=offset, index=index, uniform=uniform)
    for kind, name in (("UP", "UP"), ("P", "P"), ("U", "UR"), ("R", "R"), ("B", "B")):
        if match := re.fullmatch(name + r"(\d+|[ZT])", text):
            last = {"U": ZERO_UNIFORM, "R": ZERO_REGISTER}.get(kind, TRUE)
            return Operand(kind, last if match[1] in "ZT" else int(match[1]))
    if text in ("SRZ", "SR_TID.X", "SR_CTAID.X", "PR"):
        return Operand("S", ("SRZ", "SR_TID.X", "SR_CTAID.X", "PR").index(text))
    raise UnknownError(f"sass_machine: the operand {text!r} is not known")


def _register(text: str) -> int:
    return ZERO_REGISTER if text == "Z" else int(text)
