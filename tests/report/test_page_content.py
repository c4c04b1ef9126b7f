"""What the page says: the figures of the tables, beside their intervals and chance levels."""

import re
from pathlib import Path

import pytest
from report_pages import (
    DENSE,
    FEW,
    MOE,
    SIX,
    assert_no_fetch,
    assert_numbers,
    page_of,
    rows_of,
    stored,
    visible,
)

from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.noise_floor import noise_floor
from sparcom.analysis.tuning.trajectory import trajectory
from sparcom.components import ComponentSpace, Site
from sparcom.report.component_section import component_name
from sparcom.report.component_section import tested_statement as statement_of_tests
from sparcom.report.tables import Tables
from sparcom.store import Run


def test_the_page_holds_what_a_sceptic_asks_for(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 40, sources=("human",) * 6 + ("ai",) * 6)
    html, _ = page_of(location)
    text = visible(html)
    adjusted = Tables(Run(location)).estimate("effects", family="neurons", figure=PRIMARY)
    said = f"it is {adjusted.value:.3f} ({adjusted.low:.3f} to {adjusted.high:.3f})"
    assert f"{said}; under permuted clusters {adjusted.chance:.3f} (p = " in text
    tests = rows_of(html, "enriched in")
    table = Run(location).store.read_table("enriched_neurons").to_pylist()
    for row in tests[1:]:
        named = next(r for r in table if (r["category"], component_name(r)) == (row[0], row[1]))
        others = [named[f"frequency_{name}"] for name in SIX if name != row[0]]
        assert row[2] == f"{named[f'frequency_{row[0]}']:.2f}"
        assert row[3].startswith(f"{max(others):.2f} (")
        assert row[5] == f"{named['low']:+.2f} to {named['high']:+.2f}"
    assert len(tests) > 6
    rest = rows_of(html, "tests of")
    assert [row[0] for row in rest[1:]] == list(SIX)
    assert all(0 < float(row[1]) <= 40 for row in rest[1:])
    figures = {row[0]: row[1:] for row in rows_of(html, "figure")}
    for name in ("same minus different type, adjusted (primary)", "pairs of two clusters",
                 "the same within like length", "the same within like length and source",
                 "adjusted, ai against human",
                 "probability that a same-type pair overlaps more",
                 "distance between categories&#39; layer shares",
                 "stability of the pattern over depth",
                 "split-half reliability of the heatmap"):  # fmt: skip
        value, interval, chance = figures[name][:3]
        assert re.fullmatch(r"-?\d\.\d+", value), name
        expected = "-" if name.startswith(("stability", "distance")) else r"-?\d\.\d+ to -?\d\.\d+"
        assert re.fullmatch(expected, interval), name
        assert re.fullmatch(r"-?\d\.\d+", chance), name
    for name in ("share of it that length explains",
                 "share that length, source and tokens explain"):  # fmt: skip
        assert re.fullmatch(r"-?\d\.\d+ to -?\d\.\d+", figures[name][1]), name
    assert figures["all pairs, nothing held fixed"][1:] == ["-", "-", "-", "-"]
    sizes = rows_of(html, "ranked together")
    assert sizes[1][:3] == ["neurons, dense", "160", "16 (10.00%)"]
    reliability = rows_of(html, "category")
    assert reliability[0][1] == "instructions"
    assert {"neurons-sources", "neurons-effect-by-layer"} <= {
        p.stem for p in (tmp_path / "run/figures").glob("*.svg")
    }


@pytest.mark.parametrize("clusters", [("one",), tuple(f"of {name}" for name in SIX)])
def test_too_few_clusters_are_undetermined_and_claim_nothing(
    tmp_path: Path, clusters: tuple[str, ...]
) -> None:
    """All of one collection, or each category of its own: type cannot be told from these."""
    html, _ = page_of(stored(tmp_path / "run", SIX * 20, clusters=clusters))
    assert_numbers(html)
    text = visible(html)
    assert f"Undetermined: {len(clusters)} clusters, and no two of one category" in text
    if len(clusters) > 1:
        assert "too few clusters to test neurons: CLS (1 clusters)" in text
    assert not re.search(r"p = \d", text)
    primary = rows_of(html, "figure")[1]
    assert primary[0].endswith("(primary)")
    assert (primary[2], primary[5]) == ("-", "-")
    assert "enriched in" not in text


def test_a_design_with_several_categories_in_each_cluster_says_so(tmp_path: Path) -> None:
    passages = [f"passage {k // 6}" for k in range(120)]
    text = visible(page_of(stored(tmp_path / "run", SIX * 20, clusters=passages))[0])
    assert "Every cluster holds several categories, which are exchanged within it" in text


def test_routed_neurons_are_seen_given_their_expert(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 10, MOE)
    html, _ = page_of(location)
    rows = rows_of(html, "routed ISNs of")
    assert [row[0] for row in rows[1:]] == list(SIX)
    counts = Run(location).store.read_table("component_counts").to_pylist()
    stored_rows = [r for r in counts if r["figure"] == "conditional frequency of ISNs"]
    for row, figure in zip(rows[1:], stored_rows, strict=True):
        assert row[1] == f"{figure['value']:.3f}"
        assert row[2] == f"{figure['low']:.3f} to {figure['high']:.3f}"
        assert figure["chance"] is None


def test_a_comparison_and_a_trajectory_are_on_the_page_with_their_noise_floor(
    tmp_path: Path,
) -> None:
    runs = [Run(stored(tmp_path / name, SIX * 12, MOE)) for name in ("base", "fp32", "tuned")]
    last = runs[2]
    last.manifest["status"] = "running"
    bits = last.sets.neurons
    bits[:, ::2] = 0
    noise = noise_floor(*runs[:2])
    compare(runs[0], last, FEW, noise_floor=noise)
    trajectory(runs, FEW, noise_floor=noise)
    html, page = page_of(str(tmp_path / "tuned"))
    assert_no_fetch(html, page)
    assert_numbers(html)
    text = visible(html)
    assert "Tuning moved the ISNs of CLS, CODE, QA, GEN, MATH, SUM beyond the noise" in text
    assert "Tuning moved the ISEs of no category beyond the noise floor (0 of 6 categories" in text
    assert "Note: tuned: the run is not complete; finish it with --resume." in text
    assert "categories; by chance one or more in 5% of comparisons" in text
    assert "With length and source held fixed, tuning moved the ISNs of" in text
    head, first = rows_of(html, "ISNs")[:2]
    assert first[head.index("noise floor")] == "1.000"
    assert "Along training" in text
    names = {p.stem for p in (tmp_path / "tuned/figures").glob("*.svg")}
    assert {"neurons-trajectory", "experts-trajectory", "neurons-change-by-layer"} <= names


def test_no_specific_neuron_has_no_false_one_to_expect() -> None:
    """A page's sentence: false discoveries are named if there is a discovery."""
    options = {"alpha": 0.05, "least_difference": 0.1}
    figures = (("clusters", 9), ("enriched", 40), ("depleted", 20))
    rows = [{"figure": name, "category": "A", "value": value} for name, value in figures]
    found = {}
    for count in (0, 4):
        specific = {"figure": "specific", "category": "A", "value": count}
        found[count] = statement_of_tests("neurons", [*rows, specific], ["A"], options, 600)
    assert found[0].endswith("0 are specific: above every other category by more than 0.1.")
    assert found[4].endswith("by more than 0.1 (false ones expected: at most 0.2).")


HYBRID = ComponentSpace(tuple(Site("dense", j, 40, "silu") for j in (1, 3)))


@pytest.mark.parametrize(
    ("space", "layers", "lead", "caption"),
    [
        (HYBRID, 5, "80 neurons in 2 of 5 layers,", "Only 2 of 5 layers have such components."),
        (HYBRID, None, "80 neurons in 2 of 4 layers,", "Only 2 of 4 layers have"),  # older runs
        (DENSE, 4, "160 neurons in 4 layers,", None),
        (MOE, 2, "108 neurons and 6 routed experts in 2 layers,", "Only 1 of 2 layers have"),
    ],
)
def test_layers_without_an_ffn_are_not_among_those_that_have_one(
    tmp_path: Path, space, layers, lead, caption
) -> None:
    """Nemotron-H: the first layer, one between and the last one have none."""
    told = {} if layers is None else {"layers": layers}
    location = stored(
        tmp_path / "run", SIX * 40, space, sources=("human",) * 6 + ("ai",) * 6, **told
    )
    html, _ = page_of(location)
    text = visible(html)
    assert lead in text
    assert ("such components" in text) == bool(caption)
    assert (caption or "") in text
    sites = {s.layer for s in space.sites}
    rows = Run(location).store.read_table("layers").to_pylist()
    assert {row["layer"] for row in rows if row["family"] == "neurons"} == sites
    for named in re.findall(r"layer (\d+) \(", text):
        assert int(named) in sites
    for found, tested, what in re.findall(r"In (\d+) of (\d+) (layers|sites) p <= 0.05", text):
        assert int(found) <= int(tested) <= len(space.sites)
        assert what == "layers" or len(sites) < len(space.sites)
