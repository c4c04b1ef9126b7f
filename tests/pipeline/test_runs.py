"""The pipeline: exactly once, whatever the actors, their order, failures and restarts."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pipeline_helpers import is_complete, results_of
from store_helpers import stored_table
from tiny_runs import POISON, records, save_tiny_llm, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig, flag
from sparcom.counting.counted import Counted
from sparcom.errors import CountError, InputError, SparcomError
from sparcom.pipeline import run as run_module
from sparcom.pipeline.actor import CountActor, PartResult
from sparcom.pipeline.identify import identify
from sparcom.pipeline.plan import Plan, prepare
from sparcom.pipeline.ray import pool as pool_module
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count
from sparcom.selection.sets import Sets
from sparcom.store import (
    CellRule,
    Run,
    RunLock,
    RunStore,
    Span,
    concat_counted,
    part_profile,
)
from sparcom.store.profiles.merge import write_profile

ROWS = records(20)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a corpus of 20 instructions."""
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """One local Ray with room for two actors, for all tests of this file."""
    with ray_session(RunConfig(actors=2, cpus=1)):
        yield


def config_of(work: Path, out: Path, **changes: object) -> RunConfig:
    values = {
        "model": str(work / "model"), "corpus": str(work / "corpus.jsonl"), "out": str(out),
        "cpus": 1, "part_size": 4, "batch_tokens": 64, "slots": 4,
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def run_here(config: RunConfig, parts: Sequence[int] | None = None) -> dict[str, bytes]:
    """A run without Ray: the plain functions, part by part, in the order given."""
    plan = prepare(config)
    actor = CountActor(plan.work)
    for part in plan.todo if parts is None else parts:
        assert isinstance(actor.count(part), PartResult)
    return parts_of(Path(config.out))


def parts_of(folder: Path) -> dict[str, bytes]:
    """Bytes of every counts and sets file."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for name in ("counts", "sets")
        for p in (folder / name).glob("*.parquet")
    }


def all_counts(folder: Path) -> Counted:
    return concat_counted([counted for _, counted in RunStore(folder).results.counts()])


@pytest.fixture(scope="module")
def whole(work: Path, ray_local: None) -> Path:
    """A run on one actor of Ray."""
    summary = count(config_of(work, work / "whole"))
    assert (summary.instructions, summary.failed) == (20, 0)
    return work / "whole"


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


# -- resuming -------------------------------------------------------------------------------------


def test_resuming_counts_what_is_missing_and_nothing_else(work, tmp_path, ray_local) -> None:
    config = config_of(work, tmp_path / "run")
    expected = run_here(config)
    (tmp_path / "run/sets/part-00002.parquet").unlink()
    (tmp_path / "run/counts/part-00002.parquet").write_bytes(b"half a file")
    kept = tmp_path / "run/sets/part-00001.parquet"
    os.utime(kept, (1, 1))
    summary = count(config, resume=True)
    assert parts_of(tmp_path / "run") == expected
    assert kept.stat().st_mtime == 1
    assert summary.prompt_tokens == sum(
        len(p.token_ids) for p in RunStore(config.out).corpus.prompts(2)[0]
    )
    manifest = Run(tmp_path / "run").manifest
    assert manifest["status"] == "complete"
    assert is_complete(count(config, resume=True))  # nothing left to do
    assert Run(tmp_path / "run").manifest == manifest


@pytest.mark.parametrize("harm", [lambda file: file.write_bytes(b"half"), Path.unlink])
def test_a_complete_run_is_not_while_it_is_repaired(
    work, whole, tmp_path, monkeypatch, harm
) -> None:
    """A driver is killed just before it deletes what is damaged."""
    run = shutil.copytree(whole, tmp_path / "run")
    harm(run / "sets/part-00002.parquet")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparcom.pipeline.plan.drop_bad_files", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(work, run), resume=True)
    assert Run(run).manifest["status"] == "running"


def test_a_run_whose_corpus_is_damaged_is_not_resumed(work, whole, tmp_path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    data = (run / "corpus.parquet").read_bytes()
    (run / "corpus.parquet").write_bytes(data[:4] + bytes(60) + data[64:])
    before = (run / "run.json").read_bytes()
    with pytest.raises(SparcomError, match="corpus.parquet: not readable .*start again with"):
        count(config_of(work, run), resume=True, check=True)
    assert (run / "run.json").read_bytes() == before


def test_a_profile_that_lacks_instructions_is_not_complete(work, tmp_path) -> None:
    """The profile of part 0, written as if it covered all parts."""
    config = config_of(work, tmp_path / "run")
    run_here(config)
    store = RunStore(tmp_path / "run")
    (files,) = (files for files in store.stamped() if files.folder == "profiles")
    write_profile(files, Span(0, 5), files.read(Span(0, 1)))
    with pytest.raises(SparcomError, match="expected 20 instructions, got 4 and 0 .*--resume"):
        count(config, resume=True)
    assert Run(tmp_path / "run").manifest["status"] == "stopped"


@pytest.mark.parametrize("folder", ["counts", "sets", "profiles"])
def test_a_file_in_the_place_of_another_part_is_counted_again(
    work, whole, tmp_path, folder: str, ray_local
) -> None:
    """Readers refuse it by name; resuming counts its part again, and the results are the same."""
    run = tmp_path / "run"
    config = config_of(work, run)
    run_here(config)
    files = run / folder
    (files / "part-00002.parquet").write_bytes((files / "part-00001.parquet").read_bytes())
    store = RunStore(run)
    read = {
        "counts": lambda: list(store.results.counts()),
        "sets": lambda: Run(run).sets,
        "profiles": lambda: store.profiles.read(("category",), ()),
    }[folder]
    with pytest.raises(SparcomError, match=f"{folder}/part-00002.parquet: holds the parts 1-1"):
        read()
    count(config, resume=True)
    assert results_of(run) == results_of(whole)


def test_a_foreign_corpus_is_refused(work, whole, tmp_path) -> None:
    run, other = shutil.copytree(whole, tmp_path / "run"), tmp_path / "other"
    run_here(config_of(work, other, limit=2))
    shutil.copy(other / "corpus.parquet", run / "corpus.parquet")
    for use in (lambda: Run(run), lambda: count(config_of(work, run), resume=True)):
        with pytest.raises(SparcomError, match="corpus.parquet: written by another run"):
            use()


def test_a_part_that_is_lost_from_a_complete_run_is_missed(whole, tmp_path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "sets/part-00003.parquet").unlink()
    with pytest.raises(SparcomError, match="sets: part 3 is missing, though the run was complete"):
        Run(run)


def test_the_error_that_ended_a_run_is_the_one_that_is_raised(work, tmp_path, monkeypatch) -> None:
    def failing(error: Exception) -> Callable:
        def fail(*_: object) -> None:
            raise error

        return fail

    monkeypatch.setattr("sparcom.pipeline.run._count", failing(CountError("3 is not 4")))
    monkeypatch.setattr("sparcom.pipeline.run.write_facts", failing(OSError("no connection")))
    with pytest.raises(CountError, match="3 is not 4"):
        count(config_of(work, tmp_path / "run"))


def edit_corpus(work: Path, folder: Path) -> dict:
    rows = [{**row} for row in ROWS]
    rows[7]["instruction"] += " more"
    return {"corpus": str(write_corpus(folder / "corpus.jsonl", rows))}


def relabel_corpus(work: Path, folder: Path) -> dict:
    text = (work / "corpus.jsonl").read_text()
    (folder / "c.jsonl").write_text(text.replace('"QA"', '"SUM"'))
    return {"corpus": str(folder / "c.jsonl")}


def other_model(work: Path, folder: Path) -> dict:
    return {"model": str(save_tiny_llm(folder / "model", rms_norm_eps=1e-3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "top:0.2"}, r"rule \('top:0.01' -> 'top:0.2'\)"),
        ({"batch_tokens": 32}, r"batch_tokens \(64 -> 32\)"),
        ({"dtype": "float32", "part_size": 5}, r"dtype .*; part_size \(4 -> 5\)"),
        ({"scope": "prompt"}, r"scope .*; the corpus, its labels or its tokens"),
        ({"template": "plain"}, r"template .*; the corpus, its labels or its tokens"),
        ({"cpus": 3}, r"the threads of an actor \(1 -> 3, by --cpus\)"),
        ({"limit": 2}, r"limit \(None -> 2\)"),
        (edit_corpus, "the corpus, its labels or its tokens"),
        (relabel_corpus, "the corpus, its labels or its tokens"),
        (other_model, "the model's weights"),
    ],
)
def test_a_changed_run_is_not_resumed(work, tmp_path, change, message) -> None:
    prepare(config_of(work, tmp_path / "run"))
    before = (tmp_path / "run/run.json").read_bytes()
    changes = change if isinstance(change, dict) else change(work, tmp_path)
    with pytest.raises(InputError, match=f"cannot be resumed, since this has changed: .*{message}"):
        prepare(config_of(work, tmp_path / "run", **changes), resume=True)
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_what_changes_no_count_may_change_on_resuming(work, tmp_path) -> None:
    prepare(config_of(work, tmp_path / "run"))
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((work / "corpus.jsonl").read_bytes())
    config = config_of(work, tmp_path / "run", actors=2, slots=2, corpus=str(moved), verify=True)
    plan = prepare(replace(config, cpus=None), resume=True)
    assert plan.todo == [0, 1, 2, 3, 4]
    assert plan.config.cpus == plan.work.options.threads == 1  # as before, on any machine


def dated_model(folder: Path) -> str:
    """A model whose chat template writes the date, as those of Llama 3.2 and Mistral Small do."""
    model = save_tiny_llm(folder / "model")
    chat = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[-1]['content'] }}"
    (model / "chat_template.jinja").write_text(chat)
    return str(model)


def test_a_run_keeps_the_day_on_which_it_was_created(work, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sparcom.pipeline.plan.today", lambda: "2024-02-29")
    config = config_of(work, tmp_path / "run", model=dated_model(tmp_path))
    first = prepare(config)
    assert first.manifest["config"]["date"] == "2024-02-29"
    monkeypatch.setattr("sparcom.pipeline.plan.today", lambda: "2024-03-01")
    resumed = prepare(config, resume=True)  # after midnight
    assert resumed.manifest["corpus"] == first.manifest["corpus"]
    assert resumed.manifest["config"]["date"] == "2024-02-29"
    with pytest.raises(InputError, match=r"date \('2024-02-29' -> '2024-03-01'\); the corpus, its"):
        prepare(replace(config, date="2024-03-01"), resume=True)
    other = prepare(replace(config, out=str(tmp_path / "next")))
    assert other.manifest["corpus"]["hash"] != first.manifest["corpus"]["hash"]
    same = prepare(replace(config, out=str(tmp_path / "same"), date="2024-02-29"))
    assert same.manifest["stamps"] == first.manifest["stamps"]  # two days made comparable


def test_the_day_changes_no_stamp_if_the_template_writes_none(work, tmp_path) -> None:
    stamps = [
        prepare(config_of(work, tmp_path / day, date=day)).manifest["stamps"]
        for day in ("2024-02-29", "2025-01-01")
    ]
    assert stamps[0] == stamps[1]


def test_a_part_of_another_kind_of_engine_stops_the_run_and_is_not_done(
    work, tmp_path, monkeypatch, ray_local
) -> None:
    config, real = config_of(work, tmp_path / "run"), run_module.count_parts
    alike = 1  # so many parts come as they are; on resuming, none: one may be all that is left

    def mixed(plan: Plan) -> Iterator[PartResult]:
        for number, result in enumerate(real(plan)):
            other = replace(result, engine={**result.engine, "device": "cuda"})
            yield result if number < alike else other

    monkeypatch.setattr(run_module, "count_parts", mixed)
    with pytest.raises(SparcomError, match=r"came from an actor with device 'cuda' after 'cpu'"):
        count(config)
    alike = 0
    with pytest.raises(SparcomError, match=r"with device 'cuda' after 'cpu'"):
        count(config, resume=True)
    monkeypatch.undo()
    assert is_complete(count(config, resume=True))
    whole = count(config_of(work, tmp_path / "whole"))
    assert is_complete(whole)
    assert results_of(tmp_path / "run") == results_of(tmp_path / "whole")


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


# -- failures in actors ---------------------------------------------------------------------------


def poisoned(folder: Path, at: Sequence[int]) -> Path:
    rows = [{**row} for row in ROWS]
    for k in at:
        rows[k]["instruction"] += POISON
    return write_corpus(folder / "poisoned.jsonl", rows)


BAD = (1, 2, 13)


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
