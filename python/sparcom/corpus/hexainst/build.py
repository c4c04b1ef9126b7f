"""Building HexaInst, or the corpus of any recipe: the bundled half and the half that is drawn.

The human half is drawn from the hub (`datasets`) or from a mirror: a folder with one folder per
source, which holds the files of the published data set. A ready-made half in our schema does too.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from sparcom.corpus.hexainst.bundled import HEXAINST, built_folder, bundled_folder
from sparcom.corpus.hexainst.card import CARD, data_set_of, render_card
from sparcom.corpus.hexainst.draw import Candidate, draw, interleave, take
from sparcom.corpus.hexainst.recipes import Recipe, load_recipe
from sparcom.corpus.hexainst.sources import source_rows
from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.corpus.reading.guard import DAMAGE, guarded, reason_of
from sparcom.corpus.schema import Instruction, to_jsonl
from sparcom.errors import InputError
from sparcom.formatting import render_table, shorten

HALVES = ("both", "human", "ai")
MISSING = ("stop", "fill")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a corpus is built.

    half: "both" | "human" | "ai" (the bundled half alone).
    human: a ready corpus in our schema, instead of the recipe's sources.
    mirror: a folder with the sources' files, instead of the hub.
    seed: of the draw; None takes the recipe's.
    missing: what to do if a source cannot be read: "stop", or "fill" its place from the category's
        other sources.
    overwrite: replace a corpus that was built there before.
    """

    half: str = "both"
    human: str | None = None
    mirror: str | None = None
    seed: int | None = None
    missing: str = "stop"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, known in (("half", HALVES), ("missing", MISSING)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name}: expected {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.human and self.mirror:
            raise InputError("human: a ready corpus needs no mirror; give one of the two")


@dataclass(frozen=True)
class BuildReport:
    """What `build` wrote.

    folder: the corpus. records: by (category, source, origin).
    absent: the sources that were left out, and why (missing="fill").
    """

    folder: Path
    records: Counter[tuple[str, str, str]]
    absent: Mapping[str, str]

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "folder": str(self.folder),
            "records": self.records.total(),
            "breakdown": [[*key, n] for key, n in self.records.items()],
            "absent": dict(self.absent),
        }

    def render(self) -> str:
        """A report for people."""
        rows = [[c, s, o, n] for (c, s, o), n in sorted(self.records.items())]
        lines = [render_table(["category", "source", "origin", "records"], rows), ""]
        lines += [f"left out: {name}: {why}" for name, why in self.absent.items()]
        return "\n".join([*lines, f"{self.folder}: {self.records.total()} records"])


def build_corpus(
    recipe: str = HEXAINST,
    out: str | Path | None = None,
    options: BuildOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuildReport:
    """Build HexaInst, or the corpus of a recipe file (see `build`).

    recipe: "hexainst", or the path of a TOML recipe, whose corpus has no bundled half.
    out: the folder; None, for "hexainst" only, is where `--corpus hexainst` looks for it.
    """
    if recipe == HEXAINST:
        bundled = list(Corpus(bundled_folder()))
        return build(load_recipe(), bundled, out or built_folder(), options, progress)
    if out is None:
        raise InputError("out: name the folder that the corpus is written to")
    return build(load_recipe(recipe), [], out, options, progress)


def build(
    recipe: Recipe,
    bundled: list[Instruction],
    out: str | Path,
    options: BuildOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuildReport:
    """Write a corpus of `per_category` records in each category and half.

    bundled: the half that comes with SPARCOM; [] if there is none.
    out: the folder: one JSONL file per category, and a card. It is written whole or not at all.
    progress: called with the name of each source before it is read.
    Raises InputError if a source cannot be read or has too few rows, or if `out` cannot be used.
    """
    options = options or BuildOptions()
    recipe = recipe if options.seed is None else replace(recipe, seed=options.seed)
    out = Path(out)
    with guarded(f"out {shorten(str(out), 200)}", "cannot be written"):
        _check_out(out, options.overwrite)
    absent: dict[str, str] = {}
    records: list[Instruction] = []
    if options.half != "ai":
        if options.human:
            records += _ready_half(options.human, recipe)
        else:
            records += _drawn_half(recipe, options, absent, progress or (lambda _: None))
    if options.half != "human":
        records += bundled
    if not records:
        raise InputError("half ai: this recipe has no bundled half")
    _write(out, records, recipe, absent)
    written = Counter((r.category, r.source, data_set_of(r)) for r in records)
    return BuildReport(out, written, absent)


def _drawn_half(
    recipe: Recipe,
    options: BuildOptions,
    absent: dict[str, str],
    progress: Callable[[str], None],
) -> list[Instruction]:
    drawn: dict[str, list[Candidate]] = {}
    for source in recipe.sources:
        progress(source.name)
        try:
            drawn[source.name] = draw(source_rows(source, options.mirror), source, recipe)
        except InputError as error:
            if options.missing == "stop" and options.mirror is None:
                raise
            absent[source.name] = str(error)
    if absent and options.missing == "stop":
        raise InputError("\n".join(absent.values()))
    records: list[Instruction] = []
    for category in recipe.categories:
        sources = [s for s in recipe.sources if s.category == category]
        taken: list[Instruction] = []
        for source in sources:
            added = take(drawn.get(source.name, ()), source.take, taken)
            if added < source.take and options.missing == "stop":
                raise InputError(
                    f"source {source.name}: only {added} of {source.take} records pass its "
                    "filters; give all of its files, or --missing fill"
                )
        groups = [drawn.get(source.name, []) for source in sources]
        take(interleave(groups), recipe.per_category - len(taken), taken)
        records += _numbered(category, taken, recipe)
    return records


def _numbered(category: str, taken: list[Instruction], recipe: Recipe) -> list[Instruction]:
    """The records of a category with ids; their order is by hash, not by source."""
    if len(taken) < recipe.per_category:
        raise InputError(
            f"category {category}: only {len(taken)} of {recipe.per_category} records; give more "
            "of its sources"
        )
    ranked = sorted(taken, key=lambda item: _rank(recipe.seed, item.origin + item.text))
    return [
        replace(item, id=f"{category}-{item.source}-{at:03d}") for at, item in enumerate(ranked, 1)
    ]


def _ready_half(human: str, recipe: Recipe) -> list[Instruction]:
    """`per_category` records of each category of a ready corpus, as they are."""
    records: list[Instruction] = []
    ready = list(Corpus(human, ReadOptions(recipe.categories)))
    for category in recipe.categories:
        found = [item for item in ready if item.category == category]
        if len(found) < recipe.per_category:
            raise InputError(
                f"human {human}: {len(found)} records of category {category}, but "
                f"{recipe.per_category} are needed"
            )
        kept = sorted(found, key=lambda item: _rank(recipe.seed, item.id))[: recipe.per_category]
        records += sorted(kept, key=found.index)
    return records


def _rank(seed: int, key: str) -> bytes:
    return blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not (out / CARD).is_file():
        raise InputError(
            f"out {out}: exists, and is not a corpus that SPARCOM built (it has no {CARD}); "
            "give another --out"
        )
    if not overwrite:
        raise InputError(f"out {out}: holds a corpus already; replace it with --overwrite")


def _write(
    out: Path, records: list[Instruction], recipe: Recipe, absent: Mapping[str, str]
) -> None:
    """Write the folder under another name beside `out`, then rename it."""
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        building.mkdir(parents=True)
        for category in dict.fromkeys(item.category for item in records):
            members = [item for item in records if item.category == category]
            (building / f"{category}.jsonl").write_text(to_jsonl(members), "utf-8")
        (building / CARD).write_text(render_card(records, recipe, absent), "utf-8")
        if out.exists():
            out.rename(old)
        building.rename(out)
    except DAMAGE as error:
        if old.exists() and not out.exists():
            old.rename(out)
        shown, reason = shorten(str(out), 200), reason_of(error)
        raise InputError(f"out {shown}: cannot be written: {reason}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
