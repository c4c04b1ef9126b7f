"""Every setting gives what a run that was selected so gives as its headline."""

from pathlib import Path

import numpy as np
import pytest
from plain_selection import identify as plain_identify
from planted import CATEGORIES, dense_space, draw_sets, planted_prevalence, write_run

from sparcom.analysis.analyse import analyse
from sparcom.analysis.data.load import load
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.analysis.stability import why_no_stability
from sparcom.selection.lift import baseline_of
from sparcom.selection.rules import Selection, identify
from sparcom.store import Run

QUICK = AnalysisOptions(permutations=19, bootstraps=19, small_draws=19)
CODES = np.arange(120) % 6


def shares() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = draw_sets(planted_prevalence(CATEGORIES, 600), CODES, rng)
    return mask * rng.uniform(0.3, 1, mask.shape)


def stored(folder: Path, members: np.ndarray | None = None, retain: str = "counts") -> Run:
    labels = [CATEGORIES[code] for code in CODES]
    members = shares() if members is None else members
    return write_run(folder, members, labels, dense_space(), retain=retain)


def headline(tables: dict) -> dict:
    rows = tables["effects"].to_pylist()
    return next(e for e in rows if (e["family"], e["figure"]) == ("neurons", PRIMARY))


def test_rows_are_the_headline_of_runs_with_such_sets(tmp_path: Path) -> None:
    """Sets by plain NumPy, stored as those of another run, whose analysis knows no stability."""
    run = stored(tmp_path / "run")
    analysis = analyse(run, QUICK)
    rows = analysis.tables["stability"].to_pylist()
    assert [(row["varied"], row["setting"]) for row in rows] == [
        ("as run", run.manifest["selection"]["rule"]),
        *(("rule", f"top:{size}") for size in ("0.005", "0.01", "0.02", "0.05")),
        ("rule", "lift:0.01"),
        *(("ties", name) for name in ("inclusive", "exclusive", "exact")),
        *(("length", f"{name} third") for name in ("shortest", "middle", "longest")),
    ]
    assert all(row["p"] is None for row in rows)
    parts = [part for _, part in run.store.results.counts()]
    expected = [(rows[0], headline(analysis.tables))]
    every = [part.neurons for part in parts]
    baseline = baseline_of(np.concatenate(every), np.concatenate([p.tokens for p in parts]))
    for at, row in enumerate(rows[1:9]):
        selection = Selection(**{**run.manifest["selection"], row["varied"]: row["setting"]})
        if selection.lifts:  # tests/selection/test_lift.py has its plain NumPy
            found = [identify(p, run.space, selection, baseline) for p in parts]
        else:
            found = [plain_identify(p, run.space, selection) for p in parts]
        bits = np.concatenate([sets.neurons for sets in found])
        sizes = np.bitwise_count(bits).sum(1)
        assert row["instructions"] == (sizes > 0).sum() > 10
        assert row["set_size"] == pytest.approx(sizes[sizes > 0].mean() / run.space.neurons)
        members = np.unpackbits(bits, axis=1, count=run.space.neurons, bitorder="little")
        selected = stored(tmp_path / str(at), members, "sets")
        expected.append((row, headline(analyse(selected, QUICK, write=False).tables)))
    for row, other in expected:
        for column in ("value", "low", "high"):
            assert row[column] == pytest.approx(other[column], abs=1e-6), row


def test_thirds_are_of_the_instructions_by_length(tmp_path: Path) -> None:
    rows = analyse(stored(tmp_path / "run"), QUICK).tables["stability"].to_pylist()
    assert [row["instructions"] for row in rows if row["varied"] == "length"] == [40, 40, 40]


@pytest.mark.parametrize(
    ("retain", "reason"), [("sets", "retains no counts"), ("profile", "retains no sets")]
)
def test_without_counts_it_is_left_out(tmp_path: Path, retain: str, reason: str) -> None:
    found = analyse(stored(tmp_path / "run", retain=retain), QUICK)
    assert "stability" not in found.tables
    assert any(w.startswith("stability is left out") and reason in w for w in found.warnings)


def test_a_very_large_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stored(tmp_path / "run")
    loaded = load(run, QUICK)
    assert why_no_stability(run, loaded) == ""
    monkeypatch.setattr("sparcom.analysis.stability.LIMIT", 120 * 120 * 70)
    assert "120 sets" in why_no_stability(run, loaded)
