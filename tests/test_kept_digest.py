"""`kept_digest`: a digest is used again only of files that have not changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparcom.kept_digest import kept_digest

OLD = 1_600_000_000 * 10**9


class Digest:
    """Says how often the files were read."""

    def __init__(self, files: list[Path], cache: Path) -> None:
        self.files, self.cache, self.read = files, cache, 0

    def __call__(self) -> str:
        return kept_digest(self.files, self._compute, self.cache)

    def _compute(self) -> str:
        self.read += 1
        return "+".join(file.read_text() for file in self.files)


@pytest.fixture
def digest(tmp_path: Path) -> Digest:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
        os.utime(file, ns=(OLD, OLD))
    return Digest(files, tmp_path / "cache")


def test_unchanged_files_are_read_once(digest: Digest) -> None:
    assert [digest(), digest()] == ["a+b", "a+b"]
    assert digest.read == 1


def same_size_and_time(file: Path) -> None:
    file.write_text("X")
    os.utime(file, ns=(OLD, OLD))


def other_inode(file: Path) -> None:
    shutil.copy2(file, file.with_name("copy"))
    file.with_name("copy").replace(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("XY"),
        lambda file: os.utime(file, ns=(OLD, OLD + 1)),
        same_size_and_time,
        other_inode,
    ],
)
def test_changed_files_are_read_again(digest: Digest, change: Callable[[Path], object]) -> None:
    digest()
    change(digest.files[1])
    assert digest() == "+".join(file.read_text() for file in digest.files)
    assert digest.read == 2


def test_files_that_were_written_just_now_are_not_kept(digest: Digest) -> None:
    digest.files[0].write_text("new")
    assert [digest(), digest()] == ["new+b", "new+b"]
    assert digest.read == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [], "digest": 1}'])
def test_a_damaged_cache_is_not_used(digest: Digest, text: str) -> None:
    digest()
    (kept,) = digest.cache.iterdir()
    kept.write_text(text)
    assert digest() == "a+b"
    assert digest.read == 2


def test_a_cache_that_cannot_be_written_is_no_failure(digest: Digest) -> None:
    digest.cache.write_text("a file, not a folder")
    assert [digest(), digest()] == ["a+b", "a+b"]
    assert digest.read == 2
