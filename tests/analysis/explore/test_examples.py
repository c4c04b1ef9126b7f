"""Text examples against sorted lists of stored frequencies."""

from pathlib import Path

import pyarrow as pa
import pytest
from report_pages import DENSE, FEW, MOE, SIX, stored

from sparcom import AnalysisOptions
from sparcom.analysis.analyse import analyse
from sparcom.analysis.explore import examples
from sparcom.component_list import component_table
from sparcom.errors import InputError
from sparcom.store import Run

KEYS = ("layer", "kind", "expert", "unit")


def grouped(table: pa.Table) -> dict[tuple, list[dict]]:
    out: dict[tuple, list[dict]] = {}
    for row in table.to_pylist():
        out.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    return out


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_examples_are_where_a_unit_fires_most(tmp_path: Path, space) -> None:
    run = Run(stored(tmp_path / "run", SIX * 5, space))
    analysis = analyse(run, FEW)
    found = grouped(analysis.tables["examples"])
    tokens = dict(zip(run.sets.ids, run.sets.tokens.tolist(), strict=True))
    for family, share in (("neurons", run.frequencies), ("experts", run.expert_frequencies)):
        if family not in analysis.components:
            continue
        every = {name: share(name) for name in tokens}
        width = len(next(iter(every.values())))
        table = component_table(space, family, range(width)).to_pylist()
        held = {tuple(row[k] for k in KEYS) for row in
                analysis.tables[f"components_{family}"].to_pylist()}  # fmt: skip
        for at, row in enumerate(table):
            key = tuple(row[k] for k in KEYS)
            rows = found.pop(key, [])
            best = sorted(((float(f[at]), tokens[n]) for n, f in every.items()), reverse=True)
            best = [pair for pair in best if pair[0] > 0][: FEW.examples]
            if key in held:
                assert len(rows) == len(best)
            for rank, example in enumerate(rows):
                assert (example["frequency"], example["tokens"]) == pytest.approx(best[rank])
                assert example["rank"] == rank + 1
                assert example["tokens"] == tokens[example["id"]]
                assert example["count"] / example["tokens"] == example["frequency"]
                assert float(every[example["id"]][at]) == pytest.approx(example["frequency"])
    assert not found


def test_only_named_units_have_examples_in_a_large_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(stored(tmp_path / "run", SIX * 40))
    monkeypatch.setattr(examples, "EVERY", 0)
    analysis = analyse(run, FEW)
    tables = {name: table.to_pylist() for name, table in analysis.tables.items()}
    named = {tuple(row[k] for k in KEYS) for name in ("enriched_neurons", "specific_neurons")
             for row in tables[name]}  # fmt: skip
    units = tables["components_neurons"]
    named |= {tuple(r[k] for k in KEYS) for r in units if r["unique_to"] is not None}
    for layer in range(len(DENSE.sites)):
        of = sorted((r for r in units if r["layer"] == layer), key=lambda r: -r["members"])
        least = of[: examples.TOP][-1]["members"]
        named |= {tuple(r[k] for k in KEYS) for r in of if r["members"] > least}
        may = {tuple(r[k] for k in KEYS) for r in of if r["members"] == least}
        got = {key for key in grouped(analysis.tables["examples"]) if key[0] == layer}
        assert {key for key in named if key[0] == layer} <= got
        assert got <= named | may
    assert len(named) > 10


def test_none_are_kept_for_zero_or_without_counts(tmp_path: Path) -> None:
    few = {"permutations": 9, "bootstraps": 9, "small_draws": 9}
    run = Run(stored(tmp_path / "run", SIX * 2))
    assert "examples" in analyse(run, AnalysisOptions(**few)).tables
    assert "examples" in Run(run.store.location).tables
    assert "examples" not in analyse(run, AnalysisOptions(**few, examples=0)).tables
    assert "examples" not in Run(run.store.location).tables
    other = Run(stored(tmp_path / "sets", SIX * 2, retain="sets"))
    assert "examples" not in analyse(other, AnalysisOptions(**few)).tables
    with pytest.raises(InputError, match="examples: must be from 0 to 100, got -1"):
        AnalysisOptions(examples=-1)
