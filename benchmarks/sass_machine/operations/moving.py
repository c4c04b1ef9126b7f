"""Between registers, constants and memory; and from instruction to instruction."""

from collections.abc import Callable

import numpy as np

from sass_machine.machine import Machine, Step
from sass_machine.memory import AccessError
from sass_machine.operands import TRUE, Operand, UnknownError
from sass_machine.operations.registry import BITS, operation, u32, u64


@operation("NOP", "YIELD", "ENDCOLLECTIVE")
def nothing(m: Machine, s: Step) -> None:
    """Nothing that a result could show."""


@operation("MOV", "UMOV")
def move(m: Machine, s: Step) -> None:
    m.set(s.operands[0], m.integer(s.operands[1]))


@operation("S2R", "S2UR")
def special_register(m: Machine, s: Step) -> None:
    if s.operands[1].number == 0:
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    m.set(s.operands[0], (m.thread if s.operands[1].number == 1 else m.block)[m.at])


@operation("CS2R")
def clear_pair(m: Machine, s: Step) -> None:
    if s.operands[1] != Operand("S", 0):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    m.set_wide(s.operands[0], np.uint64(0))


@operation("LDC", "ULDC", modifiers="64 U8 U16")
def load_constant(m: Machine, s: Step) -> None:
    to, source = s.operands
    for name, dtype in (("U8", np.uint8), ("U16", np.uint16)):
        if name in s.modifiers:
            m.set(to, np.asarray(m.constant(source, 0, dtype)).astype(np.uint32))
            return
    for k in range(2 if "64" in s.modifiers else 1):
        m.set(to, m.word(source, k), k)


@operation("SEL", "USEL")
def select(m: Machine, s: Step) -> None:
    to, a, b, p = s.operands
    m.set(to, np.where(m.predicate(p), m.integer(a), m.integer(b)))


@operation("PRMT")
def permute(m: Machine, s: Step) -> None:
    to, a, selector, b = s.operands
    eight = u64(m.word(b)) << BITS | u64(m.word(a))
    chosen, word = m.word(selector), np.uint32(0)
    for k in range(4):
        which = chosen >> np.uint32(4 * k) & np.uint32(15)
        if np.any(which > 7):
            raise UnknownError(f"sass_machine: {s.text!r} repeats a sign, which is not known")
        word = word | u32(eight >> u64(which) * np.uint64(8) & np.uint64(255)) << np.uint32(8 * k)
    m.set(to, word)


@operation("P2R")
def pack_predicates(m: Machine, s: Step) -> None:
    to, _, keep, mask = s.operands
    word = sum(
        (np.asarray(m.predicate(Operand("P", n))).astype(np.uint32) << np.uint32(n)
         for n in range(TRUE)), np.uint32(0)
    )  # fmt: skip
    m.set(to, m.word(keep) & ~m.word(mask) | word & m.word(mask))


@operation("R2P")
def unpack_predicates(m: Machine, s: Step) -> None:
    _, source, mask = s.operands
    for n in range(TRUE):
        if int(m.word(mask)) >> n & 1:
            m.set_predicate(Operand("P", n), m.word(source) >> np.uint32(n) & np.uint32(1) == 1)


@operation("SHFL", modifiers="BFLY")
def shuffle(m: Machine, s: Step) -> None:
    """Only within whole warps, so that the lane it asks for is always one of them."""
    _, to, source, change, bounds = s.operands
    if np.any(m.word(bounds) != 31) or np.any(m.word(change) > 31):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    value = np.broadcast_to(m.word(source), m.lanes().shape)
    m.set(to, m.of_lane(value, m.word(change)))
    m.set_predicate(s.operands[0], np.ones(m.lanes().shape, bool))


# --- memory ---------------------------------------------------------------------------------------


def access_size(s: Step) -> int:
    sizes = {"128": 16, "64": 8, "U16": 2}
    return next((size for name, size in sizes.items() if name in s.modifiers), 4)


@operation("LDG", modifiers="E EF CONSTANT 64 128 U16")
def load(m: Machine, s: Step) -> None:
    to, place = s.operands
    for k, word in enumerate(at_fault(m, s, m.memory.load, m.address(place), access_size(s))):
        m.set(to, word, k)


@operation("STG", modifiers="E EF 64 128 U16")
def store(m: Machine, s: Step) -> None:
    place, source = s.operands
    size, address = access_size(s), m.address(place)
    words = [np.broadcast_to(m.word(source, k), address.shape) for k in range(max(1, size // 4))]
    at_fault(m, s, m.memory.store, address, words, size)


@operation("RED", "REDG", modifiers="E ADD STRONG GPU")
def atomic_add(m: Machine, s: Step) -> None:
    place, source = s.operands
    address = m.address(place)
    at_fault(m, s, m.memory.add, address, np.broadcast_to(m.word(source), address.shape))
    m.note_sectors(s, address)


def at_fault(m: Machine, s: Step, call: Callable, *arguments: object) -> list[np.ndarray]:
    """Call it; say which instruction was at fault."""
    require_waited(m, s)
    try:
        return call(*arguments)
    except AccessError as fault:
        raise AccessError(f"{fault}, by {s.address:#x} {s.text}") from None


# --- earlier and later kernels --------------------------------------------------------------------


@operation("ACQBULK")
def wait_for_earlier_kernels(m: Machine, s: Step) -> None:
    """griddepcontrol.wait"""
    m.waited[m.at] = True


@operation("PREEXIT")
def let_the_next_kernel_start(m: Machine, s: Step) -> None:
    """griddepcontrol.launch_dependents"""
    require_waited(m, s)


def require_waited(m: Machine, s: Step) -> None:
    if not m.waited[m.at].all():
        raise AccessError(
            f"sass_machine: {s.address:#x} {s.text} comes before the wait for earlier kernels"
        )


# --- where to go ----------------------------------------------------------------------------------


@operation("BSSY")
def join(m: Machine, s: Step) -> None:
    m.join(s.operands[0].number)


@operation("BSYNC")
def meet(m: Machine, s: Step) -> int:
    m.meet(s.operands[0].number)
    return s.address + 16


@operation("BREAK")
def part(m: Machine, s: Step) -> None:
    m.part(s.operands[0].number)


@operation("WARPSYNC", modifiers="COLLECTIVE")
def gather(m: Machine, s: Step) -> int:
    """Also the first of a block that is executed together, to ENDCOLLECTIVE."""
    if np.any(m.integer(s.operands[0]) != np.uint32(0xFFFFFFFF)):
        raise UnknownError(f"sass_machine: {s.text!r} is not known")
    m.gather()
    return s.address + 16


@operation("EXIT")
def leave(m: Machine, s: Step) -> int:
    m.leave()
    return s.address + 16


@operation("BRA", "CALL", modifiers="REL NOINC DIV")
def branch(m: Machine, s: Step) -> "np.ndarray | int":
    *conditions, target = s.operands
    if (
        "DIV" in s.modifiers
    ):  # if the warp is not all here; whether lanes that left count is not known
        if np.any(m.integer(conditions[0]) != np.uint32(0xFFFFFFFF)):
            raise UnknownError(f"sass_machine: {s.text!r} is not known")
        return np.where(m.complete(), s.address + 16, target.number)
    if not conditions:
        return target.number
    go = np.logical_and.reduce([m.predicate(o) for o in conditions])
    return np.where(go, target.number, s.address + 16)


@operation("BRX", "BRXU")
def branch_indexed(m: Machine, s: Step) -> np.ndarray:
    base, offset = s.operands
    return (m.word(base) + np.uint32(offset.number) + np.uint32(s.address + 16)).astype(np.int32)


@operation("RET", modifiers="REL NODEC")
def back(m: Machine, s: Step) -> np.ndarray:
    base, offset = s.operands
    return (m.word(base) + np.uint32(offset.number)).astype(np.int32)
