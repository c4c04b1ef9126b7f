"""The neuron rule lift against plain NumPy, in memory and on a stored run."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from planted import CATEGORIES, dense_space, write_run

from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.api.counts import Counts, select
from sparcom.cli.main import main
from sparcom.components import ComponentSpace, Site
from sparcom.config import RunConfig
from sparcom.counting.counted import Counted
from sparcom.errors import InputError
from sparcom.pipeline.identify import identify as identify_run
from sparcom.pipeline.plan import prepare
from sparcom.selection.lift import Baseline, baseline_of, odds_ratio
from sparcom.selection.rules import Selection, identify
from sparcom.store import Run

SPACE = ComponentSpace((Site("dense", 0, 500, "silu"), Site("dense", 1, 300, "silu")))


def counted(seed: int = 0, rows: int = 6) -> Counted:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, 60, rows)
    level = rng.beta(0.4, 0.4, SPACE.neurons)
    counts = rng.binomial(tokens[:, None], level).astype(np.int32)
    ids = tuple(f"i{row}" for row in range(rows))
    return Counted(ids, tokens, counts, np.zeros((rows, 0), np.int32))


def expected(counts: np.ndarray, total: int, summed: np.ndarray, n: int, size: int) -> set[int]:
    """The rule by its definition, ties inclusive, neuron by neuron in fractions."""
    score = {}
    for i, (c, s) in enumerate(zip(counts.tolist(), summed.tolist(), strict=True)):
        ratio = Fraction(2 * c + 1, 2 * (total - c) + 1) / Fraction(2 * s + 1, 2 * (n - s) + 1)
        if c > 0 and ratio > 1:
            score[i] = np.float32(float(ratio))
    if len(score) <= size:
        return set(score)
    cut = sorted(score.values())[-size]
    return {i for i, lift in score.items() if lift >= cut}


@pytest.mark.parametrize("part", ["0.01", "0.1", "1"])
def test_sets_follow_the_definition(part: str) -> None:
    given = counted()
    summed, n = given.neurons.sum(0), int(given.tokens.sum())
    sets = identify(given, SPACE, Selection(f"lift:{part}"), Baseline(summed, n))
    size = math.ceil(float(part) * SPACE.neurons)
    for row, total in enumerate(given.tokens.tolist()):
        chosen = expected(given.neurons[row], total, summed, n, size)
        assert set(sets.indices(row).tolist()) == chosen
        assert sets.sizes[row].tolist() == [len(chosen)]
        assert sets.cuts[row, 0] == min(given.neurons[row, i] for i in chosen)


def test_a_neuron_that_always_fires_has_no_lift() -> None:
    given = counted()
    given.neurons[:, 7] = given.tokens  # always on
    given.neurons[:, 8] = 0
    given.neurons[2, 8] = given.tokens[2]  # of one instruction alone
    baseline = baseline_of(given.neurons, given.tokens)
    highest = identify(given, SPACE, Selection("top:0.01"))
    lifted = identify(given, SPACE, Selection("lift:0.01", ties="exact"), baseline)
    assert all(7 in highest.indices(row) for row in range(6))
    assert [row for row in range(6) if 7 in lifted.indices(row)] == []
    assert [row for row in range(6) if 8 in lifted.indices(row)] == [2]
    assert lifted.sizes.max() <= 8


def test_exact_ties_fill_the_nominal_size() -> None:
    given = counted()
    given.neurons[:] = given.neurons[:, :1]  # all neurons alike, so that all are tied
    given.neurons[0] = given.tokens[0]
    baseline = baseline_of(given.neurons[1:], given.tokens[1:])
    for ties, size in (("inclusive", 800), ("exact", 8), ("exclusive", 0)):
        sets = identify(given, SPACE, Selection("lift:0.01", ties=ties), baseline)
        assert sets.sizes[0].tolist() == [size]


def test_counted_instructions_are_their_own_baseline() -> None:
    given = counted()
    counts = Counts(
        ids=given.ids, tokens=given.tokens, neurons=given.neurons, experts=given.experts,
        space=SPACE,
    )  # fmt: skip
    sets = select(counts, "lift:0.05")
    again = identify(given, SPACE, Selection("lift:0.05"), baseline_of(given.neurons, given.tokens))
    np.testing.assert_array_equal(sets.neurons, again.neurons)
    with pytest.raises(InputError, match="a stored baseline is of sparcom identify"):
        select(counts, "lift:0.05@runs/plain")


def test_without_a_baseline_it_is_refused() -> None:
    with pytest.raises(InputError, match="known once all .* sparcom identify RUN --rule lift"):
        identify(counted(), SPACE, Selection("lift:0.01"))
    with pytest.raises(InputError, match="must be of 800 neurons, got 3"):
        identify(counted(), SPACE, Selection("lift:0.01"), Baseline(np.zeros(3, np.int64), 1))
    with pytest.raises(InputError, match="at most 1 except for lift of experts"):
        Selection("lift:1.5")
    assert Selection(expert_rule="lift:1.5").rule == "top:0.01"


def test_a_run_is_not_counted_with_it(tmp_path: Path) -> None:
    config = RunConfig(corpus="hexainst", rule="lift:0.01", out=str(tmp_path / "run"))
    with pytest.raises(InputError, match="sparcom identify RUN --rule lift"):
        prepare(config)
    assert not (tmp_path / "run").exists()


def test_the_ratio_is_of_log_odds() -> None:
    given = counted()
    baseline = baseline_of(given.neurons, given.tokens)
    p, q = given.neurons[3], baseline.counts
    expected_lift = np.log((p + 0.5) / (given.tokens[3] - p + 0.5)) - np.log(
        (q + 0.5) / (given.tokens.sum() - q + 0.5)
    )
    found = np.log(odds_ratio(p, int(given.tokens[3]), baseline))
    np.testing.assert_allclose(found, expected_lift, atol=1e-12)


def run_of(folder: Path, seed: int, **changes: object) -> Run:
    rng = np.random.default_rng(seed)
    shares = rng.random((60, 600)) * (rng.random((60, 600)) < 0.6)
    labels = [CATEGORIES[i % 6] for i in range(60)]
    return write_run(folder, shares, labels, dense_space(), retain="counts", **changes)


@pytest.mark.parametrize("other", [False, True])
def test_a_stored_run_is_selected_again(
    tmp_path: Path, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Runs that tests write have stamps of their own.
    monkeypatch.setattr("sparcom.pipeline.identify.stamps_of", lambda manifest: manifest["stamps"])
    run, plain = run_of(tmp_path / "run", 0), run_of(tmp_path / "plain", 1)
    command = ["identify", str(tmp_path / "run"), "--rule", "lift:0.02"]
    over = ["--baseline", str(tmp_path / "plain")] if other else []
    assert main([*command, *over]) == 0
    parts = [part for _, part in (plain if other else run).store.results.counts()]
    summed = np.concatenate([part.neurons for part in parts]).sum(0)
    n = sum(int(part.tokens.sum()) for part in parts)
    selected = Run(tmp_path / "run")
    for (_, part), (_, sets) in zip(
        selected.store.results.counts(), selected.store.results.sets(run.space), strict=True
    ):
        for row, total in enumerate(part.tokens.tolist()):
            chosen = expected(part.neurons[row], total, summed, n, 12)
            assert set(sets.indices(row).tolist()) == chosen
    rule = f"lift:0.02@{tmp_path / 'plain'}" if other else "lift:0.02"
    assert selected.manifest["selection"]["rule"] == rule
    few = AnalysisOptions(permutations=9, bootstraps=9, small_draws=9)
    tables = analyse(selected, few).tables
    assert tables["set_sizes"]["nominal"].to_pylist() == [12]
    assert tables["stability"]["setting"][0].as_py() == rule


def test_a_baseline_of_another_model_is_refused(tmp_path: Path) -> None:
    run_of(tmp_path / "run", 0)
    write_run(tmp_path / "plain", np.ones((6, SPACE.neurons)), list(CATEGORIES), SPACE)
    rule = f"lift:0.02@{tmp_path / 'plain'}"
    with pytest.raises(InputError, match="is of a model of another shape"):
        identify_run(str(tmp_path / "run"), rule=rule)


def test_an_incomplete_run_is_no_baseline(tmp_path: Path) -> None:
    run_of(tmp_path / "run", 0, part_size=20, skip=range(20, 40), status="stopped")
    with pytest.raises(InputError, match="2 of 3 parts are counted"):
        identify_run(str(tmp_path / "run"), rule="lift:0.02")
