"""Floating point as the machine rounds it, on arrays of lanes.

Sums and products of float32 are NumPy's own: IEEE 754, to nearest even, subnormals kept. What is
fused or narrower goes through float64, rounded *to odd*: the last bit is set if anything was lost.
Rounding that again to a format of at least two digits less is as good as rounding once.
"""

import numpy as np

from sass_machine.operands import UnknownError

NAN = np.uint32(0x7FFFFFFF)


def to_bits(x: np.ndarray) -> np.ndarray:
    """The words of float32 lanes; every NaN is the machine's own."""
    x = np.asarray(x, np.float32)
    return np.where(np.isnan(x), NAN, x.view(np.uint32))


def from_bits(word: np.ndarray) -> np.ndarray:
    """float32 lanes of words."""
    return np.asarray(word, np.uint32).view(np.float32)


def flushed(x: np.ndarray) -> np.ndarray:
    """Subnormals as zeros of their sign."""
    x = np.asarray(x, np.float32)
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c in float64, rounded to odd. The product of two float32 is exact there."""
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    product = a * b
    total = np.asarray(product + c)
    other = total - product
    lost = (product - (total - other)) + (c - other)
    bits = total.view(np.int64)
    step = np.where((lost > 0) == (total > 0), 1, -1)
    inexact = np.isfinite(total) & (lost != 0) & (bits & 1 == 0)
    return np.where(inexact, bits + step, bits).view(np.float64)


def rounded(x: np.ndarray, mode: str = "RN") -> np.ndarray:
    """float64 lanes as float32; RN to nearest even, RZ to 0, RM down, RP up."""
    x = np.asarray(x, np.float64)
    near = np.asarray(x.astype(np.float32))
    if mode == "RN":
        return near
    if mode == "RZ":
        return np.where(np.abs(near) > np.abs(x), np.nextafter(near, np.float32(0)), near)
    end = np.float32(-np.inf if mode == "RM" else np.inf)
    beyond = near > x if mode == "RM" else near < x
    return np.where(beyond, np.nextafter(near, end), near)


def to_half(x: np.ndarray, bf16: bool) -> np.ndarray:
    """The 16 bits of float64 lanes as bf16 or fp16, to nearest even, as uint32.

    x: exact, or rounded to odd.
    """
    x = np.asarray(x, np.float64)
    if not bf16:
        half = x.astype(np.float16).view(np.uint16).astype(np.uint32)
        return np.where(np.isnan(x), np.uint32(0x7FFF), half)
    toward_zero = rounded(x, "RZ")
    word = toward_zero.view(np.uint32) | (toward_zero != x)  # to odd again, in float32
    word = word + np.uint32(0x7FFF) + (word >> np.uint32(16) & np.uint32(1)) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), word)


def from_half(word: np.ndarray, bf16: bool) -> np.ndarray:
    """float32 lanes of the low 16 bits of words."""
    low = np.asarray(word & np.uint32(0xFFFF))
    if bf16:
        return from_bits(low << np.uint32(16))
    return low.astype(np.uint16).view(np.float16).astype(np.float32)


def to_fp8(x: np.ndarray) -> np.ndarray:
    """The code in e4m3fn of float32 lanes, to nearest even, beyond 448 as 448; NaN is 0x7f."""
    size = np.minimum(np.abs(np.asarray(x, np.float64)), 448)
    leading = np.where(size > 0, np.frexp(size)[1] - 1, -6)
    exponent = np.maximum(leading, -6)  # subnormal numbers share the last one
    eighths = np.rint(np.ldexp(size, 3 - exponent))  # of 2^exponent: 8 to 16, or below 8
    code = (exponent + 7) * 8 + np.where(np.isnan(size), 0, eighths) - 8
    sign = np.where(np.signbit(x), 0x80, 0)
    return np.where(np.isnan(size), 0x7F, code.astype(np.int64) | sign).astype(np.uint32)


def special(function: str, x: np.ndarray, error: float) -> np.ndarray:
    """The special function unit: 2^x, 1/x or 1/sqrt(x) of float32; subnormals count as zero.

    error: relative, of 2^x. If it is not 0, the others are off by less than a unit in the last
    place, on which the division of integers relies. A hash of the result says in which direction,
    or that there is none.
    """
    wide = flushed(x).astype(np.float64)
    if function == "EX2":
        y = np.exp2(wide)
    elif function == "RCP":
        y = 1 / wide
    elif function == "RSQ":
        y = 1 / np.sqrt(wide)
    else:
        raise UnknownError(f"sass_machine: MUFU.{function} is not known")
    near = np.asarray(y, np.float32)
    if error:
        hashed = near.view(np.uint32) * np.uint32(2654435761) >> np.uint32(30)
        way = np.array([-1.0, 0.0, 0.0, 1.0])[hashed]
        if function == "EX2":
            near = (y * (1 + error * way)).astype(np.float32)
        else:
            other = np.nextafter(near, np.where((near > y), -np.inf, np.inf).astype(np.float32))
            wanted = (way != 0) & (np.sign(other.astype(np.float64) - y) == way)
            near = np.where(wanted & (near != y), other, near)
    return flushed(near)
