"""Tables of single instructions: their text, their nearest, the members that mark them.

They cover the instructions whose pairs are taken (`Loaded.sample`), so that they do not grow with
the corpus. Members are ranked by how few other instructions hold them: what nearly all hold says
nothing about one of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.bitsets import column_counts, intersections, set_sizes
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.load import Loaded, choose_sample
from sparcom.analysis.data.sites import family_sites, site_sizes
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace
from sparcom.store import Run

TEXT = 2000
"""Characters of an instruction that are kept."""
NEAREST = 10
"""Nearest instructions of each."""
PAIRS = 10
"""Pairs of each cell of the category matrix, most and least alike."""
MEMBERS = 20
"""Members of each set, those that fewest others hold."""

INSTRUCTION_TABLES = ("nearest", "pairs", "members")
"""The tables of a run that retains its sets; `instructions` is always written."""


def instruction_tables(
    run: Run,
    loaded: Loaded,
    bits: Mapping[str, np.ndarray],
    frequencies: Mapping[str, Frequencies],
    options: AnalysisOptions,
) -> dict[str, pa.Table]:
    """`instructions`, and with sets `nearest`, `pairs` and `members`.

    bits: family -> [k, bytes] packed sets of the sample over the family's index.
    frequencies: "neurons" and "experts" -> counts of some instructions; empty if not retained.
    """
    labels = loaded.labels
    rows = loaded.sample if bits else choose_sample(labels.codes, options)
    out = {"instructions": _instructions(run, labels.take(rows), bits)}
    if not bits:
        return out
    nearest, pairs, members = [], [], []
    for family, sets in bits.items():
        kept = np.flatnonzero(set_sizes(sets))
        of, sets = labels.take(rows[kept]), np.ascontiguousarray(sets[kept])
        shared = intersections(sets)
        values = pair_matrix(shared)
        nearest.append(_nearest(family, of.ids, values, shared))
        pairs.append(_pairs(family, of, values, shared, sets, run.space))
        if family in ("neurons", "experts"):
            found = frequencies.get(family)
            members.append(_members(family, of, rows[kept], sets, found, run.space))
    out |= {
        name: pa.concat_tables(parts)
        for name, parts in zip(INSTRUCTION_TABLES, (nearest, pairs, members), strict=True)
    }
    return out


def unit_names(table: pa.Table) -> list[str]:
    """`22:616` of each row of a component list: as `sparcom trace --unit` takes them,
    `22:3:616` of expert 3, `22:shared:616` of a shared one; `22:3` is an expert.

    >>> unit_names(component_table(space, "neurons", np.array([5])))
    ['0:5']
    """
    return [
        ":".join(
            str(part)
            for part in (
                row["layer"],
                "shared" if row["kind"] == "shared" else None,
                row["expert"],
                row["unit"],
            )
            if part is not None
        )
        for row in table.to_pylist()
    ]


def _instructions(run: Run, labels: Labels, bits: Mapping[str, np.ndarray]) -> pa.Table:
    """One row per instruction: labels, text, and how many members its set has in each site."""
    text = _texts(run, labels.ids)
    names = labels.categories
    columns = {
        "id": pa.array(labels.ids, pa.string()),
        "category": pa.array([names[code] for code in labels.codes], pa.string()),
        "source": pa.array([text[name][0] for name in labels.ids], pa.string()),
        "cluster": pa.array([labels.cluster_names[at] for at in labels.clusters], pa.string()),
        "tokens": pa.array(labels.tokens, pa.int64()),
        "text": pa.array([text[name][1] for name in labels.ids], pa.string()),
        "cut": pa.array([text[name][2] for name in labels.ids], pa.bool_()),
    }
    for family in ("neurons", "experts"):
        if family in bits:
            sizes = site_sizes(bits[family], family_sites(run.space, family))
            columns[f"sites_{family}"] = pa.array(list(sizes), pa.list_(pa.int64()))
    return pa.table(columns)


def _texts(run: Run, ids: Sequence[str]) -> dict[str, tuple[str, str, bool]]:
    """id -> (source, text cut to `TEXT` characters, True if it was cut); part by part."""
    wanted, out = set(ids), {}
    for part in range(run.store.corpus.parts()):
        for row in run.store.corpus.part(
            part, ("id", "source", "instruction", "input")
        ).to_pylist():
            if row["id"] in wanted:
                text = "\n\n".join(row[name] for name in ("instruction", "input") if row[name])
                out[row["id"]] = (row["source"], text[:TEXT], len(text) > TEXT)
    return out


def _nearest(family: str, ids: Sequence[str], values: np.ndarray, shared: np.ndarray) -> pa.Table:
    """The `NEAREST` instructions of each by the Jaccard overlap of their sets, nearest first."""
    n = len(ids)
    most = min(NEAREST, max(n - 1, 0))
    order = np.where(np.eye(n, dtype=bool), np.inf, -values).argsort(1, kind="stable")[:, :most]
    row, names = np.repeat(np.arange(n), most), pa.array(ids, pa.string())
    other = order.reshape(-1)
    return pa.table(
        {
            "family": pa.array([family] * len(row), pa.string()),
            "id": names.take(pa.array(row)),
            "rank": pa.array(np.tile(np.arange(1, most + 1), n), pa.int64()),
            "other": names.take(pa.array(other)),
            "jaccard": pa.array(values[row, other], pa.float64()),
            "shared": pa.array(shared[row, other], pa.int64()),
        }
    )


def _pairs(
    family: str,
    labels: Labels,
    values: np.ndarray,
    shared: np.ndarray,
    bits: np.ndarray,
    space: ComponentSpace,
) -> pa.Table:
    """Of each two categories the `PAIRS` most and the `PAIRS` least alike pairs."""
    holders, names = column_counts(bits), labels.categories
    columns: dict[str, list] = {name: [] for name in _PAIR_FIELDS}
    for a, b, first, second in _cells(labels):
        order = np.argsort(-values[first, second], kind="stable")
        parts = {"most": order[:PAIRS], "least": order[max(PAIRS, len(order) - PAIRS) :][::-1]}
        for end, chosen in parts.items():
            for rank, at in enumerate(chosen, 1):
                i, k = int(first[at]), int(second[at])
                rare = _rarest(bits[i] & bits[k], holders, PAIRS)
                row = (family, names[a], names[b], end, rank, labels.ids[i], labels.ids[k],
                       float(values[i, k]), int(shared[i, k]),
                       bool(labels.clusters[i] == labels.clusters[k]),
                       unit_names(component_table(space, _index_of(family), rare)))  # fmt: skip
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return pa.table({name: pa.array(columns[name], kind) for name, kind in _PAIR_FIELDS.items()})


_PAIR_FIELDS = {
    "family": pa.string(),
    "a": pa.string(),
    "b": pa.string(),
    "end": pa.string(),
    "rank": pa.int64(),
    "first": pa.string(),
    "second": pa.string(),
    "jaccard": pa.float64(),
    "shared": pa.int64(),
    "same_cluster": pa.bool_(),
    "units": pa.list_(pa.string()),
}


def _cells(labels: Labels) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(a, b, rows of the first, rows of the second) of the pairs of each two categories, a <= b."""
    groups = [np.flatnonzero(labels.codes == code) for code in range(len(labels.categories))]
    for a, left in enumerate(groups):
        for b in range(a, len(groups)):
            right = groups[b]
            if a == b:
                i, k = np.triu_indices(len(left), 1)
            else:
                i, k = (grid.reshape(-1) for grid in np.indices((len(left), len(right))))
            yield a, b, left[i], right[k]


def _members(
    family: str,
    labels: Labels,
    rows: np.ndarray,
    bits: np.ndarray,
    frequencies: Frequencies | None,
    space: ComponentSpace,
) -> pa.Table:
    """Of each set the `MEMBERS` members that fewest of these instructions hold.

    rows: of all labels, in whose order frequencies.rows counts.
    """
    holders = column_counts(bits)
    chosen = [_rarest(row, holders, MEMBERS) for row in bits]
    count = np.array([len(found) for found in chosen], np.int64)
    at = np.concatenate([np.zeros(0, np.int64), *chosen])
    owner = np.repeat(np.arange(len(chosen)), count)
    table = component_table(space, family, at)
    columns = {
        "family": pa.array([family] * len(at), pa.string()),
        "id": pa.array(labels.ids, pa.string()).take(pa.array(owner)),
        "rank": pa.array(_ranks(count), pa.int64()),
        "held_by": pa.array(holders[at], pa.int64()),
        "frequency": pa.array(_shares(frequencies, rows[owner], at), pa.float64()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _ranks(count: np.ndarray) -> np.ndarray:
    """1, 2, ... count[0], 1, 2, ... count[1], and so on."""
    starts = np.repeat(np.cumsum(count) - count, count)
    return np.arange(len(starts)) - starts + 1


def _shares(
    frequencies: Frequencies | None, rows: np.ndarray, components: np.ndarray
) -> list[float | None]:
    """c / T of each (row of the labels, component); None where no counts were read."""
    if frequencies is None:
        return [None] * len(rows)
    place = {row: at for at, row in enumerate(frequencies.rows.tolist())}
    at = np.array([place.get(row, -1) for row in rows.tolist()], np.int64)
    values = frequencies.counts[at, components] / np.maximum(frequencies.tokens[at], 1)
    return [float(v) if known else None for v, known in zip(values, at >= 0, strict=True)]


def _rarest(row: np.ndarray, holders: np.ndarray, most: int) -> np.ndarray:
    """The `most` components of a packed set [bytes] with the fewest holders, fewest first."""
    held = np.flatnonzero(np.unpackbits(row, bitorder="little"))
    return held[np.argsort(holders[held], kind="stable")[:most]]


def _index_of(family: str) -> str:
    """The flat index that the bits of a family count in."""
    return "experts" if family == "experts" else "neurons"
