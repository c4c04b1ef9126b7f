"""Warps of a simulated device: which lanes execute next, and where they wait for each other.

All lanes of the grid that stand at the same address execute together, as one array operation. The
lowest address goes first, so that lanes which a branch has separated meet again; a lane at BSYNC
waits for all that passed the BSSY with it, as on the device. Warps of the grid share memory and
nothing else, so that this is one of the orders in which a device may run them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sass_machine.memory import Memory
from sass_machine.operands import (
    TRUE,
    ZERO_REGISTER,
    ZERO_UNIFORM,
    Operand,
    UnknownError,
    parse,
    split,
)

if TYPE_CHECKING:
    from sass_machine.operations import Operation

WARP = 32
GATHERING = 16  # in place of a barrier's number
_NOWHERE = np.int32(2**31 - 1)
_EVERYWHERE = slice(None)


@dataclass(frozen=True)
class Step:
    """A decoded instruction."""

    address: int
    guard: Operand | None
    name: str  # of the operation
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    text: str

    @classmethod
    def of(cls, address: int, guard: str, operation: str, operands: str) -> "Step":
        """From what cuobjdump prints."""
        name, *modifiers = operation.split(".")
        parsed = tuple(parse(text) for text in split(operation, operands))
        condition = parse(guard.strip("@ ")) if guard else None
        text = f"{guard} {operation} {operands}".strip()
        return cls(address, condition, name, tuple(modifiers), parsed, text)


class Machine:
    """One launch. `run` executes it.

    code: the kernel's instructions, from address 0 on, 16 bytes each.
    operations: name -> what it does (operations.py).
    banks: bank -> bytes of its constants.
    error: of the special function unit (arithmetic.special).
    early: it is launched while earlier kernels may run, so that no lane may touch memory, or let
        the next kernel start, before it has waited for them.
    """

    def __init__(
        self,
        code: Sequence[Step],
        operations: Mapping[str, "Operation"],
        banks: Mapping[int, bytes],
        memory: Memory,
        blocks: int,
        threads: int,
        error: float = 0.0,
        early: bool = False,
    ) -> None:
        if threads % WARP:
            raise ValueError(f"sass_machine: a block must have whole warps, got {threads} threads")
        self._code, self._operations, self.memory, self.error = code, operations, memory, error
        self._banks = {n: np.frombuffer(data, np.uint8) for n, data in banks.items()}
        lanes = blocks * threads
        # What a lane finds before it has written it is poison, but for the constant registers.
        self._registers = np.full((256, lanes), 0xCDCDCDCD, np.uint32)
        self._registers[ZERO_REGISTER] = 0
        self._uniform = np.full((64, lanes // WARP), 0xCDCDCDCD, np.uint32)
        self._uniform[ZERO_UNIFORM] = 0
        self._predicates = np.zeros((8, lanes), bool)
        self._uniform_predicates = np.zeros((8, lanes // WARP), bool)
        self._predicates[TRUE] = self._uniform_predicates[TRUE] = True
        self.thread = np.arange(lanes, dtype=np.uint32) % np.uint32(threads)
        self.block = np.arange(lanes, dtype=np.uint32) // np.uint32(threads)
        self._warp = np.arange(lanes) // WARP
        self._pc = np.zeros(lanes, np.int32)
        self._done = np.zeros(lanes, bool)
        self.waited = np.full(lanes, not early)  # for earlier kernels
        self._waits = np.full(lanes, -1, np.int8)  # for which barrier, or GATHERING
        self._party = np.full((16, lanes), -1, np.int64)  # of a barrier: who passed BSSY together
        self._parties = 0
        # The lanes that execute now, all at `here`; no other stands before `next_other`.
        self.at: slice | np.ndarray = _EVERYWHERE
        self.here = 0
        self._next_other = int(_NOWHERE)
        self.executed = 0
        self.sectors: list[tuple[int, int, int]] = []  # address, warps, sectors of each addition

    def run(self, limit: int = 5_000_000) -> None:
        """Execute until every lane has left. Raises RuntimeError after `limit` steps."""
        with np.errstate(all="ignore"):
            while not self._done.all():
                self._schedule()
                while self.here < self._next_other:
                    self.executed += 1
                    if self.executed > limit:
                        raise RuntimeError(f"sass_machine: no end after {limit} steps")
                    if not self._step(self._code[self.here // 16]):
                        break
                else:
                    self._pc[self.at] = self.here

    def _schedule(self) -> None:
        ready = ~self._done & (self._waits < 0)
        if not ready.any():
            raise RuntimeError("sass_machine: every lane waits at a BSYNC")
        pc = np.where(ready, self._pc, _NOWHERE)
        self.here = int(pc.min())
        now = pc == self.here
        self.at = _EVERYWHERE if now.all() else np.flatnonzero(now)
        self._next_other = int(np.where(now, _NOWHERE, pc).min())

    def _step(self, step: Step) -> bool:
        """Execute it in the lanes that stand there; False if they must be scheduled again."""
        everyone = self.at
        if step.guard is not None:
            true = self.predicate(step.guard)
            if not true.all():
                self.at = self.lanes()[true]
        target = None
        if self.at is everyone or len(self.at):
            if step.name not in self._operations:
                raise UnknownError(f"sass_machine: {step.text!r} is not known")
            target = self._operations[step.name](self, step)
        if target is not None:
            self._pc[everyone] = self.here + 16
            self._pc[self.at] = target
            return False
        self.at = everyone
        self.here += 16
        return True

    # --- lanes ------------------------------------------------------------------------------------

    def lanes(self) -> np.ndarray:
        """[n] indices of the lanes that execute now."""
        return np.arange(len(self._pc)) if isinstance(self.at, slice) else self.at

    def leave(self) -> None:
        """EXIT: those who wait for these lanes wait no more."""
        self._done[self.at] = True
        for barrier in np.unique(self._waits[self._waits >= 0]):
            self._release(int(barrier))

    def join(self, barrier: int) -> None:
        """BSSY: these lanes of each warp will meet at the barrier's BSYNC."""
        warps = len(self._uniform[0])
        self._party[barrier][self.at] = self._warp[self.at] + self._parties * warps
        self._parties += 1

    def meet(self, barrier: int) -> None:
        """BSYNC: wait for the others."""
        self._waits[self.at] = barrier
        self._release(barrier)

    def part(self, barrier: int) -> None:
        """BREAK: these lanes will not meet the others there."""
        self._party[barrier][self.at] = -1
        self._release(barrier)

    def gather(self) -> None:
        """WARPSYNC: wait for all lanes of the warp that have not left."""
        self._waits[self.at] = GATHERING
        self._pc[self.at] = self.here + 16
        self._release(GATHERING)

    def complete(self) -> np.ndarray:
        """[n] whether the whole warp of each lane executes now."""
        here = np.bincount(self._warp[self.at], minlength=len(self._uniform[0]))
        return here[self._warp[self.at]] == WARP

    def of_lane(self, x: np.ndarray, other: np.ndarray) -> np.ndarray:
        """[n] what x is in another lane of the warp, given as a change of bits of its number.

        Raises RuntimeError if that lane does not execute now: a device would give anything.
        """
        whole, known = np.zeros(len(self._pc), np.uint32), np.zeros(len(self._pc), bool)
        whole[self.at], known[self.at] = x, True
        source = self.lanes() ^ other
        if not known[source].all():
            raise RuntimeError("sass_machine: a lane shuffles with one that is elsewhere")
        return whole[source]

    def _release(self, barrier: int) -> None:
        if barrier == GATHERING:
            waits = self._waits == GATHERING
            missing = np.unique(self._warp[~waits & ~self._done])
            free = waits & ~np.isin(self._warp, missing)
            for warp in np.unique(self._warp[free]):
                if len(np.unique(self._pc[free & (self._warp == warp)])) > 1:
                    raise RuntimeError("sass_machine: lanes of a warp wait at two WARPSYNC")
            self._waits[free] = -1
            return
        party, waits = self._party[barrier], self._waits == barrier
        missing = party[~waits & ~self._done & (party >= 0)]
        free = waits & ~np.isin(party, missing) if len(missing) else waits
        self._waits[free] = -1
        party[free] = -1

    # --- operands ---------------------------------------------------------------------------------

    def word(self, o: Operand, k: int = 0) -> np.ndarray:
        """The bits of an operand, or of the k-th word behind it, without its signs."""
        if o.kind == "R":
            return self._registers[o.number if o.number == ZERO_REGISTER else o.number + k][self.at]
        if o.kind == "U":
            number = o.number if o.number == ZERO_UNIFORM else o.number + k
            return self._uniform[number][self._warp[self.at]]
        if o.kind == "C":
            return self.constant(o, 4 * k, np.uint32)
        if o.kind in "IF":
            sign_extended = 0xFFFFFFFF if o.kind == "I" and o.number >> 31 else 0
            return np.uint32(sign_extended if k else o.bits)
        raise UnknownError(f"sass_machine: {o} is no value")

    def constant(self, o: Operand, more: int, dtype: type) -> np.ndarray:
        """What lies in a constant bank, `more` bytes behind an operand."""
        bank, at = self._banks[o.number], o.offset + more
        size = np.dtype(dtype).itemsize
        if o.index is None:
            return bank[at : at + size].view(dtype)[0]
        index = self.word(Operand("U" if o.uniform else "R", o.index))
        at = index.astype(np.int64) + at
        return np.stack([bank[at + k] for k in range(size)], -1).view(dtype)[..., 0]

    def integer(self, o: Operand) -> np.ndarray:
        """An operand as 32 bits, inverted or negated."""
        x = self.word(o)
        x = ~x if o.inverted else x
        return np.uint32(0) - x if o.negative else x

    def wide(self, o: Operand) -> np.ndarray:
        """An operand and the word behind it as uint64."""
        return self.word(o).astype(np.uint64) | self.word(o, 1).astype(np.uint64) << np.uint64(32)

    def number(self, o: Operand) -> np.ndarray:
        """An operand as float32, absolute or negated."""
        x = np.asarray(self.word(o)).view(np.float32)
        x = np.abs(x) if o.absolute else x
        return -x if o.negative else x

    def predicate(self, o: Operand) -> np.ndarray:
        """Whether a predicate holds in each lane."""
        if o.kind == "UP":
            x = self._uniform_predicates[o.number][self._warp[self.at]]
        else:
            x = self._predicates[o.number][self.at]
        return ~x if o.inverted else x

    def address(self, o: Operand) -> np.ndarray:
        """[n] uint64, where an address leads."""
        at = self.wide(Operand("R", o.number))
        return np.broadcast_to(at + np.uint64(o.offset & 2**64 - 1), self.lanes().shape)

    def set(self, o: Operand, x: np.ndarray, k: int = 0) -> None:
        """Write 32 bits to a register, or to the k-th behind it."""
        if o.kind == "U":
            if o.number != ZERO_UNIFORM:
                warps = self._warp[self.at]
                self._uniform[o.number + k][warps] = x
        elif o.kind != "R":
            raise UnknownError(f"sass_machine: {o} is no register")
        elif o.number != ZERO_REGISTER:
            self._registers[o.number + k][self.at] = x

    def set_wide(self, o: Operand, x: np.ndarray) -> None:
        """Write 64 bits to a register and the next."""
        self.set(o, (x & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        self.set(o, (x >> np.uint64(32)).astype(np.uint32), 1)

    def set_predicate(self, o: Operand, x: np.ndarray) -> None:
        """Write a predicate; PT stays true."""
        if o.number == TRUE:
            return
        if o.kind == "UP":
            self._uniform_predicates[o.number][self._warp[self.at]] = x
        else:
            self._predicates[o.number][self.at] = x

    def note_sectors(self, step: Step, address: np.ndarray) -> None:
        """Remember how many sectors of memory an addition of each warp touches."""
        warps = self._warp[self.at]
        touched = np.unique(
            warps.astype(np.int64) << 48 | (address >> np.uint64(5)).astype(np.int64)
        )
        self.sectors.append((step.address, len(np.unique(warps)), len(touched)))
