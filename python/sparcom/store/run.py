"""A finished run, opened for reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.clusters import with_clusters
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace
from sparcom.corpus.schema import CATEGORIES
from sparcom.counting.counted import Counted
from sparcom.counting.signs import COMBINATIONS, combinations
from sparcom.errors import InputError
from sparcom.selection.sets import Sets
from sparcom.store.profiles.cells import KEYS
from sparcom.store.profiles.profile_part import SIGN_SUMS, SUMS
from sparcom.store.run_store import FOLDERS, RunStore

LABELS = ("id", "category", "source", "origin", "cluster", "n_tokens", "n_counted", "truncated")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Sums over the instructions of a run, one row for each combination of some keys.

    keys: Arrow table of the keys, `instructions` and `tokens` (summed T) of each row.
    prevalence: [rows, neurons] float32, share of the instructions whose set holds the neuron.
    frequency: [rows, neurons] float32, summed c / summed T; NaN where no token was counted.
    expert_prevalence, expert_frequency: [rows, experts] likewise, with r in the place of c.
    signs: [4, rows, neurons] float32, share of T where both gate and up are positive, gate only, up
        only, neither (`counting.signs.COMBINATIONS`); None for a run without --signs.
    """

    keys: pa.Table
    prevalence: np.ndarray
    frequency: np.ndarray
    expert_prevalence: np.ndarray
    expert_frequency: np.ndarray
    signs: np.ndarray | None = None


def _share(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
    """[rows, components] float32: sums over total [rows]; NaN where total is 0."""
    out = np.full(sums.shape, np.nan, np.float32)
    np.divide(sums, total[:, None], out=out, where=total[:, None] > 0, casting="unsafe")
    return out


def _keys(by: str | Sequence[str]) -> tuple[str, ...]:
    return (by,) if isinstance(by, str) else tuple(by)


class Run:
    """A finished run, opened for reading.

    >>> run = Run("runs/chat")
    >>> run.space.neurons, len(run.sets.ids)
    """

    def __init__(self, location: str | Path) -> None:
        self.store = RunStore(location)
        self.manifest = self.store.manifest()
        self._check_whole()

    @cached_property
    def space(self) -> ComponentSpace:
        return ComponentSpace.from_json(self.manifest["sites"])

    @property
    def layers(self) -> int:
        """Decoder layers of the model, with an FFN or without one.

        Of a run that was counted before run.json told, those up to the last one with an FFN.
        """
        return int(self.manifest.get("layers", self.space.layers))

    @cached_property
    def sets(self) -> Sets:
        """The sets of all instructions, in the order in which they are stored."""
        return self.store.results.all_sets(self.space)

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories that were counted: HexaInst's in its order, then others by name."""
        present = set(self.labels["category"].to_pylist())
        known = [name for name in CATEGORIES if name in present]
        return (*known, *sorted(present - set(known)))

    def frequencies(self, instruction: str) -> np.ndarray:
        """[neurons] float32: p = c / T on one instruction; NaN if none of its tokens was counted.

        Raises InputError if no instruction has this id, or the run did not retain its counts.
        """
        counted, row = self._counted(instruction)
        share: np.ndarray = _share(counted.neurons[row], counted.tokens[row])[0]
        return share

    def expert_frequencies(self, instruction: str) -> np.ndarray:
        """[experts] float32: f = r / T on one instruction; otherwise as `frequencies`."""
        counted, row = self._counted(instruction)
        share: np.ndarray = _share(counted.experts[row], counted.tokens[row])[0]
        return share

    def sign_frequencies(self, instruction: str) -> np.ndarray:
        """[4, neurons] float32: share of T with each combination of signs on one instruction, as
        `Profile.signs`; otherwise as `frequencies`. Raises InputError for a run without --signs."""
        counted, row = self._counted(instruction, signs=True)
        if counted.signs is None:
            raise InputError(f"{self.store.location}: this run has no signs; count with --signs")
        tokens, experts = counted.tokens[row], counted.experts[row]
        each = combinations(
            self.space, tokens, counted.neurons[row], experts, counted.signs[:, row]
        )
        return np.stack([_share(one, tokens)[0] for one in each])

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that `analyse`, `compare` and `ablate` have written."""
        return self.store.table_names()

    def table(self, name: str) -> pa.Table:
        """A table of the analysis; `.to_pandas()` makes a DataFrame of it.

        Raises InputError if it has not been written, naming those that were.
        """
        if name not in self.tables:
            have = ", ".join(self.tables) or "none; run sparcom report"
            raise InputError(f"{self.store.location}: no table {name!r} (there are: {have})")
        return self.store.read_table(name)

    def profile(self, by: str | Sequence[str] = "category") -> "Profile":
        """Prevalences and frequencies, summed over everything but some keys.

        by: one or several of category, source, length (bin) and fold.

        >>> profile = run.profile(by="category")
        >>> profile.keys["category"], profile.prevalence.shape
        """
        keys = _keys(by)
        if unknown := [key for key in keys if key not in KEYS]:
            raise InputError(f"profile: by must be of {', '.join(KEYS)}, got {unknown[0]!r}")
        cells, sums = self.store.profiles.read(keys, SUMS)
        count = cells["instructions"].to_numpy()
        tokens = cells["tokens"].to_numpy()
        empty = np.zeros((len(cells), 0), np.uint32)
        routed = sums.get("expert_counts", empty)
        signs = None
        if SIGN_SUMS[0] in sums:
            signed = np.stack([sums[name] for name in SIGN_SUMS])
            each = combinations(self.space, tokens, sums["neuron_counts"], routed, signed)
            signs = np.stack([_share(one, tokens) for one in each])
        return Profile(
            keys=cells,
            prevalence=_share(sums["neurons"], count),
            frequency=_share(sums["neuron_counts"], tokens),
            expert_prevalence=_share(sums.get("experts", empty), count),
            expert_frequency=_share(routed, tokens),
            signs=signs,
        )

    def sign_table(self, by: str | Sequence[str] = "category") -> pa.Table:
        """The signs of gate and up of every neuron as a table, one row for each neuron and group.

        Columns: those of `by`, tokens (T of the group), layer, kind, expert (null outside routed
        sites), unit, and both, gate_only, up_only, neither: the share of T with this combination.
        Raises InputError for a run without --signs.

        >>> pq.write_table(run.sign_table(by="category"), "signs.parquet")
        """
        profile = self.profile(by)
        if profile.signs is None:
            raise InputError(f"{self.store.location}: this run has no signs; count with --signs")
        tokens = np.repeat(profile.keys["tokens"].to_numpy()[:, None], self.space.neurons, 1)
        shares = dict(zip(COMBINATIONS, profile.signs, strict=True))
        table = self._per_component("neurons", by, profile.keys, tokens, shares)
        return table.drop_columns(["rows"])

    def neuron_magnitudes(self, by: str | Sequence[str] = "category") -> pa.Table:
        """How strongly every neuron fires, one row for each neuron and group of instructions.

        Columns: those of `by`, tokens (T), layer, kind, expert, unit, rows (T, or r of the neuron's
        expert), and over these rows mean_h, mean_abs_h and max_h; null without rows.
        Raises InputError for a run without --magnitudes.
        """
        cells, sums = self._magnitudes(by, ("h_sums", "h_absolutes", "h_largest"))
        tokens, owner = cells["tokens"].to_numpy(), self.space.neuron_experts
        routed = sums.get("expert_counts", np.zeros((len(cells), 1), np.uint32))
        rows = np.where(owner >= 0, routed[:, owner], tokens[:, None]).astype(np.int64)
        return self._per_component("neurons", by, cells, rows, {
            "mean_h": sums["h_sums"] / np.maximum(rows, 1),
            "mean_abs_h": sums["h_absolutes"] / np.maximum(rows, 1),
            "max_h": sums["h_largest"],
        })  # fmt: skip

    def expert_scores(self, by: str | Sequence[str] = "category") -> pa.Table:
        """The scores by which others rank routed experts, one row for each expert and group.

            mean_weight = sum g / r        reap = sum g ||y|| / r      (arXiv 2510.13999)
            ean = sum ||y||                man = sum ||y|| / r,  msan = sum ||y||^2 / r
                                                                       (arXiv 2606.15716)

        over the r counted tokens that are routed to the expert; g: its router weight as the model
        uses it; y: its output before g. Columns: those of `by`, tokens (T), layer, kind, expert,
        rows (r), and these, null without rows; ean is 0 then.
        Raises InputError for a run without --magnitudes.
        """
        wanted = "weight_sums", "norm_sums", "square_sums", "product_sums"
        cells, sums = self._magnitudes(by, wanted)
        if "weight_sums" not in sums:
            raise InputError(f"{self.store.location}: this model has no routed experts")
        rows = sums["expert_counts"].astype(np.int64)
        least = np.maximum(rows, 1)
        table = self._per_component("experts", by, cells, rows, {
            "mean_weight": sums["weight_sums"] / least,
            "reap": sums["product_sums"] / least,
            "man": sums["norm_sums"] / least,
            "msan": sums["square_sums"] / least,
        })  # fmt: skip
        table = table.drop_columns(["unit"])
        return table.append_column("ean", pa.array(sums["norm_sums"].reshape(-1)))

    def _magnitudes(
        self, by: str | Sequence[str], columns: Sequence[str]
    ) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """(cells, sums) of some columns of magnitudes, and expert_counts."""
        if not self.manifest["config"].get("magnitudes"):
            raise InputError(
                f"{self.store.location}: this run has no magnitudes; count with --magnitudes"
            )
        return self.store.profiles.read(_keys(by), (*columns, "expert_counts"))

    def _per_component(
        self, family: str, by: str | Sequence[str], cells: pa.Table, rows: np.ndarray,
        values: dict[str, np.ndarray],
    ) -> pa.Table:  # fmt: skip
        """A row for each group and component: its place, `rows`, and values, null without rows."""
        groups, n = rows.shape
        at = pa.array(np.repeat(np.arange(groups), n))
        place = component_table(self.space, family, np.tile(np.arange(n), groups))
        table = cells.select([*_keys(by), "tokens"]).take(at)
        for name in place.column_names:
            table = table.append_column(name, place[name])
        table = table.append_column("rows", pa.array(rows.reshape(-1)))
        empty = rows.reshape(-1) == 0
        for name, value in values.items():
            table = table.append_column(name, pa.array(value.reshape(-1), mask=empty))
        return table

    def _check_whole(self) -> None:
        """Raise InputError if a part of a complete run is missing."""
        retain = self.manifest.get("config", {}).get("retain")
        if self.manifest.get("status") != "complete" or retain not in FOLDERS:
            return
        planned = set(range(self.store.corpus.parts()))
        for folder in FOLDERS[retain]:
            if missing := planned - self.store.results.parts(folder):
                raise InputError(
                    f"{self.store.location}/{folder}: part {min(missing)} is missing, though the "
                    "run was complete; count it again with --resume"
                )

    def _counted(self, instruction: str, signs: bool = False) -> tuple[Counted, slice]:
        """The counts of the part that holds an instruction, and its row in them."""
        for _, counted in self.store.results.counts(signs=signs):
            if instruction in counted.ids:
                row = counted.ids.index(instruction)
                return counted, slice(row, row + 1)
        if not self.store.results.parts("counts"):
            raise InputError(f"{self.store.location}: this run did not retain its counts")
        raise InputError(f"{self.store.location}: no instruction has the id {instruction!r}")

    def __repr__(self) -> str:
        size = f"{self.manifest['corpus']['instructions']:,} instructions"
        return f"Run({self.store.location!r}, {size}, {self.manifest['status']})"

    @cached_property
    def labels(self) -> pa.Table:
        """id, category, source, origin, cluster, n_tokens, n_counted, truncated of the instructions
        that were counted: those in `sets`, in its order, or without sets those in the profile.

        cluster is never empty: a record that names none is of its origin's (`sparcom.clusters`).

        n_counted is T, with what was generated; a profile alone holds T by cell, so that there it
        is that of the prompt.
        """
        table = with_clusters(self.store.corpus.table(LABELS))
        if not self.store.results.parts("sets"):
            known = pa.array(self.store.profiles.ids(), pa.string())
            return table.filter(pc.is_in(table["id"], known))
        heads = self.store.results.set_sizes()
        row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
        rows = pa.array([row_of[name] for name in heads["id"].to_pylist()], pa.int64())
        at = table.column_names.index("n_counted")
        tokens = heads["tokens"].cast(table.schema.field(at).type)
        return table.take(rows).set_column(at, "n_counted", tokens)
