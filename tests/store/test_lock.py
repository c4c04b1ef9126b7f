"""The lock: one driver, whoever dies, and nothing left behind."""

import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sparcom.errors import InputError, SparcomError
from sparcom.store import RunLock
from sparcom.store.files import Files
from sparcom.store.lock import Claim


def claim_file(folder: Path, age: float = 0.0, **changes: object) -> Path:
    """The claim of another driver, last refreshed some seconds ago."""
    file = folder / "lock/other.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(asdict(replace(Claim.mine(), **changes))))
    os.utime(file, (time.time() - age, time.time() - age))
    return file


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with RunLock(Files(tmp_path / "run")) as lock:
        assert len(list((tmp_path / "run/lock").iterdir())) == 1
        lock.check()
    assert not (tmp_path / "run").exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/run.json").write_text("{}")
    with RunLock(Files(tmp_path / "kept")):
        pass
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["run.json"]


@pytest.mark.parametrize("where", [{}, {"host": "elsewhere", "pid": 1}, {"space": "pid:[1]"}])
def test_a_living_claim_is_respected(tmp_path: Path, where: dict) -> None:
    file = claim_file(tmp_path, 5, **where)
    pid = where.get("pid", os.getpid())
    match = rf"another driver holds this run .process {pid} on .* try again in 5\d s"
    with pytest.raises(InputError, match=match), RunLock(Files(tmp_path)):
        pass
    assert [p.name for p in file.parent.iterdir()] == ["other.json"]


@pytest.mark.parametrize(
    ("age", "where"),
    [(61, {"host": "elsewhere"}), (0, {"pid": 2**22 - 1}), (0, {"born": 1.0})],
    ids=["expired", "no such process", "pid of another process"],
)
def test_a_dead_claim_is_taken_over(tmp_path: Path, age: float, where: dict) -> None:
    file = claim_file(tmp_path, age, **where)
    with RunLock(Files(tmp_path)):
        assert not file.exists()


def test_a_claim_that_is_refreshed_does_not_expire(tmp_path: Path) -> None:
    times = {"beat": 0.05, "expiry": 2.0}
    with RunLock(Files(tmp_path), **times):
        time.sleep(2.5)
        with pytest.raises(InputError, match="another driver"), RunLock(Files(tmp_path), **times):
            pass


def test_a_hold_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    with RunLock(Files(tmp_path), beat=0.05) as lock:
        next((tmp_path / "lock").iterdir()).unlink()
        time.sleep(0.5)
        with pytest.raises(SparcomError, match="its lock file is gone.*--resume"):
            lock.check()


def test_a_hold_that_cannot_be_refreshed_is_given_up_in_time(tmp_path, monkeypatch) -> None:
    files = Files(tmp_path)
    with RunLock(files, beat=0.05, expiry=2.0) as lock:

        def full(*_: object) -> None:
            raise SparcomError("no space left")

        monkeypatch.setattr(files, "write_bytes", full)
        time.sleep(0.2)
        lock.check()
        time.sleep(3.0)
        with pytest.raises(SparcomError, match="could not be kept .no space left"):
            lock.check()


def test_a_claim_that_comes_while_another_is_withdrawn_stays(tmp_path, monkeypatch) -> None:
    files = Files(tmp_path)
    with RunLock(files):
        file = tmp_path / "lock/other.json"
        file.write_text("{}")
        monkeypatch.setattr(files, "names", lambda *_: [])  # a listing from before it came
    assert file.exists()


def test_a_claim_that_cannot_be_withdrawn_hides_no_error(tmp_path, monkeypatch) -> None:
    files = Files(tmp_path)

    def denied(*_: object) -> None:
        raise SparcomError("denied")

    def ends_in_an_error() -> None:
        with RunLock(files):
            monkeypatch.setattr(files, "delete", denied)
            raise ValueError("what ended it")

    with pytest.raises(ValueError, match="what ended it"):
        ends_in_an_error()


def test_of_many_that_start_at_once_never_two_go_on(tmp_path: Path) -> None:
    inside, most, gate = [], [0], threading.Barrier(6)

    def drive() -> None:
        gate.wait()
        try:
            with RunLock(Files(tmp_path)):
                inside.append(1)
                most[0] = max(most[0], len(inside))
                time.sleep(0.2)
                inside.pop()
        except InputError:
            pass

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 1
