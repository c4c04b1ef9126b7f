"""Naming neurons on a command line: `22:616`, `12:3:700`, `12:shared:700`, or a component list."""

import re
from collections.abc import Sequence

import numpy as np

from sparcom.component_list import read_components
from sparcom.components import KINDS, ComponentSpace
from sparcom.errors import InputError

_WORD = re.compile(rf"(\d+):(?:({'|'.join(KINDS)}):)?(?:(\d+):)?(\d+)", re.ASCII)
_EXPECTED = "LAYER:UNIT, LAYER:EXPERT:UNIT, LAYER:shared:UNIT, or a .csv or .parquet list"


def parse_units(words: Sequence[str], space: ComponentSpace) -> np.ndarray:
    """[n] int64: the flat indices of named neurons, in order, each once.

    words: `LAYER:UNIT` of a dense FFN, or of the shared expert in a layer without one;
        `LAYER:EXPERT:UNIT` of a routed expert; `LAYER:KIND:UNIT`; or the file of a component list,
        all of whose neurons are meant.
    Raises InputError for another word, or a neuron that the model does not have.

    >>> parse_units(["22:616"], run.space)
    """
    if not words:
        raise InputError(f"trace: no unit is named; expected {_EXPECTED}")
    found: list[int] = []
    for word in words:
        if word.lower().endswith((".csv", ".parquet")):
            found += _listed(word, space)
        else:
            found.append(_named(word, space))
    return np.array(list(dict.fromkeys(found)), np.int64)


def _listed(path: str, space: ComponentSpace) -> list[int]:
    listed = read_components(path, space)
    if len(listed.experts):
        raise InputError(f"trace: {path} lists whole experts; a trace is of neurons")
    return [int(index) for index in listed.neurons]


def _named(word: str, space: ComponentSpace) -> int:
    match = _WORD.fullmatch(word)
    if match is None:
        raise InputError(f"trace: unit {word!r}: expected {_EXPECTED}")
    layer, unit = int(match[1]), int(match[4])
    expert = -1 if match[3] is None else int(match[3])
    kind = match[2] or _kind(space, layer, expert)
    try:
        return space.neuron_index(layer, kind, expert, unit)
    except InputError as error:
        raise InputError(f"trace: unit {word!r}: {error}") from None


def _kind(space: ComponentSpace, layer: int, expert: int) -> str:
    if expert >= 0:
        return "routed"
    have = {site.kind for site in space.sites if site.layer == layer}
    return "shared" if "shared" in have and "dense" not in have else "dense"


def name_of(space: ComponentSpace, index: int) -> str:
    """How a neuron is named: `22:616`, `12:3:700`, `12:shared:700`."""
    layer, kind, expert, unit = space.describe_neuron(index)
    if expert >= 0:
        return f"{layer}:{expert}:{unit}"
    return f"{layer}:{unit}" if kind == "dense" else f"{layer}:{kind}:{unit}"
