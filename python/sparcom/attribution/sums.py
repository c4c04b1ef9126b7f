"""Stored attributions: sums over the instructions of one category and cluster, part by part.

They lie in attribution/ of a run, not in analysis/: they rest on the model and the corpus alone, so
that `sparcom identify` leaves them. Sums by cluster let every later question leave some out.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.store import Run, RunStore, part_name
from sparcom.store.profiles.spans import span_of
from sparcom.store.stamped import check_stamp
from sparcom.store.tables import packed_column, stored_matrix, sum_field

FOLDER = "attribution"
HEADS = ("category", "cluster", "ids")
_STAMP, _PARTS, _OPTIONS = "sparcom", "sparcom-parts", "sparcom-attribution"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Instructions of one category and cluster. sums: rule -> [neurons] float64."""

    category: str
    cluster: str
    ids: list[str]
    sums: dict[str, np.ndarray]


def schema_of(space: ComponentSpace, rules: Sequence[str]) -> pa.Schema:
    """The columns of a part."""
    return pa.schema(
        [
            pa.field("category", pa.string()),
            pa.field("cluster", pa.string()),
            pa.field("ids", pa.list_(pa.string())),
            *(sum_field(rule, space.neurons, "float32") for rule in rules),
        ]
    )


class AttributionFiles:
    """The files of attribution/ of a run, each bound to the run and to what it was asked for.

    stamp: the fingerprint of what decides a run's counts.
    """

    def __init__(self, store: RunStore, space: ComponentSpace, stamp: str) -> None:
        self._files, self._space, self._stamp = store.files, space, stamp
        self._hint = f"write it again: sparcom attribute {store.location} --overwrite"

    def parts(self) -> list[int]:
        """The parts that there are files of, ascending."""
        spans = (span_of(name) for name in self._files.names(FOLDER))
        return sorted(span.first for span in spans if span is not None)

    def options(self) -> dict[str, Any] | None:
        """What the stored parts were asked for; None if there are none."""
        for part in self.parts():
            with self._files.parquet(_name(part), self._hint) as file:
                found = (file.metadata.metadata or {}).get(_OPTIONS.encode(), b"{}")
                options: dict[str, Any] = json.loads(found)
                return options
        return None

    def write(self, part: int, groups: Sequence[Group], options: Mapping[str, Any]) -> None:
        """Write a part in place of what was there."""
        rules = options["rules"]
        columns: dict[str, Any] = {
            name: [getattr(group, name) for group in groups] for name in HEADS
        }
        for rule in rules:
            sums = np.array([group.sums[rule] for group in groups], "<f4")
            columns[rule] = packed_column(sums.view(np.uint8))
        table = pa.table(columns, schema=schema_of(self._space, rules))
        # The type of the sums is in their field; the file's own metadata bind it to the run.
        self._files.write_table(_name(part), table, self._metadata(part, options))

    def delete(self) -> None:
        """Delete all parts."""
        self._files.delete_folder(FOLDER)

    def holds(self, part: int, ids: Sequence[str], options: Mapping[str, Any]) -> bool:
        """True if a part is there and holds these instructions, as they were asked for."""
        if part not in self.parts():
            return False
        lists = self.read(part, HEADS, options)["ids"].to_pylist()
        return sorted(itertools.chain.from_iterable(lists)) == sorted(ids)

    def read(self, part: int, columns: Sequence[str], options: Mapping[str, Any]) -> pa.Table:
        """Columns of a part; raises InputError if it is of another run, or asked for otherwise."""
        with self._files.parquet(_name(part), self._hint) as file:
            where = f"{self._files.location}/{_name(part)}"
            check_stamp(file, self._metadata(part, options), where, self._hint)
            _check_columns(file, [*HEADS, *options["rules"]], where, self._hint)
            return file.read(columns=list(columns))

    def _metadata(self, part: int, options: Mapping[str, Any]) -> dict[str, str]:
        text = json.dumps(options, sort_keys=True)
        bound = hashlib.sha256(f"{self._stamp} {text}".encode()).hexdigest()
        return {_STAMP: bound, _PARTS: str(part), _OPTIONS: text}


def _name(part: int) -> str:
    return f"{FOLDER}/{part_name(part)}"


def _check_columns(file: pq.ParquetFile, names: Sequence[str], where: str, hint: str) -> None:
    lost = [name for name in names if name not in file.schema_arrow.names]
    if lost:
        raise InputError(f"{where}: it has no column {lost[0]!r}; {hint}")


class Attribution:
    """What `attribute` has stored in a run.

    options: what it was asked for. rules: of "attribution" and "relp".
    categories, clusters: [rows] names, of each row that is stored. instructions: [rows] of it.

    >>> Attribution(run).means("attribution")["MATH"].argsort()[-20:]
    """

    def __init__(self, run: Run) -> None:
        self._run, self.space = run, run.space
        self._files = AttributionFiles(run.store, run.space, stamp_of(run))
        options = self._files.options()
        if options is None:
            raise InputError(
                f"{run.store.location}: nothing is attributed in this run; write it with sparcom "
                f"attribute {run.store.location}"
            )
        self.options = options
        self.rules: tuple[str, ...] = tuple(options["rules"])
        if self._files.parts() != list(range(options["parts"])):
            raise InputError(
                f"{run.store.location}: its attribution is not finished; go on with sparcom "
                f"attribute {run.store.location}"
            )
        heads = [self._files.read(part, HEADS, options) for part in range(options["parts"])]
        self._heads = pa.concat_tables(heads)
        self._sizes = [len(head) for head in heads]
        self.categories: list[str] = self._heads["category"].to_pylist()
        self.clusters: list[str] = self._heads["cluster"].to_pylist()
        self.instructions = np.array([len(ids) for ids in self._heads["ids"].to_pylist()], np.int64)

    def sums(self, rule: str, group: np.ndarray, groups: int) -> np.ndarray:
        """[groups, neurons] float64: the stored rows of each group, summed.

        group: [rows] of each, -1: of none. Raises InputError if the rule was not asked for.
        """
        out = np.zeros((groups, self.space.neurons))
        for at, values in self.rows(rule):
            for row, code in enumerate(group[at]):
                if code >= 0:
                    out[code] += values[row]
        return out

    def rows(self, rule: str) -> Iterator[tuple[slice, np.ndarray]]:
        """(which rows, [rows, neurons] float32 their sums), a part at a time."""
        if rule not in self.rules:
            raise InputError(
                f"{self._run.store.location}: its attribution has no {rule} (it has "
                f"{', '.join(self.rules)}); write it again with --overwrite"
            )
        start = 0
        for part, size in enumerate(self._sizes):
            table = self._files.read(part, [rule], self.options)
            yield slice(start, start + size), stored_matrix(table, rule)
            start += size

    def means(self, rule: str) -> dict[str, np.ndarray]:
        """category -> [neurons] float64: mean over its instructions, nats per answer token."""
        names = [name for name in self._run.categories if name in set(self.categories)]
        group = np.array([names.index(name) for name in self.categories], np.int64)
        total = self.sums(rule, group, len(names))
        count = np.bincount(group, self.instructions, len(names))
        return dict(zip(names, total / count[:, None], strict=True))


def is_attributed(run: Run) -> bool:
    """True if something is stored that `Attribution` may read."""
    return bool(run.store.files.names(FOLDER))


def of_experts(space: ComponentSpace, values: np.ndarray) -> np.ndarray:
    """[..., experts] sums over the neurons of each routed expert; values: [..., neurons].

    The output of an expert is linear in its h, so that these are the attributions of its output.
    """
    inside = space.neuron_experts >= 0
    flat = values.reshape(-1, space.neurons)[:, inside]
    owner = space.neuron_experts[inside]
    found = np.stack([np.bincount(owner, row, space.experts) for row in flat])
    return found.reshape(*values.shape[:-1], space.experts)


def stamp_of(run: Run) -> str:
    """The fingerprint of what decides a run's counts; InputError for a run without stamps."""
    stamps = run.manifest.get("stamps")
    if stamps is None:
        raise InputError(
            f"{run.store.location}: counted by an older version of sparcom, which cannot be "
            "attributed; count it again with --overwrite or another --out"
        )
    stamp: str = stamps["counts"]
    return stamp
