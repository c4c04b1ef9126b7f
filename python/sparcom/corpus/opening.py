"""HexaInst: the bundled instruction set, and what a corpus argument means."""

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from sparcom.corpus.hexainst.build import BuildOptions, BuildReport, build
from sparcom.corpus.hexainst.recipes import load_recipe
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.reading.read import Corpus, ReadOptions, read_corpus
from sparcom.corpus.schema import CATEGORIES, Instruction
from sparcom.errors import InputError
from sparcom.models import cache_dir

HEXAINST = "hexainst"
BUNDLED = "hexainst-ai"


def built_folder() -> Path:
    """Where `build_corpus("hexainst")` puts HexaInst unless told otherwise."""
    return cache_dir() / "corpora" / HEXAINST


def bundled_hexainst() -> list[Instruction]:
    """The 600 AI-written instructions that come with SPARCOM, in the order of `CATEGORIES`."""
    with as_file(files("sparcom.corpus.hexainst") / "data" / "hexainst") as folder:
        return [item for name in CATEGORIES for item in read_corpus(folder / f"{name}.jsonl")]


def open_corpus(
    corpus: str, options: ReadOptions | None = None, log: ProblemLog | None = None
) -> Corpus:
    """The corpus that an argument names, for streaming.

    corpus: "hexainst" (the built one where there is one, else the bundled half), "hexainst-ai"
        (the bundled half), a file or folder, or hub:OWNER/NAME[:CONFIG][@SPLIT].
    """
    location: str | Path = corpus
    if corpus in (HEXAINST, BUNDLED) and not Path(corpus).exists():
        location = Path(str(files("sparcom.corpus.hexainst") / "data" / "hexainst"))
        if corpus == HEXAINST and built_folder().is_dir():
            location = built_folder()
    return Corpus(location, options or ReadOptions(), log or ProblemLog())


def iter_corpus(
    corpus: str,
    categories: Sequence[str] | None = CATEGORIES,
    limit: int | None = None,
    *,
    options: ReadOptions | None = None,
    log: ProblemLog | None = None,
) -> Iterator[Instruction]:
    """The instructions that a corpus argument names (see `open_corpus`), one at a time.

    categories: the allowed ones; None allows any. `options`, where given, says it instead.
    limit: keep the first `limit` instructions of each category; None keeps all.
    log: takes what `on_error="skip"` leaves out.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: must be at least 1 instruction per category, got {limit}")
    taken: dict[str, int] = {}
    for item in open_corpus(corpus, options or ReadOptions(categories), log):
        taken[item.category] = taken.get(item.category, 0) + 1
        if limit is None or taken[item.category] <= limit:
            yield item


def load_corpus(
    corpus: str,
    categories: Sequence[str] | None = CATEGORIES,
    limit: int | None = None,
    *,
    options: ReadOptions | None = None,
    log: ProblemLog | None = None,
) -> list[Instruction]:
    """The instructions of `iter_corpus`, in memory."""
    return list(iter_corpus(corpus, categories, limit, options=options, log=log))


def build_corpus(
    recipe: str = HEXAINST,
    out: str | Path | None = None,
    options: BuildOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuildReport:
    """Build HexaInst, or the corpus of a recipe file (see `corpus.build`).

    recipe: "hexainst", or the path of a TOML recipe, whose corpus has no bundled half.
    out: the folder; None, for "hexainst" only, is where `--corpus hexainst` finds it.
    """
    if recipe == HEXAINST:
        out = out or built_folder()
        return build(load_recipe(), bundled_hexainst(), out, options, progress)
    if out is None:
        raise InputError("out: name the folder that the corpus is written to")
    return build(load_recipe(recipe), [], out, options, progress)
