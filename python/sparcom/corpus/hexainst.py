"""HexaInst: the bundled instruction set, and what a corpus argument means."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from sparcom.corpus.read import read_corpus
from sparcom.corpus.schema import CATEGORIES, Instruction
from sparcom.errors import InputError

BUNDLED = "hexainst"


def load_corpus(
    corpus: str, categories: Sequence[str] | None = CATEGORIES, limit: int | None = None
) -> list[Instruction]:
    """The instructions that a corpus argument names.

    corpus: "hexainst" (the bundled set), or a path that `read_corpus` takes.
    limit: keep the first `limit` instructions of each category; None keeps all.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: must be at least 1 instruction per category, got {limit}")
    if corpus == BUNDLED and not Path(corpus).exists():
        with as_file(files("sparcom.corpus") / "data" / "hexainst") as folder:
            instructions = [
                item for name in CATEGORIES for item in read_corpus(folder / f"{name}.jsonl")
            ]
    else:
        instructions = read_corpus(corpus, categories)
    if limit is None:
        return instructions
    taken: dict[str, int] = {}
    kept = []
    for item in instructions:
        taken[item.category] = taken.get(item.category, 0) + 1
        if taken[item.category] <= limit:
            kept.append(item)
    return kept
