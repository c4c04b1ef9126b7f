"""Digests of large files, kept in the user's cache folder until one of the files changes.

Reading the weights of a large model takes a minute; their names, sizes, times and inodes take none.
A kept digest is used only if all of those are what they were when the files were read.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_SETTLED_NS = 2_000_000_000
"""A file that was written so shortly before it was read may change within one tick of its clock."""


def kept_digest(files: Sequence[Path], compute: Callable[[], str], cache: Path) -> str:
    """`compute()`, or what it returned before of the same, unchanged files.

    files: those that `compute` reads. cache: the folder in which digests are kept, one small JSON
    file for each list of files; it may be deleted at any time.
    """
    before, now = _state(files), time.time_ns()
    names = json.dumps([str(file.absolute()) for file in files])
    kept = cache / f"{hashlib.sha256(names.encode()).hexdigest()}.json"
    if (known := _read(kept, before)) is not None:
        return known
    digest = compute()
    settled = all(modified < now - _SETTLED_NS for _, modified, *_ in before)
    if settled and _state(files) == before:
        _write(kept, {"files": before, "digest": digest})
    return digest


def _state(files: Sequence[Path]) -> list[list[int]]:
    """Size, time of the last change of content and of metadata, inode and device of each file."""
    stats = [file.stat() for file in files]
    return [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for s in stats]


def _read(kept: Path, state: list[list[int]]) -> str | None:
    try:
        found = json.loads(kept.read_bytes())
        digest = found["digest"] if found["files"] == state else None
    except (OSError, ValueError, KeyError, TypeError):  # none is kept, or a damaged one
        return None
    return digest if isinstance(digest, str) else None


def _write(kept: Path, value: dict[str, object]) -> None:
    aside = kept.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):  # a cache that cannot be written makes the next start slower, no more
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(value))
        aside.replace(kept)
