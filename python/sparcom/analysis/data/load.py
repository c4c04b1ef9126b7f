"""From a stored run to what the statistics act on.

Membership comes from the stored profile, which takes every instruction. Packed sets are read for
the instructions whose pairs are looked at: all of them up to `pair_limit`, a sample beyond. Memory
does not grow with the corpus but for its labels.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.analysis.data.labels import Labels, encode, make_labels
from sparcom.analysis.data.lexical import lexical_overlap
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.run_warnings import run_warnings
from sparcom.analysis.data.strata import STRATUM, Strata, make_strata, strata_of
from sparcom.analysis.options import AnalysisOptions
from sparcom.errors import InputError
from sparcom.store import CellRule, Run


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run, ready for analysis.

    labels: of all counted instructions. sample: [k] rows of them whose sets are kept.
    strata: of the profile, with the codes of all instructions; those of the sample are taken.
    lexical: [k, k] share of counted tokens that two instructions of the sample have in common.
    cuts: [n] c / T at the cut of the first group of neurons; NaN without sets.
    bits: "neurons" and "experts" -> [k, bytes] packed sets of the sample.
    memberships: the same two -> `Membership` of all instructions.
    sizes: the same two -> [n, groups] int32 achieved sizes, as in `Sets`.
    Without retained sets, sample, codes, bits and sizes are empty.
    """

    labels: Labels
    sample: np.ndarray
    strata: Strata
    lexical: np.ndarray
    cuts: np.ndarray
    bits: dict[str, np.ndarray]
    memberships: dict[str, Membership]
    sizes: dict[str, np.ndarray]
    warnings: tuple[str, ...]


def load(run: Run, options: AnalysisOptions) -> Loaded:
    """Read a run: its profile, its labels and, if it retains them, its sets.

    Raises InputError if the run has no profile, or one that sums over other sets than it retains.
    """
    cells, sums = run.store.profiles.read(("category", *STRATUM), ("neurons", "experts"))
    if not len(cells):
        raise InputError(f"{run.store.location}: no instruction was counted in this run")
    table = _counted(run, cells)
    labels = make_labels(table, run.categories)
    strata, by_prompt = _strata(run, table, cells)
    memberships = {
        name: Membership(
            categories=labels.categories,
            category=encode(cells["category"].to_pylist(), labels.categories),
            stratum=make_strata(cells).codes,
            count=cells["instructions"].to_numpy(),
            members=members,
        )
        for name, members in sums.items()
    }
    sample = np.zeros(0, np.int64)
    bits: dict[str, np.ndarray] = {}
    sizes: dict[str, np.ndarray] = {}
    cuts, lexical = np.full(len(labels.ids), np.nan), np.zeros((0, 0), np.float32)
    if run.store.results.parts("sets"):
        sample = choose_sample(labels.codes, options)
        bits, sizes, cuts = _read_sets(run, labels, sample)
        lexical = _lexical(run, [labels.ids[row] for row in sample])
    return Loaded(
        labels=labels,
        sample=sample,
        strata=strata,
        lexical=lexical,
        cuts=cuts,
        bits=bits,
        memberships=memberships,
        sizes=sizes,
        warnings=tuple(run_warnings(run, table, labels, len(sample), by_prompt)),
    )


def _counted(run: Run, cells: pa.Table) -> pa.Table:
    """Labels of the instructions that the profile sums over.

    A run that was stopped may hold sets of a part whose profile was not written.
    """
    table = run.labels
    if len(table) == pc.sum(cells["instructions"]).as_py():
        return table
    return table.filter(pc.is_in(table["id"], pa.array(run.store.profiles.ids(), pa.string())))


def _strata(run: Run, table: pa.Table, cells: pa.Table) -> tuple[Strata, bool]:
    """(strata with the code of each instruction, True if the lengths are those of prompts alone).

    A run that generates and retains only its profile knows T by cell: there are no codes then.
    Older versions took the prompts' lengths of a run that generates.
    """
    rule = CellRule.from_json(run.manifest["cells"])
    generates = bool(run.manifest["config"].get("generate"))
    has_sets = bool(run.store.results.parts("sets"))
    found = strata_of(rule.keys(table, table["n_counted"].to_numpy()), cells)
    if found is not None:  # without sets, n_counted is that of the prompt
        return found, generates and not has_sets
    if generates and not has_sets:
        return make_strata(cells), False
    if generates:
        prompts = run.store.corpus.table(["id", "n_counted"])
        length_of = dict(zip(*(prompts[n].to_pylist() for n in ("id", "n_counted")), strict=True))
        lengths = np.array([length_of[name] for name in table["id"].to_pylist()])
        found = strata_of(rule.keys(table, lengths), cells)
        if found is not None:
            return found, True
    raise InputError(
        f"{run.store.location}: its profile sums over other instructions or lengths than its sets "
        "have; count it again, or write both again with `sparcom identify`"
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


def _read_sets(
    run: Run, labels: Labels, sample: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """(packed sets of the sample, achieved sizes of all, cuts / T of all), part by part."""
    row_of = {name: row for row, name in enumerate(labels.ids)}
    place = np.full(len(labels.ids), -1, np.int64)
    place[sample] = np.arange(len(sample))
    bits: dict[str, np.ndarray] = {}
    sizes: dict[str, np.ndarray] = {}
    cuts = np.full(len(labels.ids), np.nan)
    for _, sets in run.store.results.sets(run.space):
        inside = np.array([name in row_of for name in sets.ids], bool)
        rows = np.array([row_of[name] for name in sets.ids if name in row_of], np.int64)
        kept = place[rows] >= 0
        if sets.cuts.shape[1]:
            cuts[rows] = sets.cuts[inside, 0] / np.maximum(sets.tokens[inside], 1)
        for name, packed, size in (
            ("neurons", sets.neurons, sets.sizes),
            ("experts", sets.experts, sets.expert_sizes),
        ):
            if not packed.shape[1]:
                continue
            if name not in bits:
                bits[name] = np.zeros((len(sample), packed.shape[1]), np.uint8)
                sizes[name] = np.zeros((len(labels.ids), size.shape[1]), size.dtype)
            bits[name][place[rows[kept]]] = packed[inside][kept]
            sizes[name][rows] = size[inside]
    return bits, sizes, cuts


def _lexical(run: Run, ids: list[str]) -> np.ndarray:
    """Shared tokens of the prompts with these ids."""
    table = run.store.corpus.table(["id", "token_ids", "counted"])
    row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
    return lexical_overlap(table.take(pa.array([row_of[name] for name in ids], pa.int64())))
