from pathlib import Path

import numpy as np
import pytest
from planted import mixed_space, write_run

from sparcom.analysis.analyse import analyse
from sparcom.analysis.components.conditional import ConditionalFrequency, conditional_frequency
from sparcom.analysis.options import AnalysisOptions
from sparcom.store import Run

LABELS = ["QA", "SUM"] * 100
SPACE = mixed_space()
OWNER = SPACE.neuron_experts
ROUTED = np.flatnonzero(OWNER >= 0)
NEVER = 7  # an expert that no token chooses


def _counts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, r, c): neuron 3 of expert 0 fires in 0.9 of its expert's QA tokens and 0.2 of SUM's."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 60, 200)
    experts = rng.binomial(tokens[:, None], 0.3, (200, SPACE.experts))
    experts[:, NEVER] = 0
    odds = np.full((200, SPACE.neurons), 0.2)
    odds[::2, ROUTED[3]] = 0.9
    rows = np.where(OWNER >= 0, experts[:, OWNER], tokens[:, None])
    return tokens, experts, rng.binomial(rows, odds)


def _run(folder: Path, seed: int = 0, retain: str = "counts") -> tuple[Run, tuple]:
    tokens, experts, neurons = counts = _counts(seed)
    share, routed = (part / tokens[:, None] + 1e-9 for part in (neurons, experts))
    run = write_run(folder, share, LABELS, SPACE, experts=routed, tokens=tokens, retain=retain)
    return run, counts


def _found(run: Run) -> ConditionalFrequency:
    return conditional_frequency(run, ("QA", "SUM"), np.ones((2, SPACE.neurons)))


def test_it_is_the_ratio_of_summed_counts(tmp_path: Path) -> None:
    run, (tokens, experts, neurons) = _run(tmp_path / "r")
    found = _found(run)
    np.testing.assert_array_equal(found.neurons, ROUTED)
    for at in range(2):
        c, r = neurons[at::2].sum(0)[ROUTED], experts[at::2].sum(0)[OWNER[ROUTED]]
        known = r > 0
        np.testing.assert_allclose(found.value[at, known], c[known] / r[known], rtol=1e-6)
        assert np.isnan(found.value[at, ~known]).all()
        assert (~known).sum() == 9
        np.testing.assert_allclose(found.frequency[at], c / tokens[at::2].sum(), rtol=1e-6)
    r = experts.sum(0)[OWNER[ROUTED]]
    expected = neurons.sum(0)[ROUTED][r > 0] / r[r > 0]
    np.testing.assert_allclose(found.overall[r > 0], expected)
    assert found.value[0, 3] == pytest.approx(0.9, abs=0.05)
    assert found.frequency[0, 3] < 0.4  # what routing hides


def test_intervals_cover_the_truth_as_often_as_they_say(tmp_path: Path) -> None:
    inside = []
    for seed in range(20):
        found = _found(_run(tmp_path / str(seed), seed)[0])
        known = np.isfinite(found.low[1])
        inside.append(((found.low[1] <= 0.2) & (found.high[1] >= 0.2))[known])
    assert 0.92 <= np.concatenate(inside).mean() <= 0.98


def test_the_mean_of_a_set_is_weighed_by_prevalence_and_has_no_chance_level(tmp_path: Path) -> None:
    run, _ = _run(tmp_path / "r")
    prevalence = np.zeros((2, SPACE.neurons))
    prevalence[:, ROUTED[3]] = 1
    qa, _ = conditional_frequency(run, ("QA", "SUM"), prevalence).in_sets
    assert qa.value == pytest.approx(0.9, abs=0.05)
    assert qa.low < qa.value < qa.high
    assert qa.chance is None


@pytest.mark.parametrize("retain", ["counts", "profile"])
def test_analysis_holds_it_whatever_a_run_retains(tmp_path: Path, retain: str) -> None:
    run, _ = _run(tmp_path / "r", retain=retain)
    options = AnalysisOptions(permutations=9, bootstraps=9, small_draws=9)
    table = analyse(run, options).tables["conditional_frequency"]
    rows = table.to_pylist()
    assert {row["kind"] for row in rows} == {"routed"}
    first = next(row for row in rows if (row["layer"], row["expert"], row["unit"]) == (1, 0, 3))
    low, high = first["conditional_QA_low"], first["conditional_QA_high"]
    assert low < first["conditional_QA"] < high
    assert first["conditional_QA"] > first["conditional_all"] > first["conditional_SUM"]
    assert run.store.read_table("conditional_frequency").equals(table)


def test_a_single_fold_has_no_interval(tmp_path: Path) -> None:
    tokens, experts, neurons = (part[:1] for part in _counts())
    run = write_run(tmp_path / "r", neurons / tokens[:, None] + 1e-9, ["QA"], SPACE,
                    experts=experts / tokens[:, None] + 1e-9, tokens=tokens)  # fmt: skip
    found = conditional_frequency(run, ("QA",), np.ones((1, SPACE.neurons)))
    assert np.isfinite(found.value[0, :9]).all()
    assert np.isnan(found.low).all()
    assert found.in_sets[0].low is None
