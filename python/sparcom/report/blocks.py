"""What the page's views read: tables of a run as compact JSON, one block for each view.

A block is opened when its view is. In the page a block is gzip in base64; `sparcom view` sends it
when it is asked for. Every text in a block is printable (`formatting.printable`); the page shows it
as text, never as markup.
"""

import base64
import gzip
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sparcom.analysis.explore.instructions import unit_names
from sparcom.formatting import printable
from sparcom.report.section import FAMILY_NAMES
from sparcom.report.tables import Row, Tables, distinct
from sparcom.store import Run

PAGE_CELLS = 500_000
"""Numbers of units that the page holds: about 2 MB. A larger run shows the units that are
something, then those that most sets hold or that differ most; `sparcom view`: `VIEW_CELLS`."""
VIEW_CELLS = 10_000_000
PAGE_EXAMPLES = 60_000
VIEW_EXAMPLES = 600_000
PAGE_INSTRUCTIONS = 2000
VIEW_INSTRUCTIONS = 20_000

Block = dict[str, Any]
_PER_CATEGORY = ("prevalence", "frequency", "difference", "error", "q", "gap", "specific_q")


def block_names(tables: Tables) -> list[str]:
    """The blocks of a run."""
    families = distinct(tables.rows("component_counts"), "family")
    return ["core", "pairs", *(f"units-{family}" for family in families), "instructions"]


def block_of(run: Run, tables: Tables, name: str, *, whole: bool = False) -> Block:
    """One of `block_names`. whole: with the bounds of `sparcom view`, not of the page."""
    if name == "core":
        return core_block(run, tables)
    if name == "pairs":
        return pairs_block(tables)
    if name == "instructions":
        bounds = (VIEW_INSTRUCTIONS, VIEW_EXAMPLES) if whole else (PAGE_INSTRUCTIONS, PAGE_EXAMPLES)
        return instructions_block(tables, *bounds)
    family = name.removeprefix("units-")
    return units_block(run, tables, family, VIEW_CELLS if whole else PAGE_CELLS)


def core_block(run: Run, tables: Tables) -> Block:
    """Matrices and curves of every family, and the counts of units."""
    pairs = distinct(tables.rows("category_matrix"), "family")
    return {
        "categories": shown(distinct(tables.rows("categories"), "category")),
        "sites": [[site.layer, site.kind] for site in run.space.sites],
        "families": [
            {
                "name": family,
                "label": FAMILY_NAMES[family],
                "matrix": columns(
                    tables.rows("category_matrix", family=family),
                    ("a", "b", "pairs", "value", "low", "high", "adjusted", "adjusted_chance",
                     "adjusted_p", "J0", "J0_prevalence"),
                ),
                "layers": columns(
                    tables.rows("layers", family=family),
                    ("category", "layer", "kind", "width", "mean", "low", "high", "chance"),
                ),
                "effects": columns(
                    tables.rows("layer_effects", family=family),
                    ("layer", "kind", "value", "low", "high", "chance_low", "chance_high", "p"),
                ),
            }
            for family in pairs
        ],
        "counts": columns(
            tables.rows("component_counts"), ("family", "figure", "category", "value", "chance")
        ),
        "unit_families": distinct(tables.rows("component_counts"), "family"),
    }  # fmt: skip


def pairs_block(tables: Tables) -> Block:
    """The most and the least alike pairs of each two categories."""
    return columns(
        tables.rows("pairs"),
        ("family", "a", "b", "end", "rank", "first", "second", "jaccard", "shared",
         "same_cluster", "units"),
    )  # fmt: skip


def units_block(run: Run, tables: Tables, family: str, cells: int) -> Block:
    """Units with what they are and, for each category, prevalence, frequency and tests.

    cells: how many numbers at most; the units that are something come first.
    """
    held = run.table(f"components_{family}")
    categories = distinct(tables.rows("categories"), "category")
    tests = run.table(f"tests_{family}") if f"tests_{family}" in run.tables else None
    options = tables.row("analysis_options")
    table = _units(held, tests, categories, options["alpha"])
    largest = _largest_difference(table, categories)
    rank = np.lexsort((-largest, -_int(table["members"]), -_int(table["marks"])))
    per_row = len(categories) * len(_PER_CATEGORY) + 8
    kept = np.sort(rank[: max(1, cells // per_row)])
    part = table.take(pa.array(kept))
    out: Block = {"total": table.num_rows, "n": len(kept), "unit": unit_names(part)}
    for name in ("layer", "kind", "members", "general", "always_on", "unique_to"):
        out[name] = listed(part[name])
    out["in"] = {
        field: [
            _four_digits(part[f"{field}_{name}"])
            if f"{field}_{name}" in part.column_names
            else None
            for name in categories
        ]
        for field in _PER_CATEGORY
    }
    if tests is not None:
        alpha = options["alpha"]
        out["sign"] = [_signs(part, name, alpha).tolist() for name in categories]
        out["specific"] = [
            _within(part, f"specific_q_{name}", alpha).tolist() for name in categories
        ]
    return out


def _largest_difference(table: pa.Table, categories: Sequence[str]) -> np.ndarray:
    """[n] how much more than elsewhere a unit fires where it does so most; 0 without tests."""
    names = [f"difference_{name}" for name in categories]
    known = [np.nan_to_num(_float(table[n])) for n in names if n in table.column_names]
    return np.max(known, axis=0) if known else np.zeros(table.num_rows)


def _four_digits(column: pa.ChunkedArray) -> list[float | None]:
    """Figures as they are shown and ranked: four digits suffice, and keep the page small."""
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in _float(column).tolist()]


def _within(table: pa.Table, column: str, alpha: float) -> np.ndarray:
    """[n] 1 where a q is at most alpha, 0 elsewhere; all 0 without the column."""
    if column not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    return (_float(table[column]) <= alpha).astype(np.int64)


def _signs(table: pa.Table, category: str, alpha: float) -> np.ndarray:
    """[n] 1: enriched in a category, -1: depleted, 0: neither."""
    found = _within(table, f"q_{category}", alpha)
    return found * np.sign(np.nan_to_num(_float(table[f"difference_{category}"]))).astype(np.int64)


def _units(
    held: pa.Table, tests: pa.Table | None, categories: Sequence[str], alpha: float
) -> pa.Table:
    """Every component that a set holds or a test discovers, with the columns of both tables.

    marks: how much a component is: 4 specific, 2 unique or general, 1 enriched or depleted.
    """
    keys = ("layer", "kind", "expert", "unit")
    table = held
    if tests is not None:
        found = np.zeros(tests.num_rows, bool)
        for name in categories:
            if (column := f"q_{name}") in tests.column_names:
                found |= tests[column].to_numpy() <= alpha
        place = {key: at for at, key in enumerate(_keys(tests, keys))}
        row_of = np.array([place[key] for key in _keys(held, keys)], np.int64)
        extra = np.setdiff1d(np.flatnonzero(found), row_of)
        rows = pa.array(np.concatenate([row_of, extra]))
        table = pa.concat_tables(
            [held, tests.take(pa.array(extra)).select([*keys])], promote_options="default"
        )
        every = tests.take(rows)
        for name in every.column_names:
            if name in keys:
                continue
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, every[name])
            else:
                table = table.append_column(name, every[name])
        for name in ("members", *(f"prevalence_{name}" for name in categories)):
            table = table.set_column(table.column_names.index(name), name, table[name].fill_null(0))
    marks = np.zeros(table.num_rows, np.int64)
    for name in categories:
        marks |= 4 * _within(table, f"specific_q_{name}", alpha)
        marks |= _within(table, f"q_{name}", alpha)
    something = table["general"].fill_null(False).to_numpy() | ~np.array(
        table["unique_to"].is_null()
    )
    marks |= 2 * something
    return table.append_column("marks", pa.array(marks))


def instructions_block(tables: Tables, most: int, examples: int) -> Block:
    """Instructions with text, their nearest and members; the examples of units, those that were
    read again (`traced_examples`) token by token."""
    rows = tables.rows("instructions")[:most]
    ids = {row["id"] for row in rows}
    of = [row for row in tables.rows("examples")[:examples] if row["id"] in ids]
    members = [row for row in tables.rows("members") if row["id"] in ids]
    traced = [row for row in tables.rows("traced_examples") if row["id"] in ids]
    tokens = tables.rows("example_tokens")
    return {
        "total": len(tables.rows("instructions")),
        "instructions": columns(
            rows, ("id", "category", "source", "cluster", "tokens", "text", "cut",
                   *(n for n in ("sites_neurons", "sites_experts") if rows and n in rows[0]))
        ),
        "nearest": columns(
            [r for r in tables.rows("nearest") if r["id"] in ids and r["other"] in ids
             and r["family"] in ("neurons", "experts")],
            ("family", "id", "rank", "other", "jaccard", "shared"),
        ),
        "members": columns(members, ("family", "id", "rank", "held_by", "frequency"))
        | {"unit": unit_names(_components(members))},
        "examples": columns(of, ("rank", "id", "count", "tokens"))
        | {"unit": unit_names(_components(of))}
        | {"family": ["experts" if row["unit"] is None else "neurons" for row in of]},
        "traced": columns(traced, ("rank", "id", "frequency", "tokens", "text", "fired"))
        | {"unit": unit_names(_components(traced))},
        "top_tokens": columns(tokens, ("rank", "token", "read", "fired", "lift"))
        | {"unit": unit_names(_components(tokens))},
    }  # fmt: skip


def _components(rows: Sequence[Row]) -> pa.Table:
    names = ("layer", "kind", "expert", "unit")
    return pa.table({name: [row[name] for row in rows] for name in names})


def columns(rows: Sequence[Row], names: Iterable[str]) -> Block:
    """Rows as columns, with their number n; a text is made printable, a figure is rounded."""
    return {"n": len(rows), **{name: shown([row[name] for row in rows]) for name in names}}


def listed(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, as `shown`."""
    return shown(column.to_pylist())


def shown(values: Sequence[Any]) -> list[Any]:
    """Values for JSON: texts printable but for line ends, figures with six digits, NaN as null."""
    return [_shown(value) for value in values]


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return shown(value)
    return value


def as_json(block: Block) -> bytes:
    return json.dumps(block, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def packed(block: Block) -> str:
    """A block as the page holds it: JSON, gzip, base64; the same bytes each time."""
    return base64.b64encode(gzip.compress(as_json(block), 6, mtime=0)).decode()


def _keys(table: pa.Table, names: Sequence[str]) -> Iterable[tuple]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _int(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(0).to_numpy().astype(np.int64)


def _float(column: pa.ChunkedArray) -> np.ndarray:
    """[n] float64; NaN for null, which is never below a bound."""
    return column.cast(pa.float64()).to_numpy()
