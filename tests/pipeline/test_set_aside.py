"""Instructions and parts that fail, and new sets for what was counted."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store_helpers import stored_table
from tiny_run_files import ROWS, all_counts, config_of, parts_of, run_here
from tiny_runs import POISON, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig, flag
from sparcom.counting.counted import Counted
from sparcom.errors import CountError, InputError, SparcomError
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.identify import identify
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray import pool as pool_module
from sparcom.pipeline.run import count
from sparcom.selection.sets import Sets
from sparcom.store import CellRule, Run, RunLock, RunStore, part_profile

BAD = (1, 2, 13)


def poisoned(folder: Path, at: Sequence[int]) -> Path:
    rows = [{**row} for row in ROWS]
    for k in at:
        rows[k]["instruction"] += POISON
    return write_corpus(folder / "poisoned.jsonl", rows)


# -- selecting again ------------------------------------------------------------------------------


def test_instructions_that_fail_are_set_aside_and_the_run_goes_on(
    work, whole, tmp_path, ray_local, capsys
) -> None:
    """Exit code 1, the bad ones named, and everything of the others as in the undisturbed run."""
    corpus, out = poisoned(tmp_path, BAD), tmp_path / "run"
    config = config_of(work, out, corpus=str(corpus))
    flags = ("model", "corpus", "out", "cpus", "part_size", "batch_tokens", "slots")
    given = [text for f in flags for text in (flag(f), str(getattr(config, f)))]
    assert main(["count", "--json", *given]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["instructions"], summary["failed"]) == (17, 3)
    run, counted = Run(out), all_counts(out)
    assert sorted(f.id for f in run.store.results.failures()) == [f"i{k:02}" for k in BAD]
    assert all("hidden states are not finite" in f.reason for f in run.store.results.failures())
    assert run.labels["id"].to_pylist() == list(counted.ids)
    assert summary["tokens"] == counted.tokens.sum()

    kept = [k for k in range(20) if k not in BAD]
    expected, sets = rows_of(all_counts(whole), kept), rows_of(Run(whole).sets, kept)
    assert_same(counted, expected)
    assert_same(run.sets, sets)
    keys = CellRule.from_json(run.manifest["cells"]).keys(run.labels, expected.tokens)
    profile = part_profile(expected, sets, keys)
    merged = stored_table(run.store, "profiles/parts-00000-00004.parquet")
    assert merged.to_pylist() == profile.to_pylist()


def rows_of(found: Counted | Sets, rows: list[int]) -> Counted | Sets:
    """Some rows of counts or sets."""
    arrays = {name: v[rows] for name, v in vars(found).items() if isinstance(v, np.ndarray)}
    return replace(found, ids=tuple(found.ids[k] for k in rows), **arrays)


def assert_same(ours: Counted | Sets, expected: Counted | Sets) -> None:
    """Equal ids, and every array bit for bit."""
    assert ours.ids == expected.ids
    for name, value in vars(expected).items():
        if name != "ids":
            np.testing.assert_array_equal(getattr(ours, name), value)


def test_a_part_of_which_all_fail_does_not_stop_the_run(work, tmp_path, ray_local) -> None:
    corpus, run = str(poisoned(tmp_path, range(4, 8))), tmp_path / "run"
    with pytest.raises(SparcomError, match="4 instructions were set aside, more than --max-failed"):
        count(config_of(work, run, corpus=corpus, max_failed=3))
    summary = count(config_of(work, run, corpus=corpus, max_failed=4), resume=True)
    assert (summary.instructions, summary.failed) == (16, 4)
    assert sorted(f.id for f in RunStore(run).results.failures()) == ["i04", "i05", "i06", "i07"]


def test_an_instruction_that_fails_again_is_counted_once(work, tmp_path, ray_local) -> None:
    config = config_of(
        work, tmp_path / "run", corpus=str(poisoned(tmp_path, BAD)), max_failed=len(BAD)
    )
    count(config)
    (tmp_path / "run/sets/part-00000.parquet").unlink()
    assert count(config, resume=True).failed == len(BAD)


def test_a_model_that_fails_on_everything_stops_the_run(work, tmp_path, ray_local) -> None:
    corpus = poisoned(tmp_path, range(20))
    message = r"failed on all 20 instructions; .* not finite.*--overwrite"
    with pytest.raises(SparcomError, match=message):
        count(config_of(work, tmp_path / "run", corpus=str(corpus)))
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "stopped"


def test_a_count_error_in_an_actor_stops_the_run_as_itself(tmp_path, work, ray_local, monkeypatch):
    class Miscounting(CountActor):
        def run(self, part: int) -> None:
            raise CountError(f"conservation: layer0.dense saw 3 rows of part {part}")

    monkeypatch.setattr(pool_module, "CountActor", Miscounting)
    with pytest.raises(CountError, match=r"^conservation: layer0.dense saw 3 rows of part \d"):
        count(config_of(work, tmp_path / "run"))
    assert not RunStore(tmp_path / "run").results.parts("counts")


# -- selecting again ------------------------------------------------------------------------------


def test_sets_selected_again_are_those_of_a_run_with_that_rule(work, tmp_path) -> None:
    run_here(config_of(work, tmp_path / "run"))
    summary = identify(str(tmp_path / "run"), rule="top:0.2", ties="exact")
    assert (summary["instructions"], summary["rule"]) == (20, "top:0.2")
    direct = config_of(work, tmp_path / "direct", rule="top:0.2", ties="exact")
    assert run_here(direct) == parts_of(tmp_path / "run")
    assert Run(tmp_path / "run").manifest["selection"]["rule"] == "top:0.2"
    with pytest.raises(InputError, match=r"rule \('top:0.2' -> 'top:0.01'\)"):
        prepare(config_of(work, tmp_path / "run"), resume=True)  # half by one rule, half by another
    assert prepare(direct_to(direct, tmp_path / "run"), resume=True).todo == []


def test_a_stopped_run_gets_new_sets_for_what_is_counted(work, tmp_path, ray_local) -> None:
    """Parts 0, 2 and 3 of five are: no profile may cover part 1, which is counted on resuming."""
    run = tmp_path / "run"
    run_here(config_of(work, run), [0, 2, 3])
    assert identify(str(run), rule="top:0.2")["instructions"] == 12
    assert RunStore(run).done_parts("counts") == {0, 2, 3}
    direct = config_of(work, tmp_path / "direct", rule="top:0.2")
    expected = run_here(direct)
    count(direct_to(direct, run), resume=True)
    assert parts_of(run) == expected
    cells, _ = RunStore(run).profiles.read(("category",), ())
    assert sum(cells["instructions"].to_pylist()) == 20


def test_a_part_that_was_half_written_gets_no_new_sets(work, whole, tmp_path) -> None:
    """Its counts lack instructions, and why they do was not written any more."""
    store = RunStore(shutil.copytree(whole, tmp_path / "run"))
    counted = dict(store.results.counts())[1]
    store.results.write(1, rows_of(counted, [0, 2]), None, [])
    assert identify(store.location, rule="top:0.2")["instructions"] == 16
    assert store.done_parts("counts") == {0, 2, 3, 4}
    assert store.manifest()["status"] == "stopped"


def test_the_manifest_is_read_once_the_run_is_held(work, tmp_path, monkeypatch) -> None:
    run_here(config_of(work, tmp_path / "run"))
    store = RunStore(tmp_path / "run")

    class Waiting(RunLock):
        """Another driver finishes the run meanwhile."""

        def __enter__(self) -> RunLock:
            store.write_manifest({**store.manifest(), "status": "complete"})
            return super().__enter__()

    monkeypatch.setattr("sparcom.pipeline.identify.RunLock", Waiting)
    identify(store.location, rule="top:0.2")
    assert store.manifest()["status"] == "complete"


def direct_to(config: RunConfig, out: Path) -> RunConfig:
    return RunConfig.from_json({**config.to_json(), "out": str(out)})


def test_figures_of_the_sets_that_were_go_with_them(work, tmp_path) -> None:
    run_here(config_of(work, tmp_path / "run"))
    store = RunStore(tmp_path / "run")
    store.write_table("ablation", pa.table({"effect": [1.0]}))
    identify(str(tmp_path / "run"), rule="top:0.2")
    assert not store.files.is_file("analysis/ablation.parquet")


def test_sets_cannot_be_selected_again_without_counts(work, tmp_path) -> None:
    run_here(config_of(work, tmp_path / "run", retain="sets"))
    with pytest.raises(InputError, match="retained no counts, .*--retain counts"):
        identify(str(tmp_path / "run"), rule="top:0.2")
