"""What of this package is in a compiled graph, and so belongs into the key of vLLM's caches.

The graph holds the exchanged modules, the operator's signature and its shapes, and what inductor
made of them. All of counting and of this engine is hashed, not only the files that matter today: a
fingerprint that changes too often costs one compilation, one that misses a change wrong counts.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parents[3]


def kernel_version(package: Path = _PACKAGE) -> str:
    """Hash over the sources of counting, of this engine, and the native libraries of a package."""
    digest = hashlib.sha256()
    for file in graph_files(package):
        digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def graph_files(package: Path = _PACKAGE) -> Iterable[Path]:
    """The files that `kernel_version` reads, in order."""
    for pattern in ("counting/*.py", "engines/vllm/**/*.py", "_native*.so"):
        yield from sorted(package.glob(pattern))
