"""The file that takes what is wrong with every bad row, as JSON lines."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.files import is_corpus_file
from sparcom.corpus.reading.guard import guarded
from sparcom.errors import InputError
from sparcom.formatting import shorten


@contextmanager
def open_rejects(path: str, corpus: Corpus) -> Iterator[Callable[[str], object]]:
    """A function that writes one line to a new file.

    corpus: what will be read; `path` must not be a file of it, now or when it is read again.
    Raises InputError if it is one, or if the file cannot be written.
    """
    shown = f"rejects {shorten(path, 200)}"
    with guarded(shown, "cannot be written"):
        _check_apart(Path(path), corpus, shown)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 -- closed below, guarded too

    def write(line: str) -> None:
        with guarded(shown, "cannot be written"):
            file.write(line)

    try:
        yield write
    finally:
        with guarded(shown, "cannot be written"):
            file.close()


def _check_apart(path: Path, corpus: Corpus, shown: str) -> None:
    """Raise InputError if a path is, or would become, a file of the corpus."""
    files = corpus.files()
    if path.exists() and any(file.exists() and path.samefile(file) for file in files):
        raise InputError(f"{shown}: this is a file of the corpus itself; name another one")
    inside = bool(files) and os.path.realpath(path.parent) == os.path.realpath(corpus.location)
    if inside and is_corpus_file(path):
        raise InputError(
            f"{shown}: it would become a file of the corpus in that folder; name another folder"
        )
