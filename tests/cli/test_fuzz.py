"""Whatever a config, a model or a run holds, a command ends soon: a result, or exit 2 in a line."""

import math
from pathlib import Path

import pytest
from damaged_inputs import KINDS, draw, save_whole
from fuzzing import run_cases

from sparcom.engines.load import load_engine
from sparcom.errors import InputError
from sparcom.pipeline.plan import Plan

FAST, SLOW = 480, 6000  # cases
BUDGET = 30  # seconds of the fast test


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is not damaged; a run goes on until an actor would have loaded the model."""

    def load_and_stop(plan: Plan, *_: object) -> None:
        load_engine(plan.work.engine, plan.work.options).close()
        raise InputError("the model was loaded")

    monkeypatch.setattr("sparcom.pipeline.run._count", load_and_stop)
    monkeypatch.setattr("sparcom.report.figures._save", lambda *_, **__: b"<svg>")  # takes seconds
    monkeypatch.setattr("sparcom.pipeline.ray.session._CONNECT_S", 1.0)
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # nothing is looked for in a network
    monkeypatch.chdir(tmp_path)  # some names are relative
    save_whole(tmp_path)
    return tmp_path


def test_damaged_inputs_of_every_kind(whole, capsys) -> None:
    done = run_cases(draw, 0, FAST, whole, capsys, BUDGET)
    assert done >= 3 * len(KINDS), f"only {done} cases in {BUDGET} s"


@pytest.mark.slow
def test_many_damaged_inputs(whole, capsys) -> None:
    run_cases(draw, FAST, FAST + SLOW, whole, capsys, math.inf)
