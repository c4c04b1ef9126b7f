"""What the service says: JSON lines in jobs, warnings on a terminal, why nothing happens."""

import json
import logging
import time

import pytest
import ray

from sparcom.pipeline.actor import PartResult
from sparcom.pipeline.progress import Progress
from sparcom.pipeline.ray.logs import LOGGER, log_to_stderr
from sparcom.pipeline.ray.resources import Resources
from sparcom.pipeline.ray.stall_detector import StallDetector


def test_a_structured_log_has_the_run_and_what_happened(capsys: pytest.CaptureFixture) -> None:
    log_to_stderr("run1")
    logging.getLogger(LOGGER).info("part %s", "done", extra={"part": 3, "seconds": 0.5})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line.pop("level") == "info"
    # Other libraries of the process put fields of their own into every record.
    ours = {"run": "run1", "message": "part done", "part": 3, "seconds": 0.5}
    assert line.items() >= ours.items()


def test_a_terminal_sees_warnings_only(capsys: pytest.CaptureFixture) -> None:
    log_to_stderr("run1", structured=False)
    logging.getLogger(LOGGER).info("part done")
    logging.getLogger(LOGGER).warning("waiting")
    assert capsys.readouterr().err == "sparcom: waiting\n"


def result(tokens: int) -> PartResult:
    return PartResult(0, 4, tokens, 1, 0.1, {})


def test_progress_says_rates_and_what_is_left() -> None:
    with Progress(1000, 10, bar=False) as progress:
        progress.add(result(100))
        progress.add(result(150))
    assert progress.figures(5.0) == {
        "tokens": 250, "instructions": 10, "share": 0.25, "tokens_per_s": 50.0,
        "instructions_per_s": 2.0, "eta_s": 15,
    }  # fmt: skip


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    found: list[dict] = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 0.0})
    return found


def test_a_wait_for_resources_names_what_is_missing(machines, capsys) -> None:
    log_to_stderr("run1", structured=False)
    with StallDetector(Resources(2, {"CPU": 4.0}), timeout=0.1):
        time.sleep(0.5)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "sparcom: waiting for resources: none of 1 machines can hold an actor; "
        "the best lacks 4 CPU (has 2 CPU); add machines, or ask for less"
    )
    assert 2 <= len(said) <= 3  # each silence twice as long as the one before


def test_a_stall_is_said_and_a_part_ends_it(machines) -> None:
    watch = StallDetector(Resources(1, {"CPU": 2.0}))
    assert "the first part is under way or actors wait for their place" in watch.message(40)
    watch.alive()
    assert "parts take long, or" in watch.message(40)
    machines[0]["Alive"] = False
    assert "none of 0 machines" in watch.message(40)
