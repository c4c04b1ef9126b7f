"""Instructions, nearest, pairs and members, against sets of Python and loops over them."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pytest
from report_pages import DENSE, FEW, MOE, SIX, stored

from sparcom.analysis.analyse import analyse
from sparcom.analysis.explore.instructions import MEMBERS, NEAREST, PAIRS, TEXT, unit_names
from sparcom.component_list import component_table
from sparcom.store import Run


def opened(location: str) -> tuple[Run, dict[str, list[dict]]]:
    run = Run(location)
    tables = analyse(run, FEW).tables
    names = ("instructions", "nearest", "pairs", "members")
    return run, {name: tables[name].to_pylist() for name in names if name in tables}


def sets_of(run: Run, family: str = "neurons") -> dict[str, frozenset[str]]:
    """id -> the names of its members."""
    sets, out = run.sets, {}
    for row, name in enumerate(sets.ids):
        bits = (sets.neurons if family == "neurons" else sets.experts)[row]
        held = [i for i in range(8 * len(bits)) if bits[i // 8] >> (i % 8) & 1]
        out[name] = frozenset(unit_names(component_table(run.space, family, held)))
    return out


def jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)


def test_nearest_are_the_instructions_with_the_largest_overlap(tmp_path: Path) -> None:
    run, tables = opened(stored(tmp_path / "run", SIX * 4))
    sets = sets_of(run)
    of: dict[str, list[dict]] = {}
    for row in tables["nearest"]:
        of.setdefault(row["id"], []).append(row)
    assert set(of) == set(sets)
    for name, rows in of.items():
        best = sorted((jaccard(sets[name], sets[o]) for o in sets if o != name), reverse=True)
        assert [row["rank"] for row in rows] == list(range(1, NEAREST + 1))
        assert [row["jaccard"] for row in rows] == pytest.approx(best[:NEAREST])
        for row in rows:
            assert row["other"] != name
            assert row["jaccard"] == pytest.approx(jaccard(sets[name], sets[row["other"]]))
            assert row["shared"] == len(sets[name] & sets[row["other"]])


def test_a_cell_names_its_most_and_least_alike_pairs(tmp_path: Path) -> None:
    clusters = [f"c{k // 2}" for k in range(36)]
    run, tables = opened(stored(tmp_path / "run", SIX * 6, clusters=clusters))
    sets, holders = sets_of(run), Counter()
    for members in sets.values():
        holders.update(members)
    labels = run.labels.to_pylist()
    category = {row["id"]: row["category"] for row in labels}
    cluster = {row["id"]: row["cluster"] for row in labels}
    values: dict[tuple, list[float]] = {}
    for a, b in combinations(sets, 2):
        cell = tuple(sorted((category[a], category[b]), key=SIX.index))
        values.setdefault(cell, []).append(jaccard(sets[a], sets[b]))
    found: dict[tuple, list[dict]] = {}
    for row in tables["pairs"]:
        found.setdefault((row["a"], row["b"], row["end"]), []).append(row)
    assert {key[:2] for key in found} == set(values)
    for (a, b, end), rows in found.items():
        order = sorted(values[a, b], reverse=end == "most")
        count = min(PAIRS, len(order) - (PAIRS if end == "least" else 0))  # no pair is in both
        assert [row["jaccard"] for row in rows] == pytest.approx(order[:count])
        for row in rows:
            assert (category[row["first"]], category[row["second"]]) == (a, b)
            both = sets[row["first"]] & sets[row["second"]]
            assert row["jaccard"] == pytest.approx(jaccard(sets[row["first"]], sets[row["second"]]))
            assert row["shared"] == len(both)
            assert row["same_cluster"] == (cluster[row["first"]] == cluster[row["second"]])
            assert set(row["units"]) <= both
            rare = sorted(holders[unit] for unit in both)[: len(row["units"])]
            assert [holders[unit] for unit in row["units"]] == rare
            assert len(row["units"]) == min(len(both), PAIRS)


@pytest.mark.parametrize("family", ["neurons", "experts"])
def test_members_are_those_that_fewest_hold(tmp_path: Path, family: str) -> None:
    run, tables = opened(stored(tmp_path / "run", SIX * 5, MOE))
    sets, holders = sets_of(run, family), Counter()
    for members in sets.values():
        holders.update(members)
    rows = [row for row in tables["members"] if row["family"] == family]
    names = dict(zip(map(id, rows), unit_names_of(rows), strict=True))
    for name, members in sets.items():
        of = [row for row in rows if row["id"] == name]
        assert len(of) == min(len(members), MEMBERS)
        assert [row["held_by"] for row in of] == sorted(holders[u] for u in members)[: len(of)]
        for row in of:
            assert names[id(row)] in members
            assert row["held_by"] == holders[names[id(row)]]
            share = run.frequencies if family == "neurons" else run.expert_frequencies
            index = component_index(run, family, row)
            assert row["frequency"] == pytest.approx(float(share(name)[index]))


def unit_names_of(rows: list[dict]) -> list[str]:
    keys = ("layer", "kind", "expert", "unit")
    return unit_names(pa.table({key: [row[key] for row in rows] for key in keys}))


def component_index(run: Run, family: str, row: dict) -> int:
    if family == "experts":
        at = [s.layer for s in run.space.sites].index(row["layer"])
        sites = [k for k, s in enumerate(run.space.sites) if s.layer == row["layer"] and s.experts]
        assert at <= sites[0]
        return int(run.space.expert_offsets[sites[0]]) + row["expert"]
    expert = -1 if row["expert"] is None else row["expert"]
    return run.space.neuron_index(row["layer"], row["kind"], expert, row["unit"])


def test_instructions_keep_their_text_and_sizes(tmp_path: Path) -> None:
    run, tables = opened(stored(tmp_path / "run", SIX * 3, MOE, sources=("human", "ai")))
    sets, experts = run.sets, sets_of(run, "experts")
    assert [row["id"] for row in tables["instructions"]] == list(sets.ids)
    for at, row in enumerate(tables["instructions"]):
        assert row["text"] == "x"
        assert not row["cut"]
        assert row["tokens"] == sets.tokens[at]
        assert sum(row["sites_neurons"]) == sets.sizes[at].sum()
        assert len(row["sites_neurons"]) == len(MOE.sites)
        assert sum(row["sites_experts"]) == len(experts[row["id"]])


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX, DENSE, text="é" * (TEXT + 1))
    _, tables = opened(location)
    assert all(row["cut"] and row["text"] == "é" * TEXT for row in tables["instructions"])


def test_a_profile_has_texts_and_no_pairs(tmp_path: Path) -> None:
    _, tables = opened(stored(tmp_path / "run", SIX * 2, MOE, retain="profile"))
    assert set(tables) == {"instructions"}
    assert len(tables["instructions"]) == 12
    assert "sites_neurons" not in tables["instructions"][0]
