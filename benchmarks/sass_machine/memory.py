"""Memory of a simulated device: tensors at addresses, each with what may be done to it."""

import numpy as np
import torch

LOAD, STORE, ADD = 1, 2, 4
_NAMES = {LOAD: "load", STORE: "store", ADD: "atomic addition"}
_GAP, _ALIGNMENT = 64, 512


class AccessError(Exception):
    """An access that a device would refuse, or that the kernel has no business with."""


class Memory:
    """A range of addresses that tensors are copied into, with gaps that nothing may touch.

    size: bytes. Addresses are those of the process, so that a copied tensor's `data_ptr` is its
    address.
    """

    def __init__(self, size: int) -> None:
        whole = np.full(size + _ALIGNMENT, 0xA5, np.uint8)
        skip = -whole.ctypes.data % _ALIGNMENT
        self._bytes = whole[skip : skip + size // _ALIGNMENT * _ALIGNMENT]
        self._may = np.zeros(len(self._bytes), np.uint8)  # of each byte
        self._halves, self._words = self._bytes.view(np.uint16), self._bytes.view(np.uint32)
        self._start = self._bytes.ctypes.data
        self._end = 0
        self._storages: dict[int, int] = {}

    def copy(self, x: torch.Tensor, may: int) -> torch.Tensor:
        """x in this memory, with the same strides and alignment. may: LOAD, STORE, ADD or several.

        Its storage comes as a whole, once; only the elements of x may be touched.
        """
        whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
        begin = self._storages.get(whole.data_ptr())
        if begin is None or not len(whole):
            begin = self._end + _GAP
            begin += (whole.data_ptr() - begin) % 64  # sectors stay whole
            self._end = begin + whole.nbytes
            if self._end + _GAP > len(self._bytes):
                raise ValueError(f"sass_machine: {len(self._bytes)} bytes do not suffice")
            self._storages[whole.data_ptr()] = begin
            self._bytes[begin : self._end] = whole.view(torch.uint8).numpy()
        layout = x.shape, x.stride(), x.storage_offset()
        here = torch.from_numpy(self._bytes[begin : begin + whole.nbytes]).view(x.dtype)
        places = torch.arange(len(whole)).as_strided(*layout).flatten().numpy()
        for k in range(x.element_size()):
            self._may[begin + places * x.element_size() + k] |= may
        return here.as_strided(*layout)

    def load(self, address: np.ndarray, size: int) -> list[np.ndarray]:
        """The words at addresses, one array for each word of an access of `size` bytes."""
        at = self._check(address, size, LOAD)
        if size == 2:
            return [self._halves[at >> 1].astype(np.uint32)]
        return [self._words[(at >> 2) + k] for k in range(size // 4)]

    def store(self, address: np.ndarray, words: list[np.ndarray], size: int) -> None:
        """Write words to addresses."""
        at = self._check(address, size, STORE)
        if size == 2:
            self._halves[at >> 1] = words[0]
            return
        for k, word in enumerate(words):
            self._words[(at >> 2) + k] = word

    def add(self, address: np.ndarray, word: np.ndarray) -> None:
        """Add words to those at addresses, lane after lane."""
        at = self._check(address, 4, ADD)
        np.add.at(self._words, at >> 2, word)

    def _check(self, address: np.ndarray, size: int, what: int) -> np.ndarray:
        at = address.astype(np.int64) - self._start
        inside = (at >= 0) & (at + size <= len(self._bytes))
        if not inside.all():
            raise AccessError(self._message(address[~inside][0], size, what, "outside all memory"))
        if (at & (size - 1)).any():
            raise AccessError(
                self._message(address[at & (size - 1) != 0][0], size, what, "misaligned")
            )
        ends = self._may[at] & self._may[at + size - 1]
        if not (ends & what).all():
            raise AccessError(
                self._message(address[ends & what == 0][0], size, what, "not allowed")
            )
        return at

    def _message(self, address: int, size: int, what: int, why: str) -> str:
        return f"sass_machine: {_NAMES[what]} of {size} bytes at {int(address):#x}: {why}"
