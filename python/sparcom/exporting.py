"""What a run found, in the formats that other tools read.

neurons-json    lists of neurons for a forward hook
lape            neurons by category and layer, as LAPE's scripts read them (arXiv 2402.16438)
lape-counts     activation counts by category, as LAPE's identify.py reads them
steermoe        experts with a risk difference, as SteerMoE reads them (arXiv 2509.09660)
expert-list     experts of each layer, most used first, as vllm-ascend's expert_list_file
signs           how often each combination of signs of gate and up occurs, of every neuron
magnitudes      mean h, mean |h| and maximum of h, of every neuron
expert-scores   REAP, MAN, MSAN and EAN of every routed expert

The last three are tables, by category: CSV or Parquet, as the name of the file ends.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.analysis.components.lape import lape
from sparcom.component_list import ending_of, write_components
from sparcom.components import Site
from sparcom.errors import InputError
from sparcom.store import Run


def export(
    run: Run,
    what: str,
    out: str | Path,
    *,
    category: str | None = None,
    table: str = "specific_neurons",
) -> list[Path]:
    """Write a run's findings in another tool's format; returns the files.

    what: a key of `FORMATS`. out: a file; for lape-counts a folder.
    category: steermoe needs one; expert-list takes the experts of one, or of all together; tables
        the rows of one, or of each.
    table: neurons-json: a table of neurons that the analysis has written.
    Raises InputError for an unknown name, a model that the format cannot hold, or an empty list.

    >>> export(Run("runs/first"), "neurons-json", "neurons.json")
    """
    if what not in FORMATS:
        raise InputError(f"export: format: expected {', '.join(FORMATS)}, got {what!r}")
    if category is not None and category not in run.categories:
        raise InputError(
            f"export: category: expected one of the run ({', '.join(run.categories)}), got "
            f"{category!r}"
        )
    return FORMATS[what](run, Path(out), category, table)


def _neurons_json(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    """category -> [{layer, kind, expert, units}, ...]; a table without categories: "all"."""
    rows = run.table(table)
    if not {"layer", "kind", "expert", "unit"} <= set(rows.column_names):
        raise InputError(f"export: table {table!r} lists no components")
    found: dict[str, dict[tuple[Any, ...], list[int]]] = {}
    for row in rows.to_pylist():
        name = str(row.get("category") or "all")
        if row["unit"] is not None and category in (None, name):
            site = row["layer"], row["kind"], row["expert"]
            found.setdefault(name, {}).setdefault(site, []).append(row["unit"])
    if not found:
        where = f"table {table!r}" if category is None else f"table {table!r} for {category}"
        wider = "take another one with --table, such as enriched_neurons"
        raise InputError(
            f"export: no neuron is in {where}, so there is no list to write; "
            f"{'count more instructions' if table == 'enriched_neurons' else wider}"
        )
    lists = {
        name: [
            {"layer": layer, "kind": kind, "expert": expert, "units": sorted(set(units))}
            for (layer, kind, expert), units in sorted(sites.items(), key=str)
        ]
        for name, sites in found.items()
    }
    out.write_text(json.dumps(lists, ensure_ascii=False) + "\n", "utf-8")
    return [out]


def _lape(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    """[category][layer] int64 tensors of units, chosen by LAPE's rule on the run's counts."""
    import torch

    _dense_sites(run, "lape")
    _, counts, tokens = _by_category(run, "neuron_counts")
    bounds = run.space.neuron_offsets[1:-1]
    layers = [
        [torch.from_numpy(np.flatnonzero(part)) for part in np.split(chosen, bounds)]
        for chosen in lape(counts, tokens).selected
    ]
    with out.open("wb") as file:
        torch.save(layers, file)
    return [out]


def _lape_counts(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    """A file for each category: {"n": T, "over_zero": [layers, width] int32}."""
    import torch

    sites = _dense_sites(run, "lape-counts")
    if len({site.width for site in sites}) > 1:
        raise InputError("export: lape-counts: the layers of this model differ in width")
    names, counts, tokens = _by_category(run, "neuron_counts")
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, row, n in zip(names, counts, tokens, strict=True):
        over_zero = torch.from_numpy(row.reshape(len(sites), -1).astype(np.int32))
        files.append(out / f"activation.{name.replace('/', '_')}.train")
        with files[-1].open("wb") as file:
            torch.save({"n": int(n), "over_zero": over_zero}, file)
    return files


def _steermoe(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    """A pickled DataFrame: layer, expert, risk_diff, its absolute value."""
    if category is None:
        raise InputError("export: steermoe compares one category with the others; name it")
    names, counts, tokens = _by_category(run, "expert_counts")
    own = np.array([name == category for name in names])
    if own.all():
        raise InputError("export: steermoe needs a second category")
    f = [counts[rows].sum(0) / tokens[rows].sum() for rows in (own, ~own)]
    experts = _expert_rows(run)
    frame = pa.table(experts).to_pandas()
    frame["risk_diff"] = f[0] - f[1]
    frame["risk_diff_abs"] = frame["risk_diff"].abs()
    frame.to_pickle(out, compression=None)
    return [out]


def _expert_list(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    """JSON lines: {"layer": [experts, most used first]}."""
    names, counts, _ = _by_category(run, "expert_counts")
    rows = [at for at, name in enumerate(names) if category in (None, name)]
    total = counts[rows].sum(0)
    lines = []
    for site, start in zip(run.space.sites, run.space.expert_offsets, strict=False):
        if site.experts:
            part = total[start : start + site.experts]
            order = np.argsort(-part, kind="stable")
            lines.append(json.dumps({str(site.layer): order.tolist()}) + "\n")
    out.write_text("".join(lines), "utf-8")
    return [out]


def _signs(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    return _write(run.sign_table(), out, category)


def _neuron_magnitudes(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    return _write(run.neuron_magnitudes(), out, category)


def _expert_scores(run: Run, out: Path, category: str | None, table: str) -> list[Path]:
    return _write(run.expert_scores(), out, category)


def _write(rows: pa.Table, out: Path, category: str | None) -> list[Path]:
    """A table with a column category, as the file's name ends."""
    if category is not None:
        rows = rows.filter(pc.equal(rows["category"], category))
    ending_of(out, "export")
    write_components(out, rows)
    return [out]


FORMATS: dict[str, Callable[[Run, Path, str | None, str], list[Path]]] = {
    "neurons-json": _neurons_json,
    "lape": _lape,
    "lape-counts": _lape_counts,
    "steermoe": _steermoe,
    "expert-list": _expert_list,
    "signs": _signs,
    "magnitudes": _neuron_magnitudes,
    "expert-scores": _expert_scores,
}
"""Format -> what writes it."""


def _by_category(run: Run, sums: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(categories, [C, components] int64 summed counts, [C] int64 summed T)."""
    if sums == "expert_counts" and not run.space.experts:
        raise InputError("export: this model has no routed experts")
    cells, found = run.store.profiles.read(("category",), (sums,))
    order = [cells["category"].to_pylist().index(name) for name in run.categories]
    counts, tokens = found[sums].astype(np.int64)[order], cells["tokens"].to_numpy()[order]
    return list(run.categories), counts, tokens


def _dense_sites(run: Run, what: str) -> Sequence[Site]:
    sites = run.space.sites
    if [(site.kind, site.layer) for site in sites] != [("dense", at) for at in range(len(sites))]:
        raise InputError(f"export: {what} holds a dense FFN in every layer, and nothing else")
    return sites


def _expert_rows(run: Run) -> dict[str, list[int]]:
    pairs = [(site.layer, expert) for site in run.space.sites for expert in range(site.experts)]
    return {"layer": [layer for layer, _ in pairs], "expert": [expert for _, expert in pairs]}
