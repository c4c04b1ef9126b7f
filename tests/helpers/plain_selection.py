"""Selection in plain NumPy, one row and one group at a time, by sorting: the kernels' reference."""

import math
from fractions import Fraction

import numpy as np

from sparcom.components import KINDS, ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.selection.rules import Selection
from sparcom.selection.sets import Sets

INT32_MAX = 2**31 - 1


def splitmix64(index: np.ndarray) -> np.ndarray:
    """The order in which ties="exact" fills a set, uint64."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def select_top(
    counts: np.ndarray, index: np.ndarray, size: int, ties: str
) -> tuple[np.ndarray, int]:
    """(selected components, cut) of the components `index`, ranked together."""
    values = counts[index]
    nominal = max(0, int(np.sort(values)[-size])) if 0 < size <= len(values) else 0
    cut = nominal + 1 if ties == "exclusive" else max(nominal, 1)
    chosen = index[values >= cut]
    if ties == "exact" and len(chosen) > size:
        order = np.lexsort((splitmix64(chosen), -counts[chosen].astype(np.int64)))
        chosen = chosen[order[:size]]
    return chosen, min(cut, INT32_MAX)


def select_from(counts: np.ndarray, index: np.ndarray, cut: int) -> tuple[np.ndarray, int]:
    """(selected components, cut) of the components `index`, by a given cut."""
    return index[counts[index] >= cut], min(cut, INT32_MAX)


def identify(counted: Counted, space: ComponentSpace, selection: Selection) -> Sets:
    """The sets of counted instructions, as `sparcom.selection.rules.identify` returns them."""
    of_neuron = [(s.kind, s.layer, None) for s in space.sites for _ in range(s.neurons)]
    of_expert = [
        ("routed", s.layer, Fraction(s.top_k, s.experts))
        for s in space.sites
        for _ in range(s.experts)
    ]
    neurons = _sets(counted.neurons, counted.tokens, of_neuron, selection.rule, selection)
    experts = _sets(counted.experts, counted.tokens, of_expert, selection.expert_rule, selection)
    return Sets(counted.ids, counted.tokens, *neurons, *experts, space)


def _sets(
    counts: np.ndarray, tokens: np.ndarray, places: list[tuple], rule: str, selection: Selection
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits, cuts, sizes); places: (kind, layer, uniform frequency) of each component."""
    kind, _, text = rule.partition(":")
    value = Fraction(text)
    groups: dict[tuple, list[int]] = {}
    for component, (site_kind, layer, _) in enumerate(places):
        by_kind = -1 if selection.pool else KINDS.index(site_kind)
        by_layer = layer if kind in ("per-layer", "lift") else None
        groups.setdefault((by_kind, by_layer), []).append(component)
    ordered = sorted(groups, key=lambda key: key[0])  # stable: layers as they come
    chosen = np.zeros(counts.shape, bool)
    cuts = np.zeros((len(counts), len(groups)), np.int32)
    sizes = np.zeros_like(cuts)
    for row, total in enumerate(tokens.tolist()):
        for g, key in enumerate(ordered):
            index = np.array(groups[key])
            if kind in ("top", "per-layer"):
                size = math.ceil(value * len(index))
                found, cuts[row, g] = select_top(counts[row], index, size, selection.ties)
            else:
                lift = value * places[index[0]][2] * total if kind == "lift" else None
                cut = math.floor(lift) + 1 if kind == "lift" else max(1, math.ceil(value * total))
                found, cuts[row, g] = select_from(counts[row], index, cut)
            chosen[row, found] = True
            sizes[row, g] = len(found)
    return np.packbits(chosen, axis=1, bitorder="little"), cuts, sizes
