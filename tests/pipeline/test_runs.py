"""Runs: exactly once, whatever the actors and their order; folders that exist."""

from pathlib import Path

import numpy as np
import pytest
from tiny_run_files import ROWS, all_counts, config_of, parts_of, run_here

from sparcom.errors import InputError
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.run import count
from sparcom.store import Run


def test_a_run_holds_every_instruction_once_with_its_tokens(whole: Path) -> None:
    run = Run(whole)
    counted = all_counts(whole)
    assert counted.ids == run.sets.ids == tuple(row["id"] for row in ROWS)
    assert counted.tokens.tolist() == run.labels["n_counted"].to_pylist()
    assert counted.neurons.shape == (20, run.space.neurons)
    assert 0.2 < (counted.neurons > 0).mean() < 1.0
    assert (counted.neurons <= counted.tokens[:, None]).all()
    assert run.manifest["tokens"] == counted.tokens.sum()
    assert run.manifest["status"] == "complete"
    assert run.manifest["engine"]["threads"] == 1


def test_two_actors_and_any_order_of_parts_give_the_same_bytes(work, whole, tmp_path) -> None:
    expected = parts_of(whole)
    assert len(expected) == 10
    assert run_here(config_of(work, tmp_path / "reversed"), [3, 0, 4, 2, 1]) == expected
    count(config_of(work, tmp_path / "two", actors=2))
    assert parts_of(tmp_path / "two") == expected


def test_a_resumed_run_keeps_the_size_of_its_parts(work, tmp_path) -> None:
    free = config_of(work, tmp_path / "run", part_size=None)
    assert prepare(config_of(work, tmp_path / "run")).parts == 5
    assert prepare(free, resume=True).todo == [0, 1, 2, 3, 4]
    plan = prepare(free, overwrite=True)
    assert (plan.parts, plan.manifest["config"]["part_size"]) == (1, 128)
    assert prepare(free, resume=True).parts == 1


@pytest.mark.parametrize(
    "changes", [{"part_size": 7}, {"part_size": 100}, {"slots": 1}, {"verify": True}]
)
def test_parts_slots_and_verifying_change_no_count(work, whole, tmp_path, changes) -> None:
    run_here(config_of(work, tmp_path / "run", **changes))
    ours, expected = all_counts(tmp_path / "run"), all_counts(whole)
    assert ours.ids == expected.ids
    np.testing.assert_array_equal(ours.neurons, expected.neurons)


def test_batch_tokens_change_no_count_in_bfloat16(work, whole, tmp_path) -> None:
    """Rows of a pass change how a matrix product is split up; bf16 rounds that away on this CPU
    path, which is what makes the whole run reproducible there."""
    expected = all_counts(whole).neurons
    for rows in (32, 256):
        run_here(config_of(work, tmp_path / str(rows), batch_tokens=rows))
        np.testing.assert_array_equal(all_counts(tmp_path / str(rows)).neurons, expected)


def test_batch_tokens_flip_only_signs_near_zero_in_float32(work, tmp_path) -> None:
    counts = []
    for rows in (32, 256):
        run_here(config_of(work, tmp_path / str(rows), batch_tokens=rows, dtype="float32"))
        counts.append(all_counts(tmp_path / str(rows)))
    np.testing.assert_array_equal(counts[0].tokens, counts[1].tokens)
    flipped = np.abs(counts[0].neurons - counts[1].neurons)
    assert flipped.max() <= 1
    assert flipped.sum() <= 1e-4 * counts[0].tokens.sum() * counts[0].neurons.shape[1]


def test_fewer_counted_tokens_are_the_first_ones(work, tmp_path) -> None:
    run_here(config_of(work, tmp_path / "run", max_tokens=3))
    counted = all_counts(tmp_path / "run")
    assert (counted.tokens == 3).all()
    assert (counted.neurons <= 3).all()


# -- selecting again ------------------------------------------------------------------------------


def test_an_existing_folder_is_left_alone_unless_told(work, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    config = config_of(work, tmp_path / "mine")
    with pytest.raises(InputError, match="exists already; finish it with --resume"):
        prepare(config)
    with pytest.raises(InputError, match="not a run"):
        prepare(config, overwrite=True)
    with pytest.raises(InputError, match="not a run"):
        prepare(config, resume=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_overwriting_replaces_every_file(work, tmp_path) -> None:
    config = config_of(work, tmp_path / "run")
    run_here(config)
    plan = prepare(config_of(work, tmp_path / "run", part_size=10), overwrite=True)
    assert plan.todo == [0, 1]
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"run.json", "corpus.parquet"}


# -- selecting again ------------------------------------------------------------------------------
