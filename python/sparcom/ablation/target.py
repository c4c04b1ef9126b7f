"""Which components are ablated: targets named by a word, chosen from a stored run."""

from dataclasses import dataclass

import numpy as np

from sparcom.component_list import read_components
from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.store import Run

WORDS = "general, unique[:CATEGORY], top:K, specific:K[:CATEGORY], or a .csv or .parquet file"


@dataclass(frozen=True)
class Target:
    """A set of components.

    name: as asked for. family: "neurons" | "experts". index: flat indices, sorted, each once.
    """

    name: str
    family: str
    index: np.ndarray


@dataclass(frozen=True)
class Usage:
    """What a run says of its components, from its profile.

    prevalence: [C, components]; frequency: [components], summed counts of all instructions, on
    which random sets are matched.
    """

    categories: tuple[str, ...]
    prevalence: np.ndarray
    frequency: np.ndarray


def usage(run: Run, family: str) -> Usage:
    """Prevalence and frequency of a family ("neurons" or "experts") in a run."""
    if family == "experts" and not run.space.experts:
        raise InputError("ablate: family experts, but the model has no routed experts")
    columns = (family, {"neurons": "neuron_counts", "experts": "expert_counts"}[family])
    cells, sums = run.store.profiles.read(("category",), columns)
    names = cells["category"].to_pylist()
    rows = [names.index(name) for name in run.categories]
    count = cells["instructions"].to_numpy()[rows]
    return Usage(run.categories, sums[columns[0]][rows] / count[:, None], sums[columns[1]].sum(0))


def targets(
    word: str, known: Usage, space: ComponentSpace, family: str, *, high: float, low: float
) -> list[Target]:
    """The targets that a word names.

    Without a category, `unique` and `specific:K` name one for each.

        general        q_c >= high in every category
        unique:c       q_c >= high, and q <= low in every other
        top:K          the K of highest mean q
        specific:K:c   the K of highest q_c - max of the other categories' q

    Raises InputError for an unknown word or category, and for a target that is empty.
    """
    if word.endswith((".csv", ".parquet")):
        listed = read_components(word, space)
        other = {"neurons": "experts", "experts": "neurons"}[family]
        if len(getattr(listed, other)):
            raise InputError(f"ablate: {word} lists {other}; ablate them with --family {other}")
        return [_filled(Target(word, family, getattr(listed, family)))]
    kind, *rest = word.split(":")
    q = known.prevalence
    if kind == "general" and not rest:
        return [_filled(Target(word, family, np.flatnonzero((q >= high).all(0))))]
    if kind == "top" and len(rest) == 1:
        return [_filled(Target(word, family, _best(q.mean(0), _size(word, rest[0]))))]
    if kind == "unique" and len(rest) < 2:
        wanted = _categories(word, rest, known)
        found = [(c, _is_unique(q, c, high, low)) for c in wanted]
        made = [Target(f"unique:{known.categories[c]}", family, at) for c, at in found]
        kept = made if rest else [t for t in made if len(t.index)] or made[:1]
        return [_filled(target) for target in kept]
    if kind == "specific" and len(rest) in (1, 2):
        size, out = _size(word, rest[0]), []
        for c in _categories(word, rest[1:], known):
            lead = q[c] - np.delete(q, c, 0).max(0)
            name = f"specific:{size}:{known.categories[c]}"
            out.append(_filled(Target(name, family, _best(np.where(lead > 0, lead, 0), size))))
        return out
    raise InputError(f"ablate: target {word!r} is not known; expected {WORDS}")


def _is_unique(q: np.ndarray, c: int, high: float, low: float) -> np.ndarray:
    return np.flatnonzero((q[c] >= high) & (np.delete(q, c, 0) <= low).all(0))


def _best(score: np.ndarray, size: int) -> np.ndarray:
    """The `size` highest scores above 0, the first of equals."""
    order = np.argsort(-score, kind="stable")[:size]
    return np.sort(order[score[order] > 0])


def _size(word: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"ablate: target {word!r}: expected a number of at least 1, got {text!r}")
    return int(text)


def _categories(word: str, names: list[str], known: Usage) -> list[int]:
    if len(known.categories) < 2:
        raise InputError(f"ablate: target {word!r} needs two categories; the run has one")
    if names and names[0] not in known.categories:
        have = ", ".join(known.categories)
        raise InputError(f"ablate: target {word!r}: expected a category of the run ({have})")
    return [known.categories.index(names[0])] if names else list(range(len(known.categories)))


def _filled(target: Target) -> Target:
    if not len(target.index):
        raise InputError(
            f"ablate: target {target.name!r} is empty in this run; try other --high and --low, or "
            "specific:K"
        )
    return target
