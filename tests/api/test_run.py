"""A stored run as NumPy and Arrow: it reads as what was planted in it."""

import numpy as np
import pytest
from planted import CATEGORIES, mixed_space, write_run

from sparcom import InputError, Run, analyse, read_components, write_components

SPACE = mixed_space()
LABELS = [CATEGORIES[i % 6] for i in range(60)]
RNG = np.random.default_rng(0)
MEMBERS = RNG.random((60, SPACE.neurons)) < 0.3
EXPERTS = RNG.random((60, SPACE.experts)) < 0.4
TOKENS = RNG.integers(5, 30, 60)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "run"
    write_run(folder, MEMBERS, LABELS, SPACE, experts=EXPERTS, tokens=TOKENS, retain="counts")
    return Run(folder)


def test_frequencies_of_an_instruction(run: Run) -> None:
    row = 13
    name = run.sets.ids[row]
    np.testing.assert_allclose(run.frequencies(name), MEMBERS[row].astype(float))
    np.testing.assert_allclose(run.expert_frequencies(name), EXPERTS[row].astype(float))
    np.testing.assert_array_equal(run.sets.indices(name), np.flatnonzero(MEMBERS[row]))
    np.testing.assert_array_equal(run.sets.expert_indices(row), np.flatnonzero(EXPERTS[row]))


def test_the_table_of_all_sets_names_every_member(run: Run) -> None:
    table = run.sets.table()
    assert len(table) == MEMBERS.sum() + EXPERTS.sum()
    of = table.filter([name == run.sets.ids[4] for name in table["id"].to_pylist()]).to_pylist()
    neurons = [r for r in of if r["unit"] is not None]
    found = [
        SPACE.neuron_index(
            r["layer"], r["kind"], -1 if r["expert"] is None else r["expert"], r["unit"]
        )
        for r in neurons
    ]
    assert found == np.flatnonzero(MEMBERS[4]).tolist()
    assert len(of) - len(neurons) == EXPERTS[4].sum()


def test_the_profile_by_category(run: Run) -> None:
    assert run.categories == CATEGORIES
    profile = run.profile(by="category")
    names = profile.keys["category"].to_pylist()
    for row, name in enumerate(names):
        of = np.array(LABELS) == name
        np.testing.assert_allclose(profile.prevalence[row], MEMBERS[of].mean(0), rtol=1e-6)
        weighted = (MEMBERS[of] * TOKENS[of, None]).sum(0) / TOKENS[of].sum()
        np.testing.assert_allclose(profile.frequency[row], weighted, rtol=1e-6)
        np.testing.assert_allclose(profile.expert_prevalence[row], EXPERTS[of].mean(0), rtol=1e-6)
    assert run.profile(by=("category", "source")).keys.num_rows == 12


def test_tables_are_there_once_they_are_written(run: Run, tmp_path) -> None:
    with pytest.raises(InputError, match="no table 'effects' .there are: none; run sparcom report"):
        run.table("effects")
    analyse(run)
    assert "effects" in run.tables
    assert "figure" in run.table("effects").to_pandas().columns
    with pytest.raises(InputError, match="no table 'effect' .there are: .*effects"):
        run.table("effect")
    listed = run.sets.table().slice(0, 3).drop_columns(["id"])
    write_components(tmp_path / "some.csv", listed)
    again = read_components(tmp_path / "some.csv", run.space)
    np.testing.assert_array_equal(again.neurons, run.sets.indices(0)[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.frequencies("nobody"), "no instruction has the id 'nobody'"),
        (lambda run: run.sets.indices("nobody"), "no instruction has the id 'nobody'"),
        (lambda run: run.sets.indices(60), r"row must be in \[0, 60\), got 60"),
        (lambda run: run.profile(by="kind"), "by must be of category, source, length, fold"),
    ],
)
def test_what_is_not_there_is_named(run: Run, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(run)


def test_without_counts_there_are_no_frequencies(tmp_path) -> None:
    run = write_run(tmp_path / "run", MEMBERS[:6], LABELS[:6], SPACE, experts=EXPERTS[:6])
    with pytest.raises(InputError, match="did not retain its counts"):
        run.frequencies(run.sets.ids[0])
    assert repr(run).endswith("6 instructions, complete)")
