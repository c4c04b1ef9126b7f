"""From a stored run to what the statistics act on, in one pass over its sets.

Profiles take every instruction; packed sets are kept for the instructions whose pairs are looked
at: all of them up to `pair_limit`, a sample beyond. Memory does not grow with the corpus but for
its labels.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.profile import Profile, ProfileBuilder
from sparcom.analysis.data.strata import Strata, make_strata, origin_group
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.overlap import encode
from sparcom.config import stored
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError
from sparcom.selection.sets import Sets
from sparcom.store import CellRule, Run

COLUMNS = ("id", "category", "source", "origin", "n_counted")


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

    @property
    def length(self) -> np.ndarray:
        """[n] int64 length bin of each instruction."""
        return self.strata.length[self.strata.codes]

    def take(self, rows: np.ndarray) -> "Labels":
        """The labels of some instructions; categories and strata keep their codes."""
        strata = replace(self.strata, codes=self.strata.codes[rows])
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
    """Read a run once: its sets, or its stored profile where it retains no sets.

    Raises InputError where it has neither.
    """
    if not run.store.results.parts("sets") and run.store.profiles.spans():
        return load_profile(run, options)
    if not run.store.results.parts("sets"):
        raise InputError(f"{run.store.location}: no sets in this run; is it complete?")
    labels = make_labels(run.labels.select(COLUMNS), options)
    reader = _Reader(run, labels, choose_sample(labels.codes, options))
    for _, sets in run.store.results.sets(run.space):
        reader.add(sets)
    return reader.loaded()


class _Reader:
    """Gathers what `Loaded` holds, part by part, in the order of the labels."""

    def __init__(self, run: Run, labels: Labels, wanted: np.ndarray) -> None:
        self._run, self._labels, self._wanted = run, labels, wanted
        self._read = 0
        self._place = np.full(len(labels.ids), -1, np.int64)
        self._place[wanted] = np.arange(len(wanted))
        sizes = {"neurons": run.space.neurons, "experts": run.space.experts}
        strata = labels.strata
        self._builders = {
            name: ProfileBuilder(labels.categories, labels.codes, strata.names, strata.codes, size)
            for name, size in sizes.items()
            if size
        }
        self._bits = {
            name: np.zeros((len(wanted), -(-sizes[name] // 8)), np.uint8) for name in self._builders
        }
        self._sizes: dict[str, list[np.ndarray]] = {"neurons": [], "experts": []}

    def add(self, sets: Sets) -> None:
        """Take the sets of one part."""
        rows = np.arange(self._read, self._read + len(sets.ids))
        self._read += len(rows)
        self._sizes["neurons"].append(sets.sizes)
        self._sizes["experts"].append(sets.expert_sizes)
        kept = np.flatnonzero(self._place[rows] >= 0)
        for name, builder in self._builders.items():
            part = getattr(sets, name)
            builder.add(part, rows)
            self._bits[name][self._place[rows[kept]]] = part[kept]

    def loaded(self) -> Loaded:
        """What was read."""
        return Loaded(
            self._labels,
            self._wanted,
            self._bits,
            {name: builder.build() for name, builder in self._builders.items()},
            {name: np.concatenate(parts) for name, parts in self._sizes.items()},
            tuple(load_warnings(self._run, self._labels, len(self._wanted))),
        )


def load_profile(run: Run, options: AnalysisOptions) -> Loaded:
    """What the stored profile tells of a run that retains nothing else: no pairs.

    Strata are the profile's own cells: its length bins x source.
    """
    table = run.labels
    keys = CellRule.from_json(run.manifest["cells"]).keys(table)
    labels = make_labels(table, options)
    sources, bins = keys["source"].to_pylist(), keys["length"].to_numpy()
    names = sorted(set(sources))
    of_source = np.array([names.index(name) for name in sources], np.int64)
    width = int(bins.max(initial=0)) + 1
    used, codes = np.unique(of_source * width + bins, return_inverse=True)
    texts = [f"{names[code // width] or 'unnamed'}, length bin {code % width}" for code in used]
    strata = Strata(tuple(texts), codes, tuple(names), used // width, used % width)
    cells, sums = run.store.profiles.read(("category", "source", "length"), ("neurons", "experts"))
    category = encode(cells["category"].to_pylist(), labels.categories)[1]
    at = np.array([names.index(name) for name in cells["source"].to_pylist()], np.int64)
    stratum = np.searchsorted(used, at * width + cells["length"].to_numpy())
    count = cells["instructions"].to_numpy()
    profiles = {
        name: Profile(labels.categories, strata.names, category, stratum, count, members)
        for name, members in sums.items()
    }
    warnings = load_warnings(run, labels, len(labels.ids))
    warnings.append("the run retains only its profile: nothing that looks at pairs of instructions")
    if run.manifest["config"].get("generate"):
        warnings.append(
            "the run retains only its profile, whose length bins are of the prompts: differences "
            "in the number of generated tokens are not controlled"
        )
    return Loaded(
        replace(labels, strata=strata), np.zeros(0, np.int64), {}, profiles, {}, tuple(warnings)
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


def load_warnings(run: Run, labels: Labels, sampled: int) -> list[str]:
    """What is missing: instructions, categories, pairs."""
    out, counted, total = [], len(labels.ids), run.manifest["corpus"]["instructions"]
    if run.manifest["status"] != "complete":
        out.append(
            f"the run is not complete: {counted} of {total} instructions are counted; finish it "
            "with --resume"
        )
    elif counted < total:
        out.append(f"{total - counted} of {total} instructions were set aside")
    if sampled < counted:
        out.append(
            f"pairs are taken among a sample of {sampled} of {counted} instructions; prevalence, "
            "generality and specificity use all of them"
        )
    asked = stored(run.manifest["config"]).get("max_tokens")
    if asked and (short := int((labels.tokens < asked).sum())):
        out.append(
            f"{short} of {counted} instructions are shorter than the {asked} tokens counted of "
            "each, so that length is not quite the same for all"
        )
    count = np.bincount(labels.codes, minlength=len(labels.categories))
    for name, size in zip(labels.categories, count, strict=True):
        if size < 2:
            out.append(f"category {name} has {size} instruction(s): no pair within it")
    if (count > 0).sum() < 2:
        out.append("one category only: nothing to compare between categories")
    return out
