"""Examples: for each neuron that the report names, texts in which it fires much.

The instructions are chosen from the stored counts, then read once more, each once for all units,
to see at which of their tokens these fire. To read few tokens again, they are chosen together:
each unit takes its own from those in which it fires most, and first what others take too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sparcom.component_list import COMPONENT_SCHEMA, component_table
from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.store import Run
from sparcom.tracing.of_run import Top, instructions_of, top_instructions, tracing
from sparcom.tracing.traces import Traces

FROM_A_CATEGORY = 10  # neurons named for each category
GENERAL = 10  # general neurons named
LONGEST = 256  # counted tokens of an example that are stored
TOP_TOKENS = 8  # tokens stored of each neuron
FEWEST = 3  # times that a top token must occur
AMONG = 3  # instructions of each neuron that are considered for one that is taken
_TOGETHER = 16  # instructions whose traces are held in memory at once

EXAMPLES_SCHEMA = pa.schema(
    [
        *COMPONENT_SCHEMA,
        pa.field("why", pa.string()),
        pa.field("rank", pa.int32()),
        pa.field("id", pa.string()),
        pa.field("category", pa.string()),
        pa.field("frequency", pa.float64()),
        pa.field("tokens", pa.int64()),
        pa.field("text", pa.list_(pa.string())),
        pa.field("fired", pa.list_(pa.bool_())),
    ]
)
TOKENS_SCHEMA = pa.schema(
    [
        *COMPONENT_SCHEMA,
        pa.field("rank", pa.int32()),
        pa.field("token_id", pa.int64()),
        pa.field("token", pa.string()),
        pa.field("read", pa.int64()),
        pa.field("fired", pa.int64()),
        pa.field("lift", pa.float64()),
    ]
)


def named_units(run: Run) -> dict[int, str]:
    """Flat index -> why the report names it, the most telling reason first.

    Of each category the ten enriched neurons furthest above every other category, specific ones
    first; the ten general neurons of highest prevalence that are not always on; of each layer the
    neuron of highest prevalence that is not.
    """
    found: dict[int, str] = {}
    for name in run.categories:
        for row in _enriched(run, name)[:FROM_A_CATEGORY]:
            specific = row["gap_q"] is not None and row["gap_q"] <= _alpha(run)
            word = "specific to" if specific else "enriched in"
            found.setdefault(_index(run.space, row), f"{word} {name}")
    rows = run.table("components_neurons").to_pylist() if _has(run, "components_neurons") else []
    rows = [row for row in rows if not row["always_on"]]
    rows.sort(key=lambda row: -sum(row[f"prevalence_{name}"] for name in run.categories))
    for row in [row for row in rows if row["general"]][:GENERAL]:
        found.setdefault(_index(run.space, row), "general")
    layers: set[int] = set()
    for row in rows:
        if row["layer"] not in layers:
            layers.add(row["layer"])
            found.setdefault(_index(run.space, row), f"most held in layer {row['layer']}")
    return found


def _enriched(run: Run, category: str) -> list[dict]:
    """Enriched neurons of a category, the largest gap first."""
    if not _has(run, "enriched_neurons"):
        return []
    rows = run.table("enriched_neurons").to_pylist()
    rows = [r for r in rows if r["category"] == category and r["difference"] > 0]
    return sorted((r for r in rows if r["gap"] is not None), key=lambda row: -row["gap"])


def _alpha(run: Run) -> float:
    return float(run.table("analysis_options")["alpha"][0].as_py())


def _has(run: Run, table: str) -> bool:
    return table in run.tables


def _index(space: ComponentSpace, row: dict) -> int:
    expert = -1 if row["expert"] is None else row["expert"]
    return space.neuron_index(row["layer"], row["kind"], expert, row["unit"])


@dataclass
class _Tokens:
    """How often each token was read, and how often each neuron fired at it."""

    units: int
    text: dict[int, str] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    fired: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, traces: Traces) -> None:
        """Count the counted tokens of some instructions."""
        for tokens, fired in zip(traces.tokens, traces.fired, strict=True):
            for token, row in zip((t for t in tokens if t.counted), fired, strict=True):
                self.text.setdefault(token.id, token.text)
                self.read[token.id] = self.read.get(token.id, 0) + 1
                self.fired.setdefault(token.id, np.zeros(self.units, np.int64))[row] += 1

    def table(self, space: ComponentSpace, index: np.ndarray) -> pa.Table:
        """The tokens at which each neuron fires most beyond its own share."""
        ids = np.array(sorted(self.read), np.int64)
        read = np.array([self.read[i] for i in ids.tolist()], np.int64)
        fired = np.array([self.fired[i] for i in ids.tolist()]).reshape(len(ids), self.units)
        total, rows = read.sum(), []
        for column in range(self.units):
            mine = fired[:, column]
            lift = np.divide(mine / read, max(mine.sum() / max(total, 1), 1e-300))
            known = np.flatnonzero((read >= FEWEST) & (mine > 0))
            best = known[np.lexsort((-mine[known], -lift[known]))][:TOP_TOKENS]
            rows += [(column, rank, int(i), float(lift[i])) for rank, i in enumerate(best)]
        columns, ranks, at, lifts = np.array(rows, np.float64).reshape(-1, 4).T
        columns, at = columns.astype(np.int64), at.astype(np.int64)
        ours = {
            "rank": ranks.astype(np.int32),
            "token_id": ids[at],
            "token": [self.text[int(i)] for i in ids[at]],
            "read": read[at],
            "fired": fired[at, columns],
            "lift": lifts,
        }
        return _with_units(space, index[columns], ours, TOKENS_SCHEMA)


def why_not(config: RunConfig) -> str | None:
    """Why a run of a config gets no traced examples from this process; None: it gets some."""
    if not config.examples:
        return "--examples 0"
    if config.retain != "counts":
        return f"--retain {config.retain} keeps no counts to choose them by"
    if config.gpus or config.workers > 1:
        return "the model needs GPUs or several workers; see sparcom trace"
    return None


def write_examples(run: Run, most: int, *, threads: int | None = None) -> int:
    """Store examples of the neurons that the report names; returns how many instructions were read.

    most: instructions of each neuron. threads: CPU threads; None: all cores.
    Writes the tables `traced_examples` and `example_tokens`. Reads each chosen instruction once, at
    most `most` for each neuron of `named_units`, each from the `AMONG` times as many in which it
    fires most. Raises InputError if the run did not retain its counts, or the model is not there or
    has other weights.
    """
    units = named_units(run)
    index = np.array(list(units), np.int64)
    tops = top_instructions(run, index, AMONG * most)
    wanted = few_instructions(tops, most)
    read_again = set(wanted)
    counted, rows = _Tokens(len(index)), []
    places: dict[str, list[tuple[int, int, Top]]] = {}
    for column, best in enumerate(tops):
        taken = [(rank, top) for rank, top in enumerate(best) if top.id in read_again]
        for rank, top in taken[:most]:
            places.setdefault(top.id, []).append((column, rank, top))
    if wanted:
        with tracing(run, threads=threads, prove=False) as read:
            for start in range(0, len(wanted), _TOGETHER):
                items = instructions_of(run, wanted[start : start + _TOGETHER])
                traces = read(items, index)
                counted.add(traces)
                for at, name in enumerate(traces.ids):
                    rows += [_row(traces, at, *place) for place in places[name]]
    rows.sort(key=lambda row: row[:2])
    why = list(units.values())
    category = dict(
        zip(*(run.labels[name].to_pylist() for name in ("id", "category")), strict=True)
    )
    run.store.write_table("traced_examples", _table(run.space, index, why, category, rows))
    run.store.write_table("example_tokens", counted.table(run.space, index))
    return len(wanted)


def few_instructions(tops: Sequence[Sequence[Top]], most: int) -> list[str]:
    """Ids of few and short instructions of which each unit finds `most` among its own, or all.

    tops: of each unit, those to choose from. Greedy: the next is the one that the most units lack
    for its tokens; of equal ones the first.
    """
    tokens = {top.id: max(top.tokens, 1) for best in tops for top in best}
    units: dict[str, set[int]] = {name: set() for name in tokens}
    for column, best in enumerate(tops):
        for top in best:
            units[top.id].add(column)
    lacks = [min(most, len(best)) for best in tops]
    chosen: list[str] = []
    while any(lacks):
        of = {name: sum(lacks[u] > 0 for u in units[name]) / tokens[name] for name in tokens}
        best_one = max(of, key=of.__getitem__)
        chosen.append(best_one)
        for unit in units[best_one]:
            lacks[unit] = max(lacks[unit] - 1, 0)
        del tokens[best_one]
    return chosen


_Row = tuple[int, int, Top, list[str], list[bool]]


def _row(traces: Traces, at: int, column: int, rank: int, top: Top) -> _Row:
    texts = [token.text for token in traces.tokens[at] if token.counted][:LONGEST]
    return column, rank, top, texts, traces.fired[at][:LONGEST, column].tolist()


def _table(
    space: ComponentSpace,
    index: np.ndarray,
    why: Sequence[str],
    category: dict[str, str],
    rows: Sequence[_Row],
) -> pa.Table:
    columns = np.array([row[0] for row in rows], np.int64)
    tops = [row[2] for row in rows]
    ours = {
        "why": [why[column] for column in columns],
        "rank": [row[1] for row in rows],
        "id": [top.id for top in tops],
        "category": [category[top.id] for top in tops],
        "frequency": [top.p for top in tops],
        "tokens": [top.tokens for top in tops],
        "text": [row[3] for row in rows],
        "fired": [row[4] for row in rows],
    }
    return _with_units(space, index[columns], ours, EXAMPLES_SCHEMA)


def _with_units(
    space: ComponentSpace, index: np.ndarray, columns: Mapping[str, Any], schema: pa.Schema
) -> pa.Table:
    """A table of one row for each flat index, with the neuron's own columns first."""
    units = component_table(space, "neurons", index)
    return pa.table({**{n: units[n] for n in units.column_names}, **columns}, schema=schema)
