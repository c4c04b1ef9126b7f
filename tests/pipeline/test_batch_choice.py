"""`--batch-tokens auto`: one number for all actors and sessions of a run, and the counts of it."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.counting.counted import Counted
from sparcom.engines.batch_size import BatchSize
from sparcom.errors import InputError, SparcomError
from sparcom.pipeline import batch_choice
from sparcom.pipeline import plan as plan_module
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.batch_choice import Measuring
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.run import count
from sparcom.store import RunStore, concat_counted

ROWS = records(20)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", ROWS)
    return folder


@pytest.fixture
def long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of these tests pass for long ones, in which measuring pays."""
    monkeypatch.setattr(plan_module, "chosen_before", lambda *_: None)
    monkeypatch.setattr(
        plan_module,
        "_measuring",
        lambda config, _, todo: (
            Measuring(10**9, uuid.uuid4().hex) if config.batch_tokens == "auto" and todo else None
        ),
    )


@pytest.fixture
def choosing_96(long_run: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measuring, in this process, finds 96 rows; gives the number of tokens of each call."""
    calls: list[int] = []

    def choose(engine: object, prompts: object, rows: int, tokens: int) -> BatchSize:
        calls.append(tokens)
        return BatchSize(96, {rows: 10.0, 96: 20.0})

    monkeypatch.setattr(batch_choice, "choose_batch_tokens", choose)
    return calls


def config_of(work: Path, out: Path, **changes: object) -> RunConfig:
    values = {
        "model": str(work / "model"), "corpus": str(work / "corpus.jsonl"), "out": str(out),
        "cpus": 1, "part_size": 4, "batch_tokens": "auto", "dtype": "float32",
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def manifest(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def counted(out: Path) -> Counted:
    return concat_counted([one for _, one in RunStore(out).results.counts()])


def assert_counts_of(work: Path, out: Path, rows: int) -> None:
    """The counts are those of a run that was given the number, which float32 shows to the bit."""
    given = config_of(work, out.with_name(f"{out.name}-given"), batch_tokens=rows)
    plan = prepare(given)
    actor = CountActor(plan.work)
    for part in plan.todo:
        actor.run(part)
    ours, expected = counted(out), counted(Path(given.run_dir()))
    assert ours.ids == expected.ids
    np.testing.assert_array_equal(ours.tokens, expected.tokens)
    np.testing.assert_array_equal(ours.neurons, expected.neurons)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    with ray_session(RunConfig(actors=2, cpus=1)):
        yield


def test_two_actors_of_ray_take_one_number_which_run_json_has(
    work, tmp_path, long_run, ray_local
) -> None:
    out = tmp_path / "run"
    summary = count(config_of(work, out, actors=2))  # one engine: or it would fail
    found = manifest(out)
    rows = found["config"]["batch_tokens"]
    assert rows in (256, 512, 1024, 2048, 4096, 8192, 16384)
    assert found["engine"]["batch_tokens"] == rows == summary.chosen["batch_tokens"]
    assert found["chosen"] == summary.chosen
    speeds = found["chosen"]["tokens_per_s"]
    assert {"1024", str(rows)} <= speeds.keys()
    assert all(speed > 0 for speed in speeds.values())
    assert found["engine"]["proof"]["proved"]
    assert_counts_of(work, out, rows)
    # A complete run is recognised, with the word or the number, and not with another number.
    assert count(config_of(work, out), resume=True).parts == 0
    assert count(config_of(work, out, batch_tokens=rows), resume=True).parts == 0
    with pytest.raises(InputError, match=rf"batch_tokens \({rows} -> 64\)"):
        prepare(config_of(work, out, batch_tokens=64), resume=True)


def test_actors_that_measure_at_once_take_what_the_first_has_found(
    work, tmp_path, long_run, ray_local, monkeypatch
) -> None:
    """Neither waits for the other, whichever parts they get."""
    found = iter((96, 64))
    monkeypatch.setattr(
        batch_choice, "choose_batch_tokens", lambda *_: BatchSize(next(found), {1024: 1.0})
    )
    monkeypatch.setattr(
        batch_choice, "read_choice", lambda _: None
    )  # both look before either wrote
    plan = prepare(config_of(work, tmp_path / "run"))
    results = [CountActor(plan.work).run(part) for part in (3, 1)]
    assert [result.engine["batch_tokens"] for result in results] == [96, 96]
    assert list(found) == []
    written = json.loads((tmp_path / "run/batch_tokens.json").read_text())
    assert written["batch_tokens"] == 96
    again = prepare(
        config_of(work, tmp_path / "run"), overwrite=True
    )  # another session, another key
    monkeypatch.setattr(batch_choice, "choose_batch_tokens", lambda *_: BatchSize(128))
    assert CountActor(again.work).run(0).engine["batch_tokens"] == 128


def test_a_run_that_was_killed_keeps_its_number(work, tmp_path, choosing_96, ray_local) -> None:
    out = tmp_path / "run"
    actor = CountActor(prepare(config_of(work, out)).work)
    assert actor.run(0).engine["batch_tokens"] == 96
    assert manifest(out)["config"]["batch_tokens"] == "auto"  # no driver has copied it
    for given in ("auto", 96):
        plan = prepare(config_of(work, out, batch_tokens=given), resume=True)
        assert (plan.work.options.batch_tokens, plan.work.measuring) == (96, None)
        assert plan.todo == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"batch_tokens \(96 -> 1024\)"):
        prepare(config_of(work, out, batch_tokens=1024), resume=True)
    count(config_of(work, out), resume=True)
    assert choosing_96 == [10**9]  # once
    found = manifest(out)
    assert found["config"]["batch_tokens"] == found["engine"]["batch_tokens"] == 96
    assert found["chosen"] == {
        "batch_tokens": 96, "tokens_per_s": {"1024": 10.0, "96": 20.0}, "why": "",
    }  # fmt: skip
    assert_counts_of(work, out, 96)


def test_tokens_that_are_made_again_leave_the_number(work, tmp_path, choosing_96) -> None:
    out = tmp_path / "run"
    CountActor(prepare(config_of(work, out)).work).run(0)
    store = RunStore(out)
    store.write_manifest({**store.manifest(), "inputs": {}})  # as if of an older tokenizer
    plan = prepare(config_of(work, out), resume=True)
    assert (plan.work.options.batch_tokens, plan.todo) == (96, [1, 2, 3, 4])


def test_a_number_that_is_lost_or_damaged_is_an_error(work, tmp_path, choosing_96) -> None:
    out = tmp_path / "run"
    CountActor(prepare(config_of(work, out)).work).run(0)
    (out / "batch_tokens.json").write_text('{"batch_tokens": "x"}')
    with pytest.raises(SparcomError, match="batch_tokens.json: expected a number of batch_tokens"):
        prepare(config_of(work, out), resume=True)
    (out / "batch_tokens.json").unlink()
    with pytest.raises(InputError, match="batch_tokens.json is gone: .* --overwrite"):
        prepare(config_of(work, out), resume=True)
    plan = prepare(config_of(work, out), overwrite=True)
    assert plan.work.measuring.tokens == 10**9


def test_a_small_run_takes_the_default_and_says_why(work, tmp_path, ray_local, capsys) -> None:
    out = tmp_path / "run"
    config = config_of(work, out)
    flags = ["model", "corpus", "out", "cpus", "part_size", "batch_tokens", "dtype"]
    given = [text for name in flags for text in (f"--{name.replace('_', '-')}",
             str(getattr(config, name)))]  # fmt: skip
    assert main(["count", *given]) == 0
    assert "batch tokens: 1024 (" in (said := capsys.readouterr().out)
    assert "are too few for measuring to pay" in said
    found = manifest(out)
    assert found["config"]["batch_tokens"] == found["engine"]["batch_tokens"] == 1024
    assert found["chosen"]["tokens_per_s"] == {}
    assert prepare(config, resume=True).todo == []
    assert prepare(replace(config, batch_tokens=1024), resume=True).todo == []


def test_what_no_run_does_refuses_the_word(work, capsys) -> None:
    assert main(["doctor", "--model", str(work / "model"), "--batch-tokens", "auto"]) == 2
    assert "--batch-tokens auto: only sparcom run and sparcom count measure" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["count", "--batch-tokens", "most"])
    assert "argument --batch-tokens: invalid int or auto value: 'most'" in capsys.readouterr().err
