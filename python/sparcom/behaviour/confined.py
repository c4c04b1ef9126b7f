"""Run as a script inside the sandbox: limits itself, then runs a program.

    python -I confined.py FOLDER SECONDS BYTES        the program comes from stdin, after a line

Writing is confined to FOLDER by Landlock, whose system calls have the same numbers on x86-64 and
AArch64. The first line of stdin is printed once the program has run to its end.
"""

import ctypes
import os
import resource
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_WRITE_FILE = 1 << 1
# remove folder and file; make device, folder, file, socket, pipe, block, link; refer; truncate
_WRITING = _WRITE_FILE | sum(1 << bit for bit in range(4, 15))


def landlock_version() -> int:
    """Landlock's version here; below 3 it does not keep files from being cut short."""
    return int(ctypes.CDLL(None).syscall(_CREATE, None, ctypes.c_size_t(0), 1))


def confine(folder: str) -> None:
    """From now on this process and its children write below a folder, and to /dev/null, alone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        found = int(libc.syscall(*arguments))
        if found < 0:
            raise OSError(ctypes.get_errno(), "landlock")
        return found

    handled = (ctypes.c_uint64 * 1)(_WRITING)
    rules = call(_CREATE, handled, ctypes.c_size_t(8), 0)
    for path, allowed in ((folder, _WRITING), ("/dev/null", _WRITE_FILE)):
        opened = os.open(path, os.O_PATH)
        rule = allowed.to_bytes(8, sys.byteorder) + opened.to_bytes(4, sys.byteorder)
        call(_ADD, rules, 1, ctypes.create_string_buffer(rule, len(rule)), 0)
        os.close(opened)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges
        raise OSError(ctypes.get_errno(), "prctl")
    call(_RESTRICT, rules, 0)


def limit(seconds: int, size: int) -> None:
    """Limit CPU time, memory, files, and what a file may hold."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def main() -> None:
    """Confine, limit, run, and say that the end was reached."""
    folder, seconds, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    word = sys.stdin.readline()
    source = sys.stdin.read()
    os.chdir(folder)
    confine(folder)
    limit(seconds, size)
    said = os.dup(1)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    exec(compile(source, "answer", "exec"), {"__name__": "answer"})
    os.write(said, word.encode())


if __name__ == "__main__":
    main()
