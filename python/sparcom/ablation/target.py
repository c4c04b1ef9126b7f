"""Which components are ablated: targets named by a word, found on each half of a run's clusters."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.attribution.rules import MEASURES
from sparcom.component_list import read_components
from sparcom.components import ComponentSpace
from sparcom.errors import InputError

WORDS = (
    "general, unique[:CATEGORY], top:K, specific:K[:CATEGORY], rank:MEASURE:K[:CATEGORY] with a "
    "measure of prevalence, attribution or relp, or a .csv or .parquet file[:CATEGORY]"
)
_LIST = re.compile(r"(.*\.(?:csv|parquet))(?::(.+))?")


@dataclass(frozen=True)
class Target:
    """A set of components.

    name: as asked for. family: "neurons" | "experts". index: flat indices, sorted, each once.
    """

    name: str
    family: str
    index: np.ndarray


@dataclass(frozen=True)
class CrossTarget:
    """A target in two editions, so that none is scored on the instructions it was found on.

    name, family: as of `Target`. category: the one it is meant to matter for; None: none.
    found: [2] of the first and of the second half. listed: True if it was given as a list, which
        is the same in both.
    """

    name: str
    family: str
    category: str | None
    found: tuple[Target, Target]
    listed: bool = False

    @property
    def size(self) -> int:
        """Components of each edition."""
        return len(self.found[0].index)

    def scored_on(self, half: int) -> Target:
        """The edition whose effect is measured on a half."""
        return self.found[1 - half]


@dataclass(frozen=True)
class Usage:
    """A measure of each component on some instructions.

    values: [C, components] of each category: prevalence, the share of its instructions whose set
        holds the component, or mean attribution; NaN if nothing is known of the category.
    """

    categories: tuple[str, ...]
    values: np.ndarray


Halves = tuple[Usage, Usage]


def targets(
    words: Sequence[str],
    space: ComponentSpace,
    family: str,
    halves: Callable[[str], Halves],
    categories: Sequence[str],
    *,
    high: float,
    low: float,
) -> list[CrossTarget]:
    """The targets that words name, each found on both halves.

        general        q_c >= high in every category
        unique:c       q_c >= high, and q <= low in every other
        top:K          the K of highest mean q
        specific:K:c   the K of highest q_c - max of the other categories' q
        rank:M:K       the K of highest mean of the measure M: prevalence, attribution, relp
        rank:M:K:c     the K of highest M in c
        FILE:c         what a list holds, to be tested for c

    Without a category, `unique` and `specific:K` name one for each. All editions that one word
    names are of one size, that of the smallest; the strongest are kept.

    halves: makes the usage of the halves by a measure; not called for lists.
    categories: those with instructions in both halves.
    Raises InputError for an unknown word or category, and for a target that is empty.
    """
    out = []
    for word in words:
        if listed := _LIST.fullmatch(word):
            out.append(_listed(word, listed[1], listed[2], space, family, categories))
            continue
        usage = halves(measure_of(word))
        ranked = [_ranked(word, one, categories, high, low) for one in usage]
        found = {key: (ranked[0][key], ranked[1][key]) for key in ranked[0]}
        if word == "unique":  # those without any are left out
            found = {key: pair for key, pair in found.items() if all(map(len, pair))} or found
        out += _of_one_size(family, found)
    return out


def measure_of(word: str) -> str:
    """What components are ranked by for a word: the M of `rank:M:K`, for all others prevalence.

    Raises InputError for a measure that is not known.
    """
    kind, *rest = word.split(":")
    if kind != "rank":
        return "prevalence"
    measure = rest[0] if rest else ""
    if measure not in MEASURES:
        raise InputError(
            f"ablate: target {word!r}: expected rank:MEASURE:K with a measure of "
            f"{', '.join(MEASURES)}, got {measure!r}"
        )
    return measure


def _listed(
    word: str,
    path: str,
    category: str | None,
    space: ComponentSpace,
    family: str,
    categories: Sequence[str],
) -> CrossTarget:
    """The components of a file, meant for a category or for none."""
    if category is not None and category not in categories:
        have = ", ".join(categories)
        raise InputError(f"ablate: target {word!r}: expected a category that is scored ({have})")
    listed = read_components(path, space)
    other = {"neurons": "experts", "experts": "neurons"}[family]
    if len(getattr(listed, other)):
        raise InputError(f"ablate: {path} lists {other}; ablate them with --family {other}")
    one = Target(word, family, getattr(listed, family))
    if not len(one.index):
        raise _empty(word)
    return CrossTarget(word, family, category, (one, one), listed=True)


Key = tuple[str, str | None]


def _of_one_size(family: str, found: dict[Key, tuple[np.ndarray, np.ndarray]]) -> list[CrossTarget]:
    """Targets of the strongest components; found: (name, category) -> ranked indices of halves."""
    size = min(len(index) for pair in found.values() for index in pair)
    if not size:
        raise _empty(next(name for (name, _), pair in found.items() if not all(map(len, pair))))
    out = []
    for (name, category), pair in found.items():
        first, second = (Target(name, family, np.sort(index[:size])) for index in pair)
        out.append(CrossTarget(name, family, category, (first, second)))
    return out


def _ranked(
    word: str, known: Usage, categories: Sequence[str], high: float, low: float
) -> dict[Key, np.ndarray]:
    """(name, category) -> flat indices of what a word names, the strongest first."""
    kind, *rest = word.split(":")
    q = known.values
    if kind == "rank" and len(rest) in (2, 3):
        own = rest[2] if len(rest) == 3 else None
        return {(word, own): _highest(word, rest, known, categories)}
    if kind == "general" and not rest:
        return {(word, None): _best(np.where(q.min(0) >= high, q.min(0), 0))}
    if kind == "top" and len(rest) == 1:
        return {(word, None): _best(q.mean(0), _size(word, rest[0]))}
    if kind == "unique" and len(rest) < 2:
        return {
            (f"unique:{name}", name): _best(np.where((own >= high) & (most <= low), own - most, 0))
            for name, own, most in _against_others(word, rest, known, categories)
        }
    if kind == "specific" and len(rest) in (1, 2):
        size = _size(word, rest[0])
        return {
            (f"specific:{size}:{name}", name): _best(own - most, size)
            for name, own, most in _against_others(word, rest[1:], known, categories)
        }
    raise InputError(f"ablate: target {word!r} is not known; expected {WORDS}")


def _highest(word: str, rest: list[str], known: Usage, categories: Sequence[str]) -> np.ndarray:
    """The components that `rank:M:K[:c]` names; rest: M, K and perhaps c."""
    names = rest[2:] or list(categories)
    _check_category(word, names[:1], known, categories)
    values = known.values[[known.categories.index(name) for name in names]]
    for name, of in zip(names, values, strict=True):
        if np.isnan(of).any():
            raise InputError(
                f"ablate: target {word!r}: no instruction of {name} is attributed in one half of "
                "its clusters; attribute more with sparcom attribute --limit"
            )
    return _best(values.mean(0), _size(word, rest[1]))


def _best(score: np.ndarray, size: int | None = None) -> np.ndarray:
    """The `size` highest scores above 0, best first, the first of equals; None: all."""
    order = np.argsort(-score, kind="stable")[:size]
    best: np.ndarray = order[score[order] > 0]
    return best


def _size(word: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"ablate: target {word!r}: expected a number of at least 1, got {text!r}")
    return int(text)


def _against_others(
    word: str, names: list[str], known: Usage, categories: Sequence[str]
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(category, its q, the largest q of the others) of those that a word means."""
    if len(known.categories) < 2:
        raise InputError(f"ablate: target {word!r} needs two categories; the run has one")
    _check_category(word, names, known, categories)
    q = known.values
    return [
        (name, q[c], np.delete(q, c, 0).max(0))
        for c, name in enumerate(known.categories)
        if name in (names or categories)
    ]


def _check_category(
    word: str, names: Sequence[str], known: Usage, categories: Sequence[str]
) -> None:
    """Raise InputError if the category that a word names is none that can be scored."""
    if names and names[0] not in known.categories:
        have = ", ".join(known.categories)
        raise InputError(f"ablate: target {word!r}: expected a category of the run ({have})")
    if names and names[0] not in categories:
        raise InputError(
            f"ablate: target {word!r}: undetermined: {names[0]} has one cluster with reference "
            "answers, so nothing can be found on one half of its clusters and scored on the other; "
            "name clusters with --cluster FIELD when counting"
        )


def _empty(name: str) -> InputError:
    return InputError(
        f"ablate: target {name!r} is empty in this run, or in half of its clusters; try other "
        "--high and --low, or specific:K"
    )
