"""What dies starts again, as often as allowed without a result between, and closing is for good."""

import itertools
import threading

import pytest

from sparcom.engines.vllm.process.restartable import Restartable
from sparcom.errors import SparcomError


class Life:
    def __init__(self) -> None:
        self.error: SparcomError | None = None
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def lives() -> list[Life]:
    """All that were started, in order."""
    return []


def make(lives: list[Life], restarts: int = 2, fails: tuple[int, ...] = ()) -> Restartable[Life]:
    """fails: which starts raise, from 0."""
    starts = itertools.count()

    def start() -> Life:
        if next(starts) in fails:
            raise MemoryError
        lives.append(Life())
        return lives[-1]

    return Restartable("engine", start, restarts)


def die(thing: Restartable[Life], why: str = "worker fell over") -> None:
    thing.current.error = SparcomError(why)


def test_what_runs_is_not_started_again(lives):
    thing = make(lives)
    assert thing.running() is thing.running() is thing.alive() is thing.current is lives[0]
    assert len(lives) == 1


def test_what_died_is_closed_and_started_again(lives):
    thing = make(lives)
    die(thing)
    assert thing.alive() is None
    assert thing.current is lives[0]
    assert thing.running() is thing.current is lives[1]
    assert [life.closed for life in lives] == [1, 0]


def test_after_so_many_restarts_without_a_result_the_last_cause_is_told(lives):
    thing = make(lives, restarts=2)
    for cause in ("first", "second"):
        die(thing, cause)
        thing.running()
    die(thing, "third")
    told = r"^this engine was started again as often as allowed \(2 times\) without a result; "
    for _ in range(2):
        with pytest.raises(SparcomError, match=told + "the last time: third$"):
            thing.running()
    assert len(lives) == 3


def test_a_result_gives_the_restarts_back(lives):
    thing = make(lives, restarts=1)
    for _ in range(3):
        die(thing)
        thing.running()
        thing.delivered()
    die(thing)
    thing.running()
    die(thing)
    with pytest.raises(SparcomError, match=r"allowed \(1 times\)"):
        thing.running()


def test_a_start_that_fails_is_raised_and_counts_as_one(lives):
    thing = make(lives, restarts=2, fails=(1,))
    die(thing)
    with pytest.raises(MemoryError):
        thing.running()
    assert thing.running() is lives[1]
    die(thing)
    with pytest.raises(SparcomError, match="as often as allowed"):
        thing.running()


def test_a_first_start_that_fails_is_raised(lives):
    with pytest.raises(MemoryError):
        make(lives, fails=(0,))


def test_closing_waits_for_a_start_under_way_and_then_holds():
    begun, go_on, lives = threading.Event(), threading.Event(), []

    def start() -> Life:
        if lives:
            begun.set()
            go_on.wait(10)
        lives.append(Life())
        return lives[-1]

    thing = Restartable("engine", start, 2)
    die(thing)
    restart = threading.Thread(target=thing.running)
    restart.start()
    begun.wait(10)
    closing = threading.Thread(target=thing.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive(), "it was closed while it started"
    go_on.set()
    closing.join(10)
    restart.join(10)
    assert [life.closed for life in lives] == [1, 1]
    for use in (thing.running, thing.alive):
        with pytest.raises(SparcomError, match="this engine is closed"):
            use()


def test_closing_twice_does_no_harm(lives):
    thing = make(lives)
    thing.close()
    thing.close()
    with pytest.raises(SparcomError, match="closed"):
        thing.running()
