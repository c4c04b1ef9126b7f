"""Checking stored files: what cannot be used is named, at little memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store_helpers import store_corpus, store_part

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.errors import SparcomError
from sparcom.store import RunStore
from sparcom.store.check import bad_files, check_here

NAMES = ["counts/part-00000.parquet", "counts/part-00001.parquet"]


def store_of(folder: Path, rows: int = 4, width: int = 1000) -> RunStore:
    """Two parts of random counts, which do not compress."""
    store = RunStore(folder, {"counts": "mine"})
    rng = np.random.default_rng(0)
    for part in range(2):
        counts = rng.integers(0, 1 << 15, (rows, width)).astype(np.int32)
        ids = tuple(f"i{part}-{k}" for k in range(rows))
        none = np.zeros((rows, 0), np.int32)
        store_part(store, part, Counted(ids, np.full(rows, 1 << 15), counts, none), None, ())
    return store


def test_whole_files_of_this_run_have_no_problem(tmp_path: Path) -> None:
    assert list(check_here(store_of(tmp_path), NAMES)) == []


@pytest.mark.parametrize("at", [0.1, 0.5, 0.8])
def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path, at: float) -> None:
    store, file = store_of(tmp_path), tmp_path / NAMES[1]
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= 1
    file.write_bytes(data)
    ((name, problem),) = check_here(store, NAMES)
    assert name == NAMES[1]
    assert "counting its part again" in problem


def test_a_file_of_another_run_is_found(tmp_path: Path) -> None:
    store_of(tmp_path)
    other = RunStore(tmp_path, {"counts": "theirs"})
    found = dict(check_here(other, NAMES))
    assert list(found) == NAMES
    assert all("written by another run" in problem for problem in found.values())


def corpus_of(store: RunStore, parts: int, size: int) -> None:
    """corpus.parquet of some parts of some instructions."""
    prompts = [Prompt(f"i{k}", (1, 2, 3), ((0, 3),)) for k in range(parts * size)]
    rows = [Instruction(p.id, "QA", instruction="add") for p in prompts]
    store_corpus(store, rows, prompts, size)


def test_footers_of_whole_files_have_no_problem(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    corpus_of(store, 2, 4)
    assert bad_files(store, whole=False) == []


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder, data: b"", "not readable as Parquet"),
        (lambda folder, data: data[:-9], "not readable as Parquet"),
        (lambda folder, data: data[:100] + data[400:], "bytes, but its footer tells of"),
        (lambda folder, data: (folder / NAMES[0]).read_bytes(), "holds the parts 0-0"),
    ],
)
def test_what_a_footer_tells(tmp_path: Path, harm, reason: str) -> None:
    store, file = store_of(tmp_path), tmp_path / NAMES[1]
    corpus_of(store, 2, 4)
    file.write_bytes(harm(tmp_path, file.read_bytes()))
    ((name, problem),) = bad_files(store, whole=False)
    assert name == NAMES[1]
    assert reason in problem


def test_the_footer_of_another_run_is_found(tmp_path: Path) -> None:
    corpus_of(store_of(tmp_path), 2, 4)
    other = RunStore(tmp_path, {"counts": "theirs"})
    assert [name for name, _ in bad_files(other, whole=False)] == NAMES


def test_a_part_that_lost_instructions_is_found_by_its_footer(tmp_path: Path) -> None:
    store = store_of(tmp_path, rows=3)  # of the four that the corpus has in each part
    corpus_of(store, 2, 4)
    found = dict(bad_files(store, whole=False))
    assert list(found) == NAMES
    assert all("3 rows, expected 4" in problem for problem in found.values())


def test_a_damaged_corpus_is_not_dropped_but_told(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    prompts = [Prompt(f"i{k}", (1, 2, 3), ((0, 3),)) for k in range(8)]
    store_corpus(store, [Instruction(p.id, "QA", instruction="add") for p in prompts], prompts, 4)
    assert bad_files(store) == []
    file = tmp_path / "corpus.parquet"
    data = file.read_bytes()
    for harmed in (data[:4] + bytes(60) + data[64:], data[:-9], b""):
        file.write_bytes(harmed)
        with pytest.raises(SparcomError, match="corpus.parquet: not readable .*--overwrite"):
            bad_files(store)


def test_a_part_larger_than_memory_is_read_in_pieces(tmp_path: Path) -> None:
    store = store_of(tmp_path, rows=1024, width=20_000)  # 40 MB a part
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    try:
        assert list(check_here(store, NAMES)) == []
    finally:
        pa.set_memory_pool(before)
    assert 0 < pool.max_memory() < 30 << 20
