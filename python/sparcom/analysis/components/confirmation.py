"""What one source discovers, tested in another: the strongest check that a corpus allows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from sparcom.analysis.components.enrichment import Enrichment, enrichment, q_values
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Enriched components of one source, tested in another.

    discovered: [C] component-category pairs enriched in the first source at the false discovery
        rate alpha; confirmed: [C] those of them that are enriched in the second at the same rate,
        Benjamini-Hochberg over the discovered ones.
    chances: [C] share of all pairs that were not discovered whose p is as small; chance: over all.
    clusters: [C] of the category in the second source; a category with too few to reach p = 0.05
        there has NaN for confirmed and chances.
    """

    found_in: str
    tested_in: str
    discovered: np.ndarray
    confirmed: np.ndarray
    chance: float
    chances: np.ndarray
    clusters: np.ndarray


def confirmations(
    frequencies: Frequencies, labels: Labels, strata: Strata, *, alpha: float
) -> tuple[Confirmation, ...]:
    """Every source against every other. labels, strata: of the rows of the frequencies."""
    tests = {}
    for source, name in enumerate(strata.sources):
        rows = np.flatnonzero(strata.sources_of == source)
        tests[name] = enrichment(
            _chunks(frequencies, rows), labels.codes[rows], labels.categories,
            labels.clusters[rows], strata.codes[rows], alpha=alpha, specific=False,
        )  # fmt: skip
    return tuple(
        _confirm(tests[a], tests[b], a, b, alpha) for a, b in permutations(strata.sources, 2)
    )


def _chunks(frequencies: Frequencies, rows: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: frequencies.chunks(rows)


def _confirm(
    first: Enrichment, second: Enrichment, found_in: str, tested_in: str, alpha: float
) -> Confirmation:
    found = first.enriched
    one_sided = np.where(second.difference > 0, second.p / 2, 1 - second.p / 2)
    again = q_values(np.where(found, one_sided, np.nan)) <= alpha
    cut = one_sided[again].max(initial=0.0)
    rest, by_chance = (~found).sum(1), ((one_sided <= cut) & ~found & (cut > 0)).sum(1)
    known = second.determined
    return Confirmation(
        found_in=found_in,
        tested_in=tested_in,
        discovered=found.sum(1),
        confirmed=np.where(known, again.sum(1), np.nan),
        chance=float(by_chance[known].sum() / max(rest[known].sum(), 1)),
        chances=np.where(known, by_chance / np.maximum(rest, 1), np.nan),
        clusters=second.inside_clusters,
    )
