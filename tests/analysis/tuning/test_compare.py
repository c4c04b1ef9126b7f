from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from planted import CATEGORIES, dense_space, draw_sets, mixed_space, planted_prevalence, write_run
from scipy.stats import binomtest

from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.component_changes import sign_test
from sparcom.analysis.tuning.noise_floor import noise_floor
from sparcom.analysis.tuning.trajectory import trajectory
from sparcom.errors import InputError
from sparcom.store import Run

QUICK = AnalysisOptions(permutations=99, bootstraps=200, small_draws=20)
CODES = np.arange(240) % 6
LABELS = [CATEGORIES[code] for code in CODES]
GAINED, LOST = np.arange(300, 310), np.arange(0, 10)


def _base(seed: int = 0) -> np.ndarray:
    return draw_sets(planted_prevalence(CATEGORIES, 600), CODES, np.random.default_rng(seed))


def _tuned(base: np.ndarray, noise: float = 0.2) -> np.ndarray:
    """Ten components gained and ten lost; elsewhere some memberships are drawn again, alike."""
    rng = np.random.default_rng(1)
    tuned = np.where(rng.random(base.shape) < noise, _base(2), base)
    tuned[:, GAINED] |= rng.random((240, 10)) < 0.5
    tuned[:, LOST] &= rng.random((240, 10)) < 0.5
    return tuned


def _runs(folder: Path, **options: object) -> tuple[Run, Run]:
    base = _base()
    return (
        write_run(folder / "base", base, LABELS, dense_space(), **options),
        write_run(folder / "tuned", _tuned(base), LABELS, dense_space(), **options),
    )


def test_planted_changes_are_found_and_nothing_else(tmp_path: Path) -> None:
    base, tuned = _runs(tmp_path, retain="counts")
    result = compare(base, tuned, QUICK)
    table = result.alterations["neurons"].components.to_pylist()
    index = [base.space.neuron_index(r["layer"], r["kind"], -1, r["unit"]) for r in table]
    gained = {i for i, r in zip(index, table, strict=True)
              if r["q"] <= 0.05 and r["gained"] > r["lost"]}  # fmt: skip
    lost = {i for i, r in zip(index, table, strict=True)
            if r["q"] <= 0.05 and r["gained"] < r["lost"]}  # fmt: skip
    assert set(GAINED) <= gained
    assert len(gained) <= 11
    assert set(LOST) <= lost
    change = result.frequencies["neurons"]
    strongest = [row for row in change.components.to_pylist() if abs(row["value"]) > 0.3]
    assert len(strongest) == 20
    assert all((row["low"] > 0) == (row["value"] > 0) for row in strongest)
    rows = change.layers.to_pylist()
    assert [r["layer"] for r in rows if r["category"] == "all"] == [0, 1, 2]


def test_per_instruction_figures_are_those_of_the_sets(tmp_path: Path) -> None:
    base, tuned = _runs(tmp_path)
    result = compare(base, tuned, QUICK)
    a, b = _base(), _tuned(_base())
    change = result.alterations["neurons"]
    np.testing.assert_allclose(change.jaccard, (a & b).sum(1) / (a | b).sum(1))
    stored = tuned.store.read_table("alteration_neurons")
    np.testing.assert_array_equal(stored["gained"].to_numpy(), (b & ~a).sum(1))
    np.testing.assert_array_equal(stored["lost"].to_numpy(), (a & ~b).sum(1))
    layers = change.layers.to_pylist()
    row = next(r for r in layers if (r["category"], r["layer"]) == ("MATH", 1))
    inside = CODES == 4
    assert row["gained"] == pytest.approx((b & ~a)[inside, 200:400].sum(1).mean())
    assert row["before"] - row["lost"] + row["gained"] == pytest.approx(row["after"])
    site = a[inside, 200:400], b[inside, 200:400]
    jaccards = (site[0] & site[1]).sum(1) / (site[0] | site[1]).sum(1)
    assert row["overlap"] == pytest.approx(jaccards.mean())
    assert 0 < row["chance"] < row["overlap_low"] < row["overlap"] < row["overlap_high"]
    for name in ("gained", "lost"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    overall = change.overlap[-1]
    assert overall.low < overall.value < overall.high
    assert 0 < overall.chance < overall.value
    layers = [m.reshape(240, 3, 200).sum(2) / m.sum(1, keepdims=True) for m in (a, b)]
    # Ten clusters: five origins of each source. All 1,024 ways to swap them, instead of 99.
    clusters = np.arange(240) // 6 % 2 * 5 + np.arange(240) % 5
    sums = np.stack([(layers[1] - layers[0])[clusters == k].sum(0) for k in range(10)])
    swaps = np.abs(np.array(list(product((-1, 1), repeat=10))) @ sums).sum(1) / 2 / 240
    assert change.shift[-1].value == pytest.approx(swaps[-1])
    assert change.shift[-1].p == pytest.approx((swaps >= swaps[-1] - 1e-12).mean(), abs=0.05)
    assert change.shift[-1].chance == pytest.approx(swaps.mean(), rel=0.1)
    other = compare(base, tuned, replace(QUICK, seed=1), write=False).alterations["neurons"]
    assert other.shift[-1].value == change.shift[-1].value
    assert other.shift[-1].chance != change.shift[-1].chance
    assert any("no counts retained" in w for w in result.warnings)
    assert any("no noise floor given" in w for w in result.warnings)
    warned = tuned.store.read_table("alteration_warnings")["warning"]
    assert tuple(warned.to_pylist()) == result.warnings


def test_what_moved_more_than_the_floor(tmp_path: Path) -> None:
    base, _ = _runs(tmp_path)
    rng = np.random.default_rng(5)
    other = _base() ^ (rng.random((240, 600)) < 0.01)
    noise = noise_floor(base, write_run(tmp_path / "fp32", other, LABELS, dense_space()))
    mean, median, worst = noise.summary["neurons"]
    assert worst < median < 1
    assert mean == pytest.approx(median, abs=0.02)
    changed = _base() ^ (rng.random((240, 600)) < np.where(CODES == 4, 0.05, 0.01)[:, None])
    tuned = write_run(tmp_path / "t", changed, LABELS, dense_space())
    result = compare(base, tuned, QUICK, noise_floor=noise).alterations["neurons"]
    assert result.moved() == ("MATH",)
    more = [name for name, e in zip(CATEGORIES, result.against_others, strict=True)
            if e.p <= 0.05 and e.value > 0]  # fmt: skip
    assert more == ["MATH"]
    assert result.noise_floor[-1].value == pytest.approx(noise.jaccard["neurons"].mean())
    assert result.noise_floor[-1].low < result.noise_floor[-1].value < result.noise_floor[-1].high
    figures = [r["figure"] for r in tuned.store.read_table(
        "alteration_summary").to_pylist() if r["category"] == "all"]  # fmt: skip
    assert figures == ["overlap", "layer shift", "noise floor", "beyond noise floor", "clusters"]


def test_changes_of_frequency_are_compared_with_the_floor(tmp_path: Path) -> None:
    """Ten neurons fire more by tuning, ten more as often by tuning as by rounding."""
    rng = np.random.default_rng(8)
    alike = np.arange(320, 330)
    a, b = _base(), _base() ^ (rng.random((240, 600)) < 0.01)
    again = _base() ^ (rng.random((240, 600)) < 0.01)
    b[:, GAINED] |= rng.random((240, 10)) < 0.5
    for one in (b, again):
        one[:, alike] |= rng.random((240, 10)) < 0.5
    masks = {"base": a, "tuned": b, "fp32": again}
    base, tuned, fp32 = (
        write_run(tmp_path / name, mask, LABELS, dense_space(), retain="counts")
        for name, mask in masks.items()
    )
    result = compare(base, tuned, QUICK, noise_floor=noise_floor(base, fp32))
    found = result.frequencies["neurons"]
    rows = found.components.to_pylist()
    index = [base.space.neuron_index(r["layer"], r["kind"], -1, r["unit"]) for r in rows]
    shift = again.mean(0) - a.mean(0)
    np.testing.assert_allclose([r["floor"] for r in rows], shift[index], atol=1e-6)
    beyond = {i for i, r in zip(index, rows, strict=True) if r["q"] is not None and r["q"] <= 0.05}
    assert beyond == set(GAINED)
    layers = {(r["category"], r["layer"]): r for r in found.layers.to_pylist()}
    inside = again[CODES == 4, 200:400].astype(float) - a[CODES == 4, 200:400]
    assert layers["MATH", 1]["floor"] == pytest.approx(inside.mean(), abs=1e-6)
    without = compare(base, tuned, QUICK, write=False).frequencies["neurons"]
    assert set(without.layers["q"].to_pylist() + without.components["floor"].to_pylist()) == {None}
    bare = noise_floor(base, write_run(tmp_path / "bare", again, LABELS, dense_space()))
    result = compare(base, tuned, QUICK, noise_floor=bare)
    assert any("bare: no counts retained, so changes of frequency are not" in w
               for w in result.warnings)  # fmt: skip


def test_a_floor_that_does_not_fit_is_refused_or_named(tmp_path: Path) -> None:
    base, tuned = _runs(tmp_path)
    again = write_run(tmp_path / "again", _base(), LABELS, dense_space())
    with pytest.raises(InputError, match="base twice; expected runs in two dtypes or engines"):
        noise_floor(base, base)
    for run, weights in ((base, "a"), (tuned, "b"), (again, "a")):
        run.manifest["model"] = {"weights": weights}
        run.manifest["engine"] = {"name": "vllm", "device": "cpu", "dtype": "float32"}
    with pytest.raises(InputError, match="base and tuned have different weights"):
        noise_floor(base, tuned)
    noise = noise_floor(base, again)
    found = compare(base, tuned, QUICK, noise_floor=noise).warnings
    assert any("vllm on cpu in float32: they round alike, so that it is too low" in w
               for w in found)  # fmt: skip
    again.manifest["engine"]["dtype"] = "bfloat16"
    noise = noise_floor(base, again)
    assert not any("floor" in w for w in compare(base, tuned, QUICK, noise_floor=noise).warnings)
    base.manifest["model"] = again.manifest["model"] = {"weights": "c"}
    foreign = noise_floor(again, base)
    base.manifest["model"] = {"weights": "a"}  # the noise floor's own run, again, keeps c
    found = compare(base, tuned, QUICK, noise_floor=foreign).warnings
    assert any("is of none of the compared models" in w for w in found)
    again.manifest["model"] = {"weights": "a"}
    for run in (base, again):
        run.manifest["selection"] = {**run.manifest["selection"], "rule": "top:0.05"}
    other = noise_floor(again, base)
    base.manifest["selection"]["rule"] = "top:0.01"
    with pytest.raises(InputError, match=r"noise floor: base and again differ in rule"):
        compare(base, tuned, QUICK, noise_floor=other)
    tuned.manifest["model"] = {"weights": "a"}
    found = compare(base, tuned, QUICK).warnings
    assert "base and tuned have the same weights: what differs is rounding, not tuning" in found


def test_a_run_against_itself_has_not_changed(tmp_path: Path) -> None:
    base, _ = _runs(tmp_path, retain="counts")
    result = compare(base, base, QUICK, write=False)
    change = result.alterations["neurons"]
    assert all(e.value == 1 for e in change.overlap)
    assert all(e.value == 0 and e.p == 1 for e in change.shift)
    assert change.components.num_rows == 0
    assert result.frequencies["neurons"].layers["value"].to_numpy().max() == 0


def test_experts_are_compared_too(tmp_path: Path) -> None:
    space = mixed_space()
    rng = np.random.default_rng(0)
    mask, experts = rng.random((240, space.neurons)) < 0.3, rng.random((240, 10)) < 0.3
    options = {"experts": experts, "retain": "counts"}
    base = write_run(tmp_path / "b", mask, LABELS, space, **options)
    options["experts"] = experts.copy()
    options["experts"][:, 7] = True
    tuned = write_run(tmp_path / "t", mask, LABELS, space, **options)
    result = compare(base, tuned, QUICK)
    rows = result.alterations["experts"].components.to_pylist()
    assert [(r["layer"], r["expert"], r["unit"]) for r in rows] == [(2, 2, None)]
    assert result.frequencies["experts"].components.num_rows == 10


def test_counts_stored_in_other_parts_still_pair(tmp_path: Path) -> None:
    base = write_run(tmp_path / "b", _base(), LABELS, dense_space(), retain="counts", part_size=64)
    again = write_run(tmp_path / "t", _base(), LABELS, dense_space(), retain="counts", part_size=50)
    change = compare(base, again, QUICK).frequencies["neurons"]
    assert np.abs(change.components["value"].to_numpy()).max() == 0


def test_frequencies_of_written_answers_rest_on_each_run_s_own_tokens(tmp_path: Path) -> None:
    config = {"generate": 60, "scope": "response"}
    base = write_run(tmp_path / "b", _base(), LABELS, dense_space(), retain="counts", config=config)
    longer = write_run(tmp_path / "t", _base(), LABELS, dense_space(), retain="counts",
                       written=np.arange(240) % 50, config=config)  # fmt: skip
    result = compare(base, longer, QUICK)
    assert np.abs(result.frequencies["neurons"].components["value"].to_numpy()).max() == 0
    ended = np.where(np.arange(240) < 3, -base.labels["n_counted"].to_numpy(), 0)
    silent = write_run(tmp_path / "s", _base(), LABELS, dense_space(), retain="counts",
                       written=ended, config=config)  # fmt: skip
    for pair in ((base, silent), (silent, base)):
        result = compare(*pair, QUICK)
        assert any("3 instructions have no counted token" in text for text in result.warnings)
        rows = result.frequencies["neurons"].layers.to_pylist()
        assert {row["value"] for row in rows} == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"generate": 32}}, r"generate \(0 against 32\)"),
        ({"tokens": np.arange(240) % 17 + 9}, r"240 of 240 instructions have different token ids.*"
         r"CLS-0000, CODE-0001, QA-0002, \.\.\..*--template from:TUNED.*--template plain"),
        ({"config": {"threshold": 0.5}},
         r"differ in threshold \(0\.0 against 0\.5\); count one of them again"),
        ({"config": {"scope": "prompt"}}, r"scope \('instruction' against 'prompt'\)"),
        ({"space": dense_space(2, 300)}, r"different architectures \(3 sites against 2\)"),
        ({"space": dense_space(3, 208)}, r"different architectures \(.*width=200.*width=208"),
    ],
)  # fmt: skip
def test_runs_that_do_not_compare_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    base = write_run(tmp_path / "base", _base(), LABELS, dense_space())
    space = options.pop("space", dense_space())
    mask = np.ones((240, space.neurons), bool)
    tuned = write_run(tmp_path / "tuned", mask, LABELS, space, **options)
    with pytest.raises(InputError, match=message):
        compare(base, tuned, QUICK)


def test_different_sets_of_rules_are_refused(tmp_path: Path) -> None:
    base, tuned = _runs(tmp_path)
    tuned.manifest["selection"]["rule"] = "top:0.05"
    with pytest.raises(
        InputError, match=r"rule \('top:0.01' against 'top:0.05'\); select .*identify"
    ):
        compare(base, tuned, QUICK)


def test_only_shared_instructions_are_compared_and_none_is_an_error(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", _base(), LABELS, dense_space())
    part = write_run(tmp_path / "part", _base()[:60], LABELS[:60], dense_space(), status="running")
    result = compare(base, part, QUICK)
    assert result.instructions == 60
    assert "base: 180 instructions are not in the other run" in result.warnings
    assert any(w.startswith("part: the run is not complete") for w in result.warnings)
    other = write_run(tmp_path / "other", _base()[:6], ["X"] * 6, dense_space())
    with pytest.raises(InputError, match="share no instruction id"):
        compare(base, other, QUICK)
    noise = noise_floor(part, base)
    with pytest.raises(InputError, match="lacks 180 of 240 instructions"):
        compare(base, base, QUICK, noise_floor=noise)


def test_sets_that_are_empty_in_both_runs_are_unchanged_and_named(tmp_path: Path) -> None:
    mask = _base()
    mask[:4] = False
    run = write_run(tmp_path / "r", mask, LABELS, dense_space())
    result = compare(run, run, QUICK, write=False)
    assert (result.alterations["neurons"].jaccard == 1).all()
    assert any("4 instructions have empty sets in both runs" in w for w in result.warnings)
    full = write_run(tmp_path / "full", _base(), LABELS, dense_space())
    result = compare(full, run, QUICK)
    assert any("4 instructions have an empty set in one" in w for w in result.warnings)
    assert (result.alterations["neurons"].jaccard[:4] == 0).all()


def test_a_trajectory_moves_away_step_by_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [_base()]
    for _ in range(3):
        masks.append(masks[-1] ^ (rng.random((240, 600)) < 0.02))
    runs = [write_run(tmp_path / f"step{i}", m, LABELS, dense_space()) for i, m in enumerate(masks)]
    noisy = masks[0] ^ (rng.random((240, 600)) < 0.005)
    noise = noise_floor(runs[0], write_run(tmp_path / "fp32", noisy, LABELS, dense_space()))
    everything = trajectory(runs, QUICK, noise_floor=noise)
    assert runs[-1].store.read_table("trajectory").equals(everything)
    rows = [r for r in everything.to_pylist() if r["figure"] == "overlap"]
    beyond = [r for r in everything.to_pylist() if r["figure"] == "beyond noise floor"]
    assert len(beyond) == len(rows)
    assert all(r["low"] > 0 for r in beyond if r["category"] == "all")
    assert all(r["chance"] < r["low"] for r in rows)
    first = [r["value"] for r in rows if r["against"] == "first" and r["category"] == "all"]
    assert first == sorted(first, reverse=True)
    steps = [r for r in rows if r["against"] == "previous" and r["category"] == "MATH"]
    assert [r["run"] for r in steps] == ["step1", "step2", "step3"]
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)
    with pytest.raises(InputError, match="two runs or more, got 1"):
        trajectory(runs[:1], QUICK)


def test_sign_test_is_exact() -> None:
    gained, lost = np.array([6, 0, 10, 5, 0, 3]), np.array([0, 6, 2, 5, 0, 4])
    found = sign_test(gained, lost)
    np.testing.assert_allclose(found, [2 / 64, 2 / 64, 2 * 79 / 4096, 1.0, 1.0, 1.0])
    pairs = zip(gained[gained + lost > 0], (gained + lost)[gained + lost > 0], strict=True)
    expected = [binomtest(int(k), int(n)).pvalue for k, n in pairs]
    np.testing.assert_allclose(found[gained + lost > 0], expected)
