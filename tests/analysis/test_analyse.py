import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from planted import (
    CATEGORIES,
    dense_space,
    draw_sets,
    mixed_space,
    planted_prevalence,
    write_run,
)
from store_helpers import MOE

from sparcom.analysis.analyse import Analysis, analyse
from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.data.load import load
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.stats.estimate import Estimate
from sparcom.errors import InputError
from sparcom.store import Run

QUICK = AnalysisOptions(permutations=99, bootstraps=50, small_draws=20)
CODES = np.arange(240) % 6
LABELS = [CATEGORIES[code] for code in CODES]


def _planted(seed: int = 0) -> np.ndarray:
    q = planted_prevalence(CATEGORIES, 600)
    q[q == 0.5] = 0.8
    return draw_sets(q, CODES, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Analysis]:
    run = write_run(tmp_path_factory.mktemp("planted"), _planted(), LABELS, dense_space(),
                    retain="counts")  # fmt: skip
    return run, analyse(run, QUICK)


def _estimates(value: object) -> list[Estimate]:
    """Every Estimate anywhere inside a result."""
    if isinstance(value, Estimate):
        return [value]
    if is_dataclass(value):
        return [e for f in fields(value) for e in _estimates(getattr(value, f.name))]
    if isinstance(value, dict):
        return [e for item in value.values() for e in _estimates(item)]
    if isinstance(value, tuple | list):
        return [e for item in value for e in _estimates(item)]
    return []


def _assert_no_silent_nan(result: Analysis) -> None:
    found = _estimates(result)
    for item in found:
        for f in fields(item):
            assert getattr(item, f.name) is None or np.isfinite(getattr(item, f.name))
    for name, table in result.tables.items():
        for column in table.column_names:
            values = table[column].combine_chunks()
            if str(values.type) in ("float", "double"):
                assert not np.isnan(values.drop_null().to_numpy()).any(), (name, column)


def test_planted_components_are_recovered_exactly(planted: tuple[Run, Analysis]) -> None:
    result = planted[1].components["neurons"]
    np.testing.assert_array_equal(np.flatnonzero(result.generality.general), np.arange(20))
    assert result.test.specific.sum(1) == pytest.approx([15] * 6, abs=2)
    for c, name in enumerate(CATEGORIES):
        block = np.arange(20 + 15 * c, 35 + 15 * c)
        assert result.test.specific[c, block].all(), name
        assert result.test.enriched[c, block].all(), name
    assert [(c.found_in, c.tested_in) for c in result.confirmations] == [
        ("ai", "human"), ("human", "ai")
    ]  # fmt: skip
    confirmed = planted[1].tables["confirmations_neurons"].to_pylist()
    assert all(row["confirmed"] <= row["discovered"] for row in confirmed)
    assert {row["clusters"] for row in confirmed} == {5, None}  # of all categories, no number


def test_the_sentence_can_be_written(planted: tuple[Run, Analysis]) -> None:
    first = planted[1].tables["specific_neurons"].to_pylist()[0]
    assert first["q"] < 0.05
    others = [first[f"frequency_{name}"] for name in CATEGORIES if name != first["category"]]
    assert first[f"frequency_{first['category']}"] > 0.5 > max(others) + 0.1
    assert first["low"] < first["difference"] < first["high"]
    assert first["gap"] > 0.1 > 0.05 >= first["gap_q"]
    assert {"layer", "kind", "expert", "unit", "category"} <= set(first)


def test_pair_statistics_see_the_categories(planted: tuple[Run, Analysis]) -> None:
    overlap = planted[1].overlaps["neurons"]
    effects = overlap.effects
    found = (effects.adjusted, effects.between, *(s.effect for s in overlap.sources))
    for effect in found:
        assert effect.low > 0
        assert effect.chance == pytest.approx(0, abs=0.003)
        assert effect.p <= 0.05
    assert effects.explained.value == pytest.approx(0, abs=0.1)
    values = pair_matrix(intersections(planted[0].sets.neurons))
    rows, columns = np.triu_indices(240, 1)
    alike = CODES[rows] == CODES[columns]
    pairs = values[rows, columns]
    assert effects.raw.value == pytest.approx(pairs[alike].mean() - pairs[~alike].mean())
    assert np.diagonal(overlap.matrix.mean).min() > effects.raw.value
    assert (overlap.corrected.mean < overlap.matrix.mean).all()
    assert (overlap.chance_prevalence.mean > overlap.chance.mean).all()
    assert len(overlap.by_layer) == 3
    assert overlap.by_layer[0].effect.value > overlap.by_layer[2].effect.value
    assert overlap.superiority.value > 0.6
    assert overlap.superiority.low > overlap.superiority.chance_high > 0.5 - 0.05
    cells = overlap.adjusted
    assert all(cells[c][c].p <= 0.05 and cells[c][c].value > cells[c][c].chance for c in range(6))
    across = overlap.sources[1]
    assert across.estimates[0][1].value < across.estimates[0][0].value


def test_tables_are_stored_and_read_back(planted: tuple[Run, Analysis]) -> None:
    run, result = planted
    for name, table in result.tables.items():
        stored = run.store.read_table(name)
        assert stored.equals(table), name
    sizes = result.tables["set_sizes"].to_pylist()[0]
    assert (sizes["nominal"], sizes["components"]) == (6, 600)
    assert sizes["mean"] == pytest.approx(_planted().sum(1).mean())


def test_nothing_is_silently_nan_and_the_same_run_gives_the_same_figures(
    planted: tuple[Run, Analysis],
) -> None:
    run, result = planted
    _assert_no_silent_nan(result)
    again = analyse(run, QUICK, write=False)
    assert _estimates(again) == _estimates(result)


def test_permuted_labels_leave_nothing(tmp_path: Path) -> None:
    labels = list(np.random.default_rng(1).permutation(LABELS))
    run = write_run(tmp_path / "r", _planted(), labels, dense_space(), retain="counts")
    result = analyse(run, QUICK)
    assert result.overlaps["neurons"].effects.adjusted.p > 0.01
    assert result.components["neurons"].test.specific.sum() <= 1
    assert (result.components["neurons"].generality.unique_counts() == 0).all()


def test_every_kind_of_site_is_a_family(tmp_path: Path) -> None:
    space = mixed_space()
    rng = np.random.default_rng(0)
    mask = rng.random((240, space.neurons)) < 0.3
    experts = rng.random((240, space.experts)) < 0.3
    experts[CODES == 2, 4] = True
    experts[CODES != 2, 4] = False
    run = write_run(tmp_path / "r", mask, LABELS, space, experts=experts, retain="counts")
    result = analyse(run, QUICK)
    assert result.components["experts"].lape.selected.shape == (6, 10)
    assert list(result.overlaps) == ["neurons", "dense", "routed", "shared", "experts"]
    assert result.components["experts"].generality.unique[4] == 2
    assert result.components["experts"].test.specific[2].sum() == 1
    routed = result.overlaps["routed"].histogram
    per_site = mask[:, 37:82].sum(1).mean()
    assert routed.mean[:, 0].mean() == pytest.approx(per_site, rel=1e-12)
    _assert_no_silent_nan(result)


def test_a_sample_of_pairs_beyond_the_limit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), retain="counts")
    options = replace(QUICK, pair_limit=100, pair_sample=60)
    result = analyse(run, options, write=False)
    whole = analyse(run, QUICK, write=False)
    assert (result.paired, result.instructions) == (60, 240)
    assert any("sample of 60 of 240" in w for w in result.warnings)
    exact = whole.overlaps["neurons"].effects.between.value
    sampled = result.overlaps["neurons"].effects.between
    assert sampled.low < exact < sampled.high
    np.testing.assert_array_equal(
        result.components["neurons"].test.q, whole.components["neurons"].test.q
    )


def test_one_category_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", _planted()[:30], ["QA"] * 30, dense_space(), retain="counts")
    result = analyse(run, QUICK)
    assert any("one category only" in w for w in result.warnings)
    assert any("LAPE rule needs two categories" in w for w in result.warnings)
    assert result.overlaps["neurons"].effects.raw.value is None
    assert result.overlaps["neurons"].distributions is None
    assert result.components["neurons"].test is None
    _assert_no_silent_nan(result)


def test_one_instruction_in_a_category(tmp_path: Path) -> None:
    labels = ["QA"] * 30 + ["SUM"]
    result = analyse(write_run(tmp_path / "r", _planted()[:31], labels, dense_space()), QUICK)
    assert any("category SUM has 1 instruction" in w for w in result.warnings)
    assert result.overlaps["neurons"].estimates[1][1] == Estimate(None)
    assert result.tables["category_matrix"]["value"].null_count == 1
    _assert_no_silent_nan(result)


def test_two_instructions(tmp_path: Path) -> None:
    labels = ["QA", "SUM"]
    result = analyse(write_run(tmp_path / "r", _planted()[:2], labels, dense_space()), QUICK)
    assert result.overlaps["neurons"].effects.raw.value is None
    assert result.overlaps["neurons"].reliability is None
    _assert_no_silent_nan(result)


def test_empty_sets_are_left_out_and_named(tmp_path: Path) -> None:
    mask = _planted()
    mask[[3, 9]] = False
    result = analyse(write_run(tmp_path / "r", mask, LABELS, dense_space()), QUICK)
    assert any("2 of 240 sets are empty (GEN-0003, GEN-0009)" in w for w in result.warnings)
    assert result.overlaps["neurons"].instructions == 238
    _assert_no_silent_nan(result)
    nothing = write_run(tmp_path / "e", mask & False, LABELS, dense_space())
    result = analyse(nothing, QUICK)
    assert result.overlaps == {}
    assert any("fewer than two non-empty sets" in w for w in result.warnings)
    assert any("retains no counts, so that no component can be tested" in w
               for w in result.warnings)  # fmt: skip
    _assert_no_silent_nan(result)


def test_equal_sets_everywhere(tmp_path: Path) -> None:
    mask = np.tile(np.arange(600) < 30, (240, 1))
    result = analyse(write_run(tmp_path / "r", mask, LABELS, dense_space()), QUICK)
    assert any("all pairs overlap alike" in w for w in result.warnings)
    effects = result.overlaps["neurons"].effects
    assert effects.raw.value == pytest.approx(0, abs=1e-12)
    assert effects.adjusted.value == pytest.approx(0, abs=1e-6)
    assert effects.adjusted.p == 1
    assert effects.adjusted.low is None
    _assert_no_silent_nan(result)


def test_a_truncated_run_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), status="running",
                    skip=range(64, 240))  # fmt: skip
    result = analyse(run, QUICK)
    assert any("64 of 240 instructions are counted; finish it" in w for w in result.warnings)
    assert result.instructions == 64
    done = write_run(tmp_path / "d", _planted(), LABELS, dense_space(), skip=[5])
    assert any("1 of 240 instructions were set aside" in w for w in analyse(done, QUICK).warnings)
    none = write_run(tmp_path / "n", _planted(), LABELS, dense_space(), status="stopped",
                     skip=range(240))  # fmt: skip
    with pytest.raises(InputError, match="no profile in this run; is it complete"):
        analyse(none, QUICK)


def test_a_source_without_a_set_of_a_family_is_left_out(tmp_path: Path) -> None:
    """The expert sets of the two instructions of one source are empty."""
    labels, rng = [("QA", "SUM")[k % 2] for k in range(8)], np.random.default_rng(0)
    experts = np.ones((8, MOE.experts), bool)
    experts[6:] = False
    run = write_run(tmp_path / "r", rng.random((8, MOE.neurons)) < 0.4, labels, MOE,
                    experts=experts)  # fmt: skip
    found = analyse(run, QUICK).overlaps
    assert [(s.first, s.second) for s in found["experts"].sources] == [("human", "human")]
    assert len(found["neurons"].sources) == 3


def test_lengths_that_do_not_overlap_are_confessed(tmp_path: Path) -> None:
    tokens = 10 * 2**CODES + np.arange(240) // 6 % 3
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), tokens=tokens,
                    retain="counts")  # fmt: skip
    result = analyse(run, QUICK)
    assert any("cannot be told from length and source" in w for w in result.warnings)
    assert any(w.startswith("category SUM: only 0%") for w in result.warnings)
    assert result.overlaps["neurons"].effects.adjusted.value is None
    test = result.components["neurons"].test
    assert not test.determined.any()
    assert np.isnan(test.q).all()
    assert not test.specific.any()
    assert not test.enriched.any()
    _assert_no_silent_nan(result)


def test_an_equal_t_run_says_who_is_shorter(tmp_path: Path) -> None:
    tokens, config = np.full(240, 12), {"max_tokens": 12}
    equal = write_run(tmp_path / "e", _planted(), LABELS, dense_space(), tokens=tokens,
                      config=config)  # fmt: skip
    result = analyse(equal, QUICK)
    assert not any("shorter" in w for w in result.warnings)
    effects = result.overlaps["neurons"].effects
    assert effects.by_length.value == pytest.approx(effects.between.value, rel=1e-4)
    assert effects.explained_by_length.value == pytest.approx(0, abs=1e-4)
    tokens[:7] = 9
    short = write_run(tmp_path / "s", _planted(), LABELS, dense_space(), tokens=tokens,
                      config=config)  # fmt: skip
    assert any("7 of 240 instructions are shorter than the 12" in w
               for w in analyse(short, QUICK).warnings)  # fmt: skip


def test_a_run_that_retains_its_profile_alone_keeps_its_components(tmp_path: Path) -> None:
    tokens = np.random.default_rng(3).integers(5, 90, 240)
    runs = [
        write_run(tmp_path / name, _planted(), LABELS, dense_space(), retain=name, tokens=tokens)
        for name in ("sets", "profile")
    ]
    whole, thin = (analyse(run, QUICK) for run in runs)
    assert thin.overlaps == {}
    assert any("retains only its profile" in w for w in thin.warnings)
    assert not thin.tables["set_sizes"].num_rows
    for table in ("components_neurons", "prevalence_matrix"):
        assert thin.tables[table].equals(whole.tables[table]), table
    comparable = [result.tables["categories"]["comparable"] for result in (thin, whole)]
    assert comparable[0].equals(comparable[1])
    assert thin.components["neurons"].lape.selected.any()
    _assert_no_silent_nan(thin)


def test_a_profile_of_other_sets_or_none_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space())
    other = write_run(tmp_path / "o", _planted(), LABELS[::-1], dense_space(),
                      stamped=tmp_path / "r")  # fmt: skip
    shutil.rmtree(tmp_path / "r" / "profiles")
    with pytest.raises(InputError, match="no profile in this run; is it complete"):
        analyse(run, QUICK)
    shutil.copytree(tmp_path / "o" / "profiles", tmp_path / "r" / "profiles")
    assert other.store.profiles.ids()
    with pytest.raises(InputError, match="its profile sums over other instructions or lengths"):
        analyse(run, QUICK)


def test_sets_of_a_part_whose_profile_was_not_written_are_left_out(tmp_path: Path) -> None:
    """As a run that was killed in between leaves them."""
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), status="running",
                    retain="counts")  # fmt: skip
    (tmp_path / "r/profiles/part-00001.parquet").unlink()
    loaded = load(run, QUICK)
    kept = [name for name in run.sets.ids if not 64 <= int(name[-4:]) < 128]
    assert list(loaded.labels.ids) == kept
    mask = _planted()[[int(name[-4:]) for name in kept]]
    np.testing.assert_array_equal(loaded.bits["neurons"], pack(mask))
    np.testing.assert_array_equal(loaded.sizes["neurons"][:, 0], mask.sum(1))
    np.testing.assert_array_equal(loaded.memberships["neurons"].totals(), mask.sum(0))
    assert any("176 of 240 instructions are counted" in w for w in analyse(run, QUICK).warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_difference": 1}, "least_difference: expected 0 <= difference < 1, got 1"),
        ({"alpha": 0}, "alpha: expected between 0 and 1, got 0"),
        ({"low": 0.6}, "expected 0 <= low < high <= 1, got 0.6, 0.5"),
        ({"permutations": 0}, "permutations: must be from 1 to 1000000, got 0"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnalysisOptions(**options)


@pytest.mark.parametrize("retain", ["sets", "counts"])
def test_lengths_are_the_counted_tokens_with_what_was_written(tmp_path: Path, retain: str) -> None:
    written = np.arange(240) // 6 % 2 * 40
    config = {"generate": 40, "scope": "all"}
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), written=written,
                    config=config, retain=retain)  # fmt: skip
    loaded = load(run, QUICK)
    labels, lengths = loaded.labels, loaded.strata.lengths_of
    assert labels.tokens.tolist() == (np.arange(240) % 17 + 8 + written).tolist()
    assert set(lengths[written > 0]).isdisjoint(lengths[written == 0])
    assert run.labels["n_counted"].to_pylist() == labels.tokens.tolist()


def test_a_profile_alone_knows_the_lengths_of_answers(tmp_path: Path) -> None:
    written, config = np.arange(240) // 6 % 2 * 40, {"generate": 40}
    runs = [
        write_run(tmp_path / name, _planted(), LABELS, dense_space(), written=written,
                  config=config, retain=name)
        for name in ("sets", "profile")
    ]  # fmt: skip
    whole, thin = (analyse(run, QUICK) for run in runs)
    for table in ("components_neurons", "prevalence_matrix"):
        assert thin.tables[table].equals(whole.tables[table]), table
    comparable = [result.tables["categories"]["comparable"] for result in (thin, whole)]
    assert comparable[0].equals(comparable[1])
    assert not any("generated tokens" in w for w in thin.warnings)


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_a_profile_by_the_lengths_of_prompts_says_so(tmp_path: Path, retain: str) -> None:
    """As older versions wrote it."""
    tokens = np.arange(240) % 17 + 8
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), tokens=tokens,
                    written=np.where(CODES == 0, 30, 0), retain=retain)  # fmt: skip
    plain = write_run(tmp_path / "p", _planted(), LABELS, dense_space(), tokens=tokens,
                      stamped=tmp_path / "r")  # fmt: skip
    shutil.rmtree(tmp_path / "r/profiles")
    shutil.copytree(tmp_path / "p/profiles", tmp_path / "r/profiles")
    run.manifest["config"]["generate"] = 30
    loaded = load(run, QUICK)
    assert any("generated tokens are not controlled" in w for w in loaded.warnings)
    expected = load(plain, QUICK).strata
    assert loaded.strata.codes.tolist() == expected.codes.tolist()


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_a_stopped_run_is_of_what_was_counted(tmp_path: Path, retain: str) -> None:
    run = write_run(tmp_path / "r", _planted(), LABELS, dense_space(), status="running",
                    skip=range(64, 240), retain=retain)  # fmt: skip
    assert run.labels["id"].to_pylist() == run.store.corpus.table(["id"])["id"].to_pylist()[:64]
    assert any("64 of 240 instructions are counted" in w for w in analyse(run, QUICK).warnings)
