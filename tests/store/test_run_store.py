"""The run directory: what is written comes back, whole or not at all."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_helpers import (
    DENSE,
    MOE,
    STAMPS,
    assert_equal,
    counted_of,
    manifest_of,
    store_corpus,
    store_part,
)

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.errors import InputError, SparcomError
from sparcom.selection.rules import Selection, identify
from sparcom.selection.sets import Sets
from sparcom.store import SCHEMA_VERSION, CellRule, Run, RunStore, part_profile
from sparcom.store.files import Files


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def instructions(n: int) -> list[Instruction]:
    return [
        Instruction(f"i{k}", ("QA", "SUM")[k % 2], instruction="say é \u202e") for k in range(n)
    ]


def prompts(n: int) -> list[Prompt]:
    return [
        Prompt(f"i{k}", tuple(range(k + 4)), ((1, 2), (3, k + 4)), truncated=k % 3 == 0)
        for k in range(n)
    ]


def write(
    store: RunStore, part: int, counted: Counted, space: ComponentSpace, failures: Sequence = ()
) -> None:
    """Write all that a part leaves when counts are retained."""
    sets = identify(counted, space, Selection("top:0.2"))
    labels = RunStore(store.location).corpus.table(
        ["id", "category", "source", "origin", "cluster"]
    )
    rows = [labels["id"].to_pylist().index(name) for name in counted.ids]
    keys = CellRule((4, 6)).keys(labels.take(pa.array(rows, pa.int64())), counted.tokens)
    store_part(store, part, counted, sets, failures, part_profile(counted, sets, keys))


def stored(folder: Path, space: ComponentSpace = DENSE, n: int = 5, part: int = 2) -> RunStore:
    """A whole run of n instructions in parts."""
    store = RunStore(folder, STAMPS)
    store_corpus(store, instructions(n), prompts(n), part)
    for number, start in enumerate(range(0, n, part)):
        ids = tuple(f"i{k}" for k in range(start, min(start + part, n)))
        counted = counted_of(space, ids, number)
        write(store, number, counted, space)
    store.write_manifest(manifest_of(space, n))
    return store


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_a_run_comes_back(tmp_path: Path, space: ComponentSpace) -> None:
    store = stored(tmp_path / "run", space)
    run = Run(tmp_path / "run")
    assert run.space == space
    assert run.sets.ids == tuple(f"i{k}" for k in range(5))
    assert run.labels["category"].to_pylist() == ["QA", "SUM", "QA", "SUM", "QA"]
    assert store.done_parts("counts") == {0, 1, 2}
    for number, counted in store.results.counts():
        expected = counted_of(space, counted.ids, number)
        assert_equal(counted, expected)
    for (_, counted), (_, sets) in zip(
        store.results.counts(), store.results.sets(space), strict=True
    ):
        assert_equal(sets, identify(counted, space, Selection("top:0.2")))


def test_prompts_come_back_part_by_part(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    assert store_corpus(store, instructions(5), prompts(5), 2) == 3
    assert [p for part in range(3) for p in store.corpus.prompts(part)[0]] == prompts(5)
    assert len(store.corpus.prompts(2)[0]) == 1
    table = store.corpus.table()
    assert table["n_tokens"].to_pylist() == [4, 5, 6, 7, 8]
    assert table["n_counted"].to_pylist() == [p.n_counted for p in prompts(5)]
    assert table["instruction"].to_pylist() == ["say é \u202e"] * 5


def test_labels_follow_the_sets_where_instructions_are_missing(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", STAMPS)
    store_corpus(store, instructions(4), prompts(4), 4)
    counted = counted_of(DENSE, ("i3", "i0"))
    sets = identify(counted, DENSE, Selection())
    store_part(store, 0, counted, sets, [Failure("i1", "why"), Failure("i2", "so")])
    store.write_manifest(manifest_of(DENSE, 4))
    run = Run(tmp_path / "run")
    assert run.labels["id"].to_pylist() == ["i3", "i0"]
    assert run.labels["category"].to_pylist() == ["SUM", "QA"]
    assert store.results.failures() == [Failure("i1", "why"), Failure("i2", "so")]


def test_a_location_may_be_a_uri(tmp_path: Path) -> None:
    stored(tmp_path / "run")
    assert Run((tmp_path / "run").as_uri()).sets.ids == Run(tmp_path / "run").sets.ids


def test_anything_that_reads_parquet_reads_a_part(tmp_path: Path) -> None:
    stored(tmp_path / "run")
    rows = pq.read_table(tmp_path / "run/counts/part-00000.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["i0", "i1"]
    assert len(rows[0]["neurons"]) == DENSE.neurons


def test_sets_alone_may_be_retained(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    sets = identify(counted_of(DENSE, ("a",)), DENSE, Selection())
    store_part(store, 0, None, sets, [])
    assert not store.results.parts("counts")
    assert_equal(store.results.all_sets(DENSE), sets)


# -- twice, and half ------------------------------------------------------------------------------


def test_writing_a_part_twice_changes_no_byte(tmp_path: Path) -> None:
    stored(tmp_path / "run")
    before = files_of(tmp_path / "run")
    stored(tmp_path / "run")
    assert files_of(tmp_path / "run") == before


def test_a_part_that_succeeds_at_last_has_no_failures(tmp_path: Path) -> None:
    """A worker set two aside and died before its part was done; the next one counted them."""
    store = RunStore(tmp_path / "run")
    counted = counted_of(DENSE, ("a", "b"))
    sets = identify(counted, DENSE, Selection())
    store_part(store, 0, counted, sets, [Failure("c", "out of memory")])
    store_part(store, 1, counted, sets, [Failure("d", "out of memory")])
    store_part(store, 0, counted, sets, [])
    assert store.results.failures() == [Failure("d", "out of memory")]


class Failing:
    """A file system on which one operation fails."""

    def __init__(self, real: object, operation: str, fail: Callable) -> None:
        self._real, self._operation, self._fail = real, operation, fail

    def __getattr__(self, name: str) -> object:
        return self._fail if name == self._operation else getattr(self._real, name)


def full_disk_after(real: object, n: int) -> Callable:
    """`open_output_stream` whose files take n bytes each."""

    class Stream:
        def __init__(self, path: str) -> None:
            self._file = real.open_output_stream(path)

        def __enter__(self) -> "Stream":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> None:
            self._file.write(memoryview(data)[:n])
            raise OSError(28, "No space left on device")

    return Stream


def no_way(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("operation", ["open_output_stream", "move", "create_dir"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, operation: str) -> None:
    store = stored(tmp_path / "run")
    before = files_of(tmp_path / "run")
    fail = full_disk_after(store.files.fs, 10) if operation == "open_output_stream" else no_way
    store.files.fs = Failing(store.files.fs, operation, fail)
    sets = identify(counted_of(DENSE, ("i0", "i1"), 7), DENSE, Selection("top:0.5"))
    with pytest.raises(SparcomError, match="part-00000.parquet: cannot be written: .*--resume"):
        store.results.write_sets(0, sets)
    with pytest.raises(SparcomError, match="run.json: cannot be written"):
        store.write_manifest({"status": "other"})
    assert files_of(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("operation", "act", "done"),
    [
        ("get_file_info", lambda s: s.exists(), "run: cannot be looked up"),
        ("get_file_info", lambda s: s.manifest(), "run.json: cannot be looked up"),
        ("get_file_info", lambda s: s.files.modified("run.json"), "run.json: cannot be looked up"),
        ("get_file_info", lambda s: s.done_parts("counts"), "profiles: cannot be listed"),
        ("open_input_stream", lambda s: s.manifest(), "run.json: cannot be read"),
        ("delete_file", lambda s: s.files.delete("run.json"), "run.json: cannot be deleted"),
        ("delete_dir", lambda s: s.files.delete_folder("sets"), "sets: cannot be deleted"),
    ],
)
def test_what_a_file_system_refuses_is_said_in_one_line(tmp_path, operation, act, done) -> None:
    store = stored(tmp_path / "run")

    def denied(*_: object) -> None:
        raise OSError("AWS Error ACCESS_DENIED during the operation\nrequest id: 1")

    store.files.fs = Failing(store.files.fs, operation, denied)
    with pytest.raises(SparcomError, match=f"{done}: AWS Error ACCESS_DENIED .*; check the") as why:
        act(store)
    assert "\n" not in str(why.value)


class ObjectStore:
    """A local disk as an object store: what an interrupted upload has sent so far appears.

    writes: after how many the upload is interrupted.
    """

    type_name = "s3"

    def __init__(self, real: object, writes: int) -> None:
        self._real, self._writes = real, writes

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def open_output_stream(self, path: str) -> "ObjectStore":
        self._file = self._real.open_output_stream(path)
        self.tell, self.close = self._file.tell, self._file.close
        return self

    def __enter__(self) -> "ObjectStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._writes -= 1
        if not self._writes:
            raise KeyboardInterrupt


def test_an_upload_that_is_interrupted_appears_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sparcom.store.files._COPY_BYTES", 4)
    files = Files(tmp_path)
    disk = files.fs
    for writes, left in ((1, []), (2, []), (3, ["a"])):
        files.fs = ObjectStore(disk, writes)
        with pytest.raises(KeyboardInterrupt):
            files.write_bytes("a", b"ten bytes!")
        assert files.names() == left
    assert files.read_bytes("a") == b"ten bytes!"


def test_an_upload_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write_bytes("a", b"before")
    files.fs = ObjectStore(Failing(files.fs, "open_output_stream", no_way), 0)
    with pytest.raises(SparcomError, match="a: cannot be written: .*Input/output error"):
        files.write_bytes("a", b"after")
    assert files.read_bytes("a") == b"before"


def test_what_an_interrupted_writer_left_is_not_read(tmp_path: Path) -> None:
    store = stored(tmp_path / "run")
    (tmp_path / "run/sets/part-00009.parquet.ab12cd34.tmp").write_bytes(b"PAR1 half")
    assert store.done_parts("counts") == {0, 1, 2}
    assert len(store.results.all_sets(DENSE).ids) == 5


@pytest.mark.parametrize("missing", ["counts", "sets", "profiles"])
def test_a_part_half_written_is_not_done(tmp_path: Path, missing: str) -> None:
    store = RunStore(tmp_path / "run")
    store_corpus(store, instructions(2), prompts(2), 2)
    real = store.files.fs

    def all_but_one(source: str, target: str) -> None:
        if f"/{missing}/" in target:
            raise OSError(5, "Input/output error")
        real.move(source, target)

    store.files.fs = Failing(real, "move", all_but_one)
    with pytest.raises(SparcomError, match=f"{missing}/.* cannot be written"):
        write(store, 0, counted_of(DENSE, ("i0",)), DENSE, [Failure("i1", "why")])
    assert store.done_parts("counts") == set()
    store.files.fs = real
    write(store, 0, counted_of(DENSE, ("i0",)), DENSE, [Failure("i1", "why")])
    assert store.done_parts("counts") == {0}


# -- what is not a run ----------------------------------------------------------------------------


def test_an_unknown_schema_version_is_refused(tmp_path: Path) -> None:
    stored(tmp_path / "run")
    path = tmp_path / "run/run.json"
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    for version in (SCHEMA_VERSION + 1, None, "1", True, [2]):
        path.write_text(json.dumps({"schema_version": version}))
        with pytest.raises(
            InputError, match=rf"schema version {re.escape(repr(version))}, but .* reads version"
        ):
            Run(tmp_path / "run")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]", b"7"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    stored(tmp_path / "run")
    (tmp_path / "run/run.json").write_bytes(content)
    with pytest.raises(InputError, match="run.json: (not JSON: |expected a JSON object, got )"):
        Run(tmp_path / "run")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="no run here .it has no run.json"):
            Run(place)
    laid_out = RunStore(tmp_path / "laid_out")
    laid_out.write_manifest(manifest_of(DENSE, status="running"))
    with pytest.raises(InputError, match="no sets in this run; it is not complete"):
        _ = Run(tmp_path / "laid_out").sets


@pytest.mark.parametrize(
    "harm",
    [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"x" * 100, lambda d: d[:60] + d[70:],
     lambda d: d[:4] + bytes(60) + d[64:]],
    ids=["cut", "empty", "other", "shifted", "zeroed"],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["sets", "counts"])
def test_a_corrupt_part_is_named_and_how_to_mend_it(tmp_path: Path, folder: str, harm) -> None:
    store = stored(tmp_path / "run")
    path = tmp_path / f"run/{folder}/part-00001.parquet"
    path.write_bytes(harm(path.read_bytes()))
    read = (
        (lambda: store.results.all_sets(DENSE))
        if folder == "sets"
        else (lambda: list(store.results.counts()))
    )
    message = (
        f"{folder}/part-00001.parquet: not readable as Parquet .*delete this file and .*--resume"
    )
    with pytest.raises(SparcomError, match=message):
        read()


@pytest.mark.parametrize("folder", ["sets", "counts"])
def test_one_flipped_bit_is_no_other_set(tmp_path: Path, folder: str) -> None:
    store = stored(tmp_path / "run")
    path = tmp_path / f"run/{folder}/part-00001.parquet"
    columns = pq.ParquetFile(path).metadata.row_group(0)
    of = [columns.column(i) for i in range(columns.num_columns)]
    column = next(c for c in of if c.path_in_schema.startswith("neurons"))
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start + column.total_compressed_size - 1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(SparcomError, match=f"{folder}/part-00001.parquet: not readable"):
        list(store.results.sets(DENSE) if folder == "sets" else store.results.counts())


def test_a_corpus_that_cannot_be_read_is_not_mended_by_resuming(tmp_path: Path) -> None:
    store = stored(tmp_path / "run")
    (tmp_path / "run/corpus.parquet").unlink()
    with pytest.raises(SparcomError, match=r"corpus.parquet: not readable .*; start again with"):
        store.corpus.prompts(0)


def test_delete_removes_a_run_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a run .no run.json., so it is not overwritten"):
        RunStore(tmp_path / "mine").delete()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a run"):
        RunStore(tmp_path / "file").delete()
    assert (tmp_path / "mine/thesis.tex").exists()
    store = stored(tmp_path / "run")
    store.delete()
    assert not (tmp_path / "run").exists()
    store.delete()  # nothing there: nothing to do


def test_an_empty_folder_counts_as_nothing_there(tmp_path: Path) -> None:
    assert not RunStore(tmp_path).exists()
    assert not RunStore(tmp_path / "none").exists()
    (tmp_path / "file").write_text("x")
    assert RunStore(tmp_path / "file").exists()
    assert RunStore(tmp_path).exists()


def test_empty_sets_survive(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store_corpus(store, instructions(1), prompts(1), 1)
    write(store, 0, counted_of(MOE, ()), MOE, [Failure("i0", "why")])
    assert store.done_parts("counts") == {0}
    sets = store.results.all_sets(MOE)
    assert isinstance(sets, Sets)
    assert sets.neurons.shape == (0, 3)
