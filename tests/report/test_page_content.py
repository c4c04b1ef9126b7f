"""What the page says: the figures of the tables, beside their intervals and chance levels."""

import re
from pathlib import Path

from report_pages import (
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

from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.noise_floor import noise_floor
from sparcom.analysis.tuning.trajectory import trajectory
from sparcom.store import Run


def test_the_page_holds_what_a_sceptic_asks_for(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 40, sources=("human",) * 6 + ("ai",) * 6)
    html, _ = page_of(location)
    text = visible(html)
    sentence = re.search(r"Neuron \((\d), (\d+)\) is (\w+)-specific at q < 0.05", text)
    layer, unit, category = sentence.groups()
    table = Run(location).store.read_table("specific_neurons").to_pylist()
    named = next(r for r in table if (r["layer"], r["unit"]) == (int(layer), int(unit)))
    assert named["category"] == category
    assert f"{named['prevalence']:.0%} ({named['prevalence_low']:.0%} to" in text
    figures = {row[0]: row[1:] for row in rows_of(html, "figure")}
    for name in ("same minus different type", "the same, origins as wholes",
                 "the same within like length", "share of it that length explains",
                 "share of it that length and source explain",
                 "same minus different type, ai against human",
                 "probability that a same-type pair overlaps more",
                 "distance between categories&#39; layer shares",
                 "stability of the pattern over depth",
                 "split-half reliability of the heatmap"):  # fmt: skip
        value, interval, chance = figures[name][:3]
        assert re.fullmatch(r"-?\d\.\d+", value), name
        assert re.fullmatch(r"-?\d\.\d+ to -?\d\.\d+", interval), name
        assert re.fullmatch(r"-?\d\.\d+", chance), name
    sizes = rows_of(html, "ranked together")
    assert sizes[1][:3] == ["neurons, dense", "160", "16 (10.00%)"]
    reliability = rows_of(html, "category")
    assert reliability[0][1] == "instructions"
    assert {"neurons-sources", "neurons-effect-by-layer"} <= {
        p.stem for p in (tmp_path / "run/figures").glob("*.svg")
    }


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


def test_a_comparison_and_a_trajectory_are_on_the_page_with_their_noise_floor(
    tmp_path: Path,
) -> None:
    runs = [Run(stored(tmp_path / name, SIX * 6, MOE)) for name in ("base", "fp32", "tuned")]
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
    assert "Tuning moved the ISEs of no category beyond the noise floor." in text
    assert "Note: tuned: the run is not complete; finish it with --resume." in text
    assert rows_of(html, "ISNs")[1][-2] == "1.000"
    assert "Along training" in text
    names = {p.stem for p in (tmp_path / "tuned/figures").glob("*.svg")}
    assert {"neurons-trajectory", "experts-trajectory", "neurons-change-by-layer"} <= names
