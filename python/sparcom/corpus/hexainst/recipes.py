"""Recipes: which public data sets a corpus is drawn from, as data (TOML), not code."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sparcom.corpus.hexainst.row_template import check_template
from sparcom.corpus.reading.guard import guarded
from sparcom.corpus.reading.hub import HubData
from sparcom.errors import InputError
from sparcom.formatting import shorten


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of a recipe: where its rows are, and how a row becomes an instruction.

    name: also the folder of a mirror. category, license: of its records. take: how many.
    dataset, config, split, revision, urls: as the `datasets` library takes them.
    folder: its `data_dir`, the part of a repository that is read.
    files: patterns of a mirror's files, the first that matches any.
    key: template of what identifies a row. instruction: templates; each record gets one of them.
    input, reference: templates. labels: names of integer fields. keep: allowed values of fields.
    strata: template of a group; groups are drawn from in turn.
    words, answer_words: least and most words of instruction and input, and of the reference.
    must: patterns that instruction and input must match.
    """

    name: str
    category: str
    take: int
    license: str
    dataset: str
    key: str
    instruction: tuple[str, ...]
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    urls: tuple[str, ...] = ()
    folder: str | None = None
    files: tuple[str, ...] = ()
    input: str = ""
    reference: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strata: str = ""
    words: tuple[int, int] | None = None
    answer_words: tuple[int, int] | None = None
    must: tuple[str, ...] = ()

    @property
    def data(self) -> HubData:
        """The rows on the hub."""
        return HubData(
            self.dataset,
            self.config,
            self.split,
            revision=self.revision,
            urls=self.urls,
            folder=self.folder,
        )

    @property
    def origin(self) -> str:
        """What its records name as their origin."""
        return self.urls[0] if self.urls else self.dataset


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a corpus is drawn from.

    seed: of the draw. per_category: records of each category, the sum of its sources' `take`.
    words: least and most words of instruction and input. ascii: least share of ASCII characters.
    reject: patterns that a record must not match.
    """

    sources: tuple[Source, ...] = ()
    seed: int = 0
    per_category: int = 100
    words: tuple[int, int] = (1, 1_000_000)
    ascii: float = 0.0
    reject: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """In order of appearance."""
        return tuple(dict.fromkeys(source.category for source in self.sources))


def load_recipe(path: str | Path | None = None) -> Recipe:
    """The recipe of a TOML file, or HexaInst's own if no path is given.

    Raises InputError for a bad file, naming the source, the key and the nearest known key.
    """
    name = shorten(str(path or "recipes.toml"), 200)
    text = Path(path) if path else files("sparcom.corpus.hexainst") / "data" / "recipes.toml"
    with guarded(f"recipe {name}"):
        table = tomllib.loads(text.read_text("utf-8"))
    entries = table.pop("source", [])
    if not isinstance(entries, list) or not entries:
        raise InputError(f"recipe {name}: it has no [[source]]")
    sources = []
    for at, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise InputError(f"recipe {name}: source {at}: expected a table, got {_kind(entry)}")
        where = f"recipe {name}: source {shorten(str(entry.get('name', at)), 60)}"
        sources.append(_build(Source, entry, where))
        _check_source(sources[-1], where)
    recipe = replace(_build(Recipe, table, f"recipe {name}"), sources=tuple(sources))
    _check_recipe(recipe, f"recipe {name}")
    return recipe


T = TypeVar("T", Source, Recipe)


def _build(kind: type[T], entry: Mapping, where: str) -> T:
    """A record of a TOML table, each value of the type that the record says."""
    known = {key: hint for key, hint in get_type_hints(kind).items() if key != "sources"}
    values = {}
    for key, value in entry.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{where}: key {shorten(key, 60)!r} is unknown{hint}")
        values[key] = _typed(known[key], value, f"{where}: {key}")
    for f in fields(kind):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"{where}: lacks {f.name!r}")
    return kind(**values)


def _typed(kind: Any, value: object, where: str) -> Any:
    """A TOML value of a type: lists become tuples, whole numbers do for fractions."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        kind = next(k for k in inner if k is not NoneType)
        origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[-1] is ... else list(inner)
        if len(kinds) == len(value):
            return tuple(_typed(k, v, where) for k, v in zip(kinds, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {key: _typed(inner[1], v, f"{where}.{shorten(key, 40)}") for key, v in value.items()}
    elif type(value) is kind or (kind is float and type(value) is int):
        return value
    raise InputError(f"{where}: expected {_expected(kind)}, got {_kind(value)}")


def _expected(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        many = f"a list of {len(inner)}" if inner[-1] is not ... else "a list"
        return f"{many} ({_expected(inner[0])} each)"
    if origin is Mapping:
        return "a table"
    return {str: "text", int: "a whole number", float: "a number"}[kind]


def _kind(value: object) -> str:
    return f"{type(value).__name__} {shorten(repr(value), 40)}"


def _check_source(source: Source, where: str) -> None:
    if source.take < 1:
        raise InputError(f"{where}: take must be at least 1, got {source.take}")
    if not source.instruction:
        raise InputError(f"{where}: instruction must be a list of at least one template")
    for template in (*source.instruction, source.input, source.reference, source.key):
        check_template(template, where)
    check_template(source.strata, where)
    for pattern in source.files:
        if not pattern or Path(pattern).is_absolute() or "\0" in pattern:
            raise InputError(f"{where}: files: expected patterns inside a folder, got {pattern!r}")
    _check_patterns(source.must, where)


def _check_recipe(recipe: Recipe, where: str) -> None:
    names = [source.name for source in recipe.sources]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{where}: source {min(repeated)} comes twice")
    for category in recipe.categories:
        total = sum(s.take for s in recipe.sources if s.category == category)
        if total != recipe.per_category:
            raise InputError(
                f"{where}: the sources of {category} take {total}, but per_category is "
                f"{recipe.per_category}"
            )
    _check_patterns(recipe.reject, where)


def _check_patterns(patterns: tuple[str, ...], where: str) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{where}: pattern {pattern!r}: {error}") from error
