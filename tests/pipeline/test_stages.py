"""What a run says while it goes on: its stages, and a bar whose clock moves on by itself."""

import io
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom import shown_steps
from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.pipeline import progress
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.progress import Progress
from sparcom.pipeline.ray.session import _beside
from sparcom.pipeline.stages import Stages
from sparcom.planning.prompts import PromptMaker


def config_of(folder: Path) -> RunConfig:
    return RunConfig(
        model=str(save_tiny_llm(folder / "model")),
        corpus=str(write_corpus(folder / "corpus.jsonl", records(12))),
        out=str(folder / "run"),
        cpus=1,
    )


def test_a_stage_is_a_line_with_the_time_of_its_begin(capsys: pytest.CaptureFixture) -> None:
    begin = Stages(shown=True)
    begin("reading the corpus")
    assert re.fullmatch(r" +\d+\.\d s  reading the corpus\n", capsys.readouterr().err)


def test_a_stage_is_an_event_of_the_log_and_quiet_in_pipes(
    capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("sparcom.pipeline")
    monkeypatch.setattr(log, "propagate", False)  # after other tests Ray may listen at the root
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    with caplog.at_level(logging.INFO, "sparcom.pipeline"):
        Stages(shown=False)("starting Ray")
    assert [(r.message, r.stage) for r in caplog.records] == [("stage", "starting Ray")]
    assert capsys.readouterr().err == ""


def test_planning_says_its_stages_in_their_order(tmp_path: Path) -> None:
    begin, config = Stages(shown=False), config_of(tmp_path)

    def beside(make: Callable[[], PromptMaker]) -> PromptMaker:
        begin("starting Ray")
        return make()

    prepare(config, begin=begin, beside=beside)
    assert begin.begun[:2] == ["reading the corpus", "starting Ray"]
    assert begin.begun[2].startswith("planning")
    again = Stages(shown=False)
    prepare(config, resume=True, begin=again, beside=lambda _: pytest.fail("not needed"))
    assert again.begun == ["reading the corpus", "comparing with what is stored"]


def test_nothing_is_started_for_a_corpus_that_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    Path(config.corpus).write_text("{}\n")
    with pytest.raises(InputError, match="are missing"):
        prepare(config, beside=lambda _: pytest.fail("started"))


def test_the_bar_moves_on_before_the_first_part_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "TICK", 0.02)
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    with Progress(100, 10, bar=True) as bar:
        until = time.monotonic() + 10
        while shown.getvalue().count("loading the model") < 4 and time.monotonic() < until:
            time.sleep(0.02)
        assert shown.getvalue().count("loading the model") >= 4
        bar.add(SimpleNamespace(tokens=50, instructions=4, failed=1))
    assert "counting 5 of 10" in shown.getvalue()


def test_what_runs_beside_a_block_has_ended_after_it_and_its_error_is_raised() -> None:
    seen = []
    with _beside(lambda: (time.sleep(0.05), seen.append("work"))):
        seen.append("block")
    assert seen == ["block", "work"]
    with pytest.raises(ZeroDivisionError), _beside(lambda: 1 / 0):
        pass


def test_steps_are_shown_in_pipes_too_once_they_have_taken_a_while(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(shown_steps.shown_steps(range(3), 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # within half a minute
    monkeypatch.setattr(shown_steps, "SECONDS_IN_PIPES", 0.01)
    for _ in shown_steps.shown_steps(range(3), 3):
        time.sleep(0.02)
    assert "3/3" in capsys.readouterr().err
