"""Memory that a worker has used once stays mapped.

glibc maps each large block when it is asked for and unmaps it when it is freed, so that every
activation tensor of every pass costs page faults: a tenth of the time of a small model on CPU.
Raising the thresholds keeps the blocks in the heap. tcmalloc, if preloaded, does so by itself.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_BYTES = 1 << 30


def keep_memory() -> bool:
    """Keep freed blocks of up to 1 GiB in the heap; False if this C library cannot."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _BYTES))
