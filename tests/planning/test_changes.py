"""What a resumed run may not have changed, told from two manifests."""

import copy

import pytest

from sparcom.config import RunConfig
from sparcom.planning.changes import changes

MANIFEST = {
    "config": RunConfig().to_json(),
    "model": {"weights": "w"},
    "corpus": {"hash": "c"},
    "threads": 2,
    "versions": {"torch": "2.13", "transformers": "5.17"},
}


def stored() -> dict:
    return copy.deepcopy(MANIFEST)


def test_nothing_has_changed() -> None:
    assert changes(stored(), MANIFEST) == []


def test_a_run_that_knew_no_such_key_was_made_with_its_default() -> None:
    old, new = stored(), stored()
    del old["config"]["generate"]
    assert changes(old, new) == []
    new["config"]["generate"] = 5
    assert changes(old, new) == ["generate (0 -> 5)"]


def test_other_threads_round_differently() -> None:
    old = stored()
    old["threads"] = 1
    assert changes(old, MANIFEST) == ["the threads of an actor (1 -> 2, by --cpus)"]


def test_a_key_that_is_gone_is_a_change() -> None:
    old = stored()
    old["config"]["rounding"] = "up"
    assert changes(old, MANIFEST) == ["rounding ('up' -> None)"]


@pytest.mark.parametrize("lost", [("versions",), ("versions", "torch")])
def test_a_version_that_was_not_recorded_is_not_taken_for_the_same(lost: tuple[str, ...]) -> None:
    old = stored()
    inner = old
    for key in lost[:-1]:
        inner = inner[key]
    del inner[lost[-1]]
    assert "the version of torch (not recorded -> 2.13)" in changes(old, MANIFEST)
