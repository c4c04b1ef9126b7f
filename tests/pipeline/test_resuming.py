"""Resuming: what is missing or damaged is counted again, and a changed run is refused."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_helpers import is_complete, results_of
from tiny_run_files import ROWS, config_of, parts_of, run_here
from tiny_runs import save_tiny_llm, write_corpus

from sparcom.errors import CountError, InputError, SparcomError
from sparcom.pipeline import run as run_module
from sparcom.pipeline.actor import PartResult
from sparcom.pipeline.plan import Plan, prepare
from sparcom.pipeline.run import count
from sparcom.store import Run, RunStore, Span
from sparcom.store.profiles.merge import write_profile


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
