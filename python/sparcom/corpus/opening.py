"""What a corpus argument means: a bundled corpus, a file, a folder, or a data set of the hub."""

from collections.abc import Sequence
from pathlib import Path

from sparcom.corpus.hexainst.bundled import (
    BUNDLED,
    FOLDERS,
    HEXAINST,
    built_folder,
    bundled_folder,
)
from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import CATEGORIES, Instruction


def open_corpus(
    corpus: str, options: ReadOptions | None = None, log: ProblemLog | None = None
) -> Corpus:
    """The corpus that an argument names, to be read row by row.

    corpus: "hexainst" (the corpus that was built last, or else the bundled half), "hexainst-ai"
        (the bundled half), a file or folder, or hub:OWNER/NAME[:CONFIG][@SPLIT].
    log: takes the problems of the reading.
    """
    location: str | Path = corpus
    if corpus in (HEXAINST, *FOLDERS) and not Path(corpus).exists():
        if corpus == HEXAINST and built_folder().is_dir():
            location = built_folder()
        else:
            location = bundled_folder(BUNDLED if corpus == HEXAINST else corpus)
    return Corpus(location, options or ReadOptions(), log or ProblemLog())


def load_corpus(
    corpus: str, categories: Sequence[str] | None = CATEGORIES, limit: int | None = None
) -> list[Instruction]:
    """The instructions of a corpus in memory (see `open_corpus` and `ReadOptions`).

    >>> load_corpus("hexainst", limit=5)
    """
    return list(open_corpus(corpus, ReadOptions(categories, limit=limit)))
