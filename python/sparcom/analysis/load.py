"""From a stored run to what the statistics act on, in one pass over its sets.

Profiles take every instruction; packed sets are kept for the instructions whose pairs are looked
at: all of them up to `pair_limit`, a sample beyond. Memory does not grow with the corpus but for
its labels.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap import encode
from sparcom.analysis.profile import Profile, ProfileBuilder
from sparcom.analysis.strata import Strata, make_strata, origin_group
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError
from sparcom.store import Run


@dataclass(frozen=True)
class Labels:
    """What is known of each instruction, one entry each.

    categories: names; codes: [n] int64. tokens: [n] counted tokens. origins: [n] collections.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    codes: np.ndarray
    tokens: np.ndarray
    strata: Strata
    origins: np.ndarray

    @property
    def source(self) -> np.ndarray:
        """[n] int64 code of each instruction's source in `strata.sources`."""
        return self.strata.source[self.strata.codes]

    def take(self, rows: np.ndarray) -> "Labels":
        """The labels of some instructions; categories and strata keep their codes."""
        strata = Strata(
            self.strata.names, self.strata.codes[rows], self.strata.sources, self.strata.source
        )
        return Labels(
            tuple(self.ids[row] for row in rows),
            self.categories,
            self.codes[rows],
            self.tokens[rows],
            strata,
            self.origins[rows],
        )


@dataclass(frozen=True)
class Loaded:
    """A run, ready for analysis.

    labels: of all instructions that have sets; sample: [k] rows of them whose sets are kept.
    bits: "neurons" and "experts": [k, bytes] packed sets of the sample.
    profiles: the same two: `Profile` of all instructions.
    sizes: the same two: [n, groups] int32 achieved sizes, as in `Sets`.
    """

    labels: Labels
    sample: np.ndarray
    bits: dict[str, np.ndarray]
    profiles: dict[str, Profile]
    sizes: dict[str, np.ndarray]
    warnings: tuple[str, ...]


def category_order(labels: list[str]) -> tuple[str, ...]:
    """The categories that occur: HexaInst's in its order, then others by name."""
    present = set(labels)
    known = [name for name in CATEGORIES if name in present]
    return (*known, *sorted(present - set(known)))


def make_labels(table: pa.Table, options: AnalysisOptions) -> Labels:
    """Labels from the columns id, category, source, origin, n_counted."""
    names, codes = encode(
        table["category"].to_pylist(), category_order(table["category"].to_pylist())
    )
    tokens = table["n_counted"].to_numpy().astype(np.int64)
    origins = [origin_group(o) for o in table["origin"].to_pylist()]
    return Labels(
        tuple(table["id"].to_pylist()),
        names,
        codes,
        tokens,
        make_strata(tokens, table["source"].to_pylist(), options.length_bins),
        np.unique(np.array(origins, dtype=str), return_inverse=True)[1],
    )


def load(run: Run, options: AnalysisOptions) -> Loaded:
    """Read a run's sets once. Raises InputError where it has none."""
    columns = ["id", "category", "source", "origin", "n_counted"]
    labels = make_labels(run.store.corpus(columns), options)
    row_of = {name: row for row, name in enumerate(labels.ids)}
    wanted = choose_sample(labels.codes, options)
    place = np.full(len(labels.ids), -1, np.int64)
    place[wanted] = np.arange(len(wanted))
    sizes = {"neurons": run.space.neurons, "experts": run.space.experts}
    builders = {
        name: ProfileBuilder(
            labels.categories, labels.codes, labels.strata.names, labels.strata.codes, size
        )
        for name, size in sizes.items()
        if size
    }
    bits = {name: np.zeros((len(wanted), -(-sizes[name] // 8)), np.uint8) for name in builders}
    present = np.zeros(len(labels.ids), bool)
    achieved: dict[str, list[np.ndarray]] = {"neurons": [], "experts": []}
    order = []
    for _, sets in run.store.set_parts():
        rows = np.array([row_of[name] for name in sets.ids], dtype=np.int64)
        present[rows] = True
        order.append(rows)
        achieved["neurons"].append(sets.sizes)
        achieved["experts"].append(sets.expert_sizes)
        kept = np.flatnonzero(place[rows] >= 0)
        for name, builder in builders.items():
            part = getattr(sets, name)
            builder.add(part, rows)
            bits[name][place[rows[kept]]] = part[kept]
    if not present.any():
        raise InputError(f"{run.store.location}: no sets in this run; is it complete?")
    found = np.flatnonzero(present)
    sort = np.argsort(np.concatenate(order))
    inside = present[wanted]
    return Loaded(
        labels.take(found),
        np.searchsorted(found, wanted[inside]),
        {name: array[inside] for name, array in bits.items()},
        {name: builder.build() for name, builder in builders.items()},
        {name: np.concatenate(parts)[sort] for name, parts in achieved.items()},
        tuple(_load_warnings(run, labels, present, len(wanted))),
    )


def choose_sample(codes: np.ndarray, options: AnalysisOptions) -> np.ndarray:
    """Sorted rows whose pairs are taken: all, or a random sample, evenly over categories."""
    if len(codes) <= options.pair_limit:
        return np.arange(len(codes))
    rng = np.random.default_rng(options.seed)
    names = np.unique(codes)
    share = max(2, options.pair_sample // len(names))
    parts = [rng.permutation(np.flatnonzero(codes == name))[:share] for name in names]
    return np.sort(np.concatenate(parts))


def _load_warnings(run: Run, labels: Labels, present: np.ndarray, sampled: int) -> list[str]:
    out = []
    if run.manifest.get("status") != "complete":
        out.append(
            f"the run is not complete: {int(present.sum())} of {len(present)} instructions are "
            "counted; finish it with --resume"
        )
    elif not present.all():
        out.append(f"{int((~present).sum())} of {len(present)} instructions were set aside")
    if sampled < len(present):
        out.append(
            f"pairs are taken among a sample of {sampled} of {len(present)} instructions; "
            "prevalence, generality and specificity use all of them"
        )
    count = np.bincount(labels.codes[present], minlength=len(labels.categories))
    for name, size in zip(labels.categories, count, strict=True):
        if size < 2:
            out.append(f"category {name} has {size} instruction(s): no pair within it")
    if (count > 0).sum() < 2:
        out.append("one category only: nothing to compare between categories")
    return out
