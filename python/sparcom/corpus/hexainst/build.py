"""Building HexaInst, or any corpus of a recipe: the bundled half and the one drawn from sources.

The human half comes from the hub (`datasets`), from a mirror (a folder with one folder per source,
holding the files that the data set is published as), or ready-made, from a corpus in our schema.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from sparcom.corpus.hexainst.card import CARD, data_set_of, render_card
from sparcom.corpus.hexainst.draw import Candidate, draw, interleave, take
from sparcom.corpus.hexainst.recipes import Recipe, Source
from sparcom.corpus.reading import hub
from sparcom.corpus.reading.read import read_corpus
from sparcom.corpus.reading.rows import Row, is_corpus_file, read_rows
from sparcom.corpus.schema import Instruction, to_jsonl
from sparcom.corpus.table import render_table
from sparcom.errors import InputError

HALVES = ("both", "human", "ai")
MISSING = ("stop", "fill")


@dataclass(frozen=True)
class BuildOptions:
    """How a corpus is built.

    half: "both" | "human" | "ai" (the bundled half alone).
    human: a ready corpus in our schema instead of the recipe's sources.
    mirror: folder with the sources' files instead of the hub.
    seed: of the draw; None takes the recipe's.
    missing: "stop" where a source cannot be had, or "fill" its place from the category's others.
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
    absent: sources that were left out and why (missing="fill").
    """

    folder: Path
    records: Counter[tuple[str, str, str]]
    absent: Mapping[str, str]

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "folder": str(self.folder),
            "records": self.records.total(),
            "cells": [[*key, n] for key, n in self.records.items()],
            "absent": dict(self.absent),
        }

    def render(self) -> str:
        """A report for people."""
        rows = [[c, s, o, n] for (c, s, o), n in sorted(self.records.items())]
        lines = [render_table(["category", "source", "origin", "records"], rows), ""]
        lines += [f"left out: {name}: {why}" for name, why in self.absent.items()]
        return "\n".join([*lines, f"{self.folder}: {self.records.total()} records"])


def build(
    recipe: Recipe,
    bundled: list[Instruction],
    out: str | Path,
    options: BuildOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuildReport:
    """Write a corpus of `per_category` records in each category and half.

    bundled: the half that no recipe makes; [] where there is none.
    out: the folder, one JSONL file per category and a card; written whole or not at all.
    progress: called with the name of each source before it is read.
    Raises InputError where a source cannot be had or has too little, or `out` is in the way.
    """
    options = options or BuildOptions()
    recipe = recipe if options.seed is None else replace(recipe, seed=options.seed)
    out = Path(out)
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
    cells = Counter((r.category, r.source, data_set_of(r)) for r in records)
    return BuildReport(out, cells, absent)


def source_rows(source: Source, mirror: str | None) -> Iterator[Mapping]:
    """The rows of a source, from the hub or from its folder of a mirror.

    Raises InputError naming the source and what to do.
    """
    if mirror is None:
        advice = (
            f"give --mirror DIR with its files in DIR/{source.name}, --human DIR with a ready "
            "corpus, or --missing fill"
        )
        rows = _named(source, hub.read_rows(source.data, advice))
    else:
        rows = (row for file in mirror_files(source, mirror) for row in read_rows(file))
    for number, row, problem in rows:
        if problem is not None:
            raise InputError(f"source {source.name}: row {number}: {problem}")
        if isinstance(row, Mapping):
            yield row


def _named(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except InputError as error:
        raise InputError(f"source {source.name}: {error}") from error


def mirror_files(source: Source, mirror: str) -> list[Path]:
    """The files of a source in a mirror: those of the first pattern that matches any."""
    folder = Path(mirror) / source.name
    for pattern in source.files:
        if found := sorted(f for f in folder.glob(pattern) if is_corpus_file(f)):
            return found
    raise InputError(
        f"source {source.name}: the mirror has no {' or '.join(source.files)} under {folder}; put "
        f"the files of {source.origin} there"
    )


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
    """The records of a category with ids, in an order that does not follow their sources."""
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
    ready = read_corpus(human, recipe.categories)
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
            f"out {out}: exists, and is no corpus that was built here (it has no {CARD}); give "
            "another --out"
        )
    if not overwrite:
        raise InputError(f"out {out}: a corpus is there; replace it with --overwrite")


def _write(
    out: Path, records: list[Instruction], recipe: Recipe, absent: Mapping[str, str]
) -> None:
    """Write the folder beside its place, then put it there."""
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
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise InputError(f"out {out}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
