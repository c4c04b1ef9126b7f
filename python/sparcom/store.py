"""The run directory: run.json and Parquet files, on any file system that pyarrow reaches.

    run.json                 what was run, with what, and whether it is complete
    corpus.parquet           the instructions as counted, with their token ids; one row group a part
    counts/part-00000.parquet    T and every count, per instruction (retain="counts")
    sets/part-00000.parquet      cuts, sizes and packed sets, per instruction
    failed/part-00000.parquet    instructions set aside, and why

A *part* is a fixed group of instructions, planned before counting starts, and the unit of work: it
is counted as a whole by one worker and written by atomic renames, the `sets` file last. A part
whose `sets` file is there is done; writing a part again replaces it by itself.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts import Prompt
from sparcom.corpus.schema import SCHEMA, Instruction, to_table
from sparcom.counting.recorder import Counted
from sparcom.errors import InputError, SparcomError
from sparcom.identify import Sets

SCHEMA_VERSION = 1
RETAIN = ("counts", "sets")
PROMPT_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("n_tokens", pa.int32()),
        pa.field("n_counted", pa.int32()),
        pa.field("truncated", pa.bool_()),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("counted", pa.list_(pa.int32())),  # start, stop, start, stop, ...
    ]
)
FAILED_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("reason", pa.string())])


@dataclass(frozen=True)
class Failure:
    """An instruction that was set aside."""

    id: str
    reason: str


class RunStore:
    """A run directory, for writing and reading.

    location: local path or URI of the directory.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location)
        if "://" in text:
            self._fs, self._root = fs.FileSystem.from_uri(text)
            self.location = text
        else:
            self._fs, self._root = fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
            self.location = self._root

    # -- the manifest ---------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything lies at the location."""
        info = self._fs.get_file_info(self._root)
        if info.type == fs.FileType.NotFound:
            return False
        return info.type == fs.FileType.File or bool(
            self._fs.get_file_info(fs.FileSelector(self._root))
        )

    def free_bytes(self) -> int | None:
        """Free space on the disk of a local run directory; None where that cannot be known."""
        if not isinstance(self._fs, fs.LocalFileSystem):
            return None
        root = Path(self._root)
        return shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free

    def is_run(self) -> bool:
        """Whether the location holds a run."""
        return self._is_file("run.json")

    def manifest(self) -> dict:
        """run.json; raises InputError where there is none or its schema version is unknown."""
        if not self.is_run():
            raise InputError(f"{self.location}: no run here (it has no run.json)")
        with self._fs.open_input_stream(f"{self._root}/run.json") as file:
            try:
                manifest = json.loads(file.read().decode("utf-8"))
            except ValueError as error:
                raise InputError(f"{self.location}/run.json: not JSON: {error}") from error
        if not isinstance(manifest, dict):
            raise InputError(f"{self.location}/run.json: not a run's manifest: {manifest!r:.40}")
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{self.location}/run.json: schema version {version}, but this sparcom reads "
                f"version {SCHEMA_VERSION}; open it with the version that wrote it"
            )
        return manifest

    def write_manifest(self, manifest: dict) -> None:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=1) + "\n"
        self._write_bytes("run.json", text.encode())

    def delete(self) -> None:
        """Remove the whole run; raises InputError where the location holds something else."""
        if self.exists() and not self.is_run():
            raise InputError(
                f"{self.location}: not a run (no run.json), so it is not overwritten; give another "
                "--out, or remove it yourself"
            )
        if self.exists():
            self._fs.delete_dir(self._root)

    # -- the corpus -----------------------------------------------------------------------------

    def write_corpus(
        self, instructions: Sequence[Instruction], prompts: Sequence[Prompt], part_size: int
    ) -> int:
        """Write corpus.parquet with `part_size` instructions a part; returns the number of parts."""
        table = to_table(instructions)
        columns = {
            "n_tokens": [len(p.token_ids) for p in prompts],
            "n_counted": [p.n_counted for p in prompts],
            "truncated": [p.truncated for p in prompts],
            "token_ids": [p.token_ids for p in prompts],
            "counted": [[at for span in p.counted for at in span] for p in prompts],
        }
        for name, values in columns.items():
            table = table.append_column(
                PROMPT_SCHEMA.field(name), pa.array(values, PROMPT_SCHEMA.field(name).type)
            )
        self._write_table("corpus.parquet", table, row_group_size=part_size)
        return -(-len(table) // part_size)

    def corpus(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The instructions as counted (`PROMPT_SCHEMA`), in corpus order."""
        return self._read_table("corpus.parquet", columns)

    def read_prompts(self, part: int) -> list[Prompt]:
        """The prompts of one part."""
        columns = ["id", "token_ids", "counted", "truncated"]
        with self._open("corpus.parquet") as file:
            rows = file.read_row_group(part, columns=columns).to_pylist()
        return [
            Prompt(
                row["id"],
                tuple(row["token_ids"]),
                tuple(zip(row["counted"][::2], row["counted"][1::2], strict=True)),
                row["truncated"],
            )
            for row in rows
        ]

    # -- results --------------------------------------------------------------------------------

    def write_part(
        self, part: int, counted: Counted | None, sets: Sets, failures: Sequence[Failure]
    ) -> None:
        """Write the results of one part; `counted` is None where counts are not retained."""
        name = part_name(part)
        if counted is not None:
            self._write_table(f"counts/{name}", counts_table(counted))
        if failures:
            rows = [{"id": f.id, "reason": f.reason} for f in failures]
            self._write_table(f"failed/{name}", pa.Table.from_pylist(rows, FAILED_SCHEMA))
        else:  # those of an earlier try
            self._discard(f"{self._root}/failed/{name}")
        self.write_sets(part, sets)

    def write_sets(self, part: int, sets: Sets) -> None:
        """Write the sets of one part: what marks it as done."""
        self._write_table(f"sets/{part_name(part)}", sets_table(sets))

    def done_parts(self) -> set[int]:
        """The parts that are done."""
        return {int(name[len("part-") : -len(".parquet")]) for name in self._names("sets")}

    def has_counts(self) -> bool:
        return bool(self._names("counts"))

    def count_parts(self) -> Iterator[tuple[int, Counted]]:
        """The counts of every part, one part at a time."""
        for name in self._names("counts"):
            part = int(name[len("part-") : -len(".parquet")])
            yield part, counts_of(self._read_table(f"counts/{name}"))

    def failures(self) -> list[Failure]:
        """The instructions that were set aside."""
        return [
            Failure(row["id"], row["reason"])
            for name in self._names("failed")
            for row in self._read_table(f"failed/{name}").to_pylist()
        ]

    def set_parts(self) -> Iterator[tuple[int, Sets]]:
        """The sets of every part, one part at a time."""
        for name in self._names("sets"):
            part = int(name[len("part-") : -len(".parquet")])
            yield part, sets_of(self._read_table(f"sets/{name}"))

    def read_sets(self) -> Sets:
        """The sets of all parts, in part order."""
        names = self._names("sets")
        if not names:
            raise InputError(f"{self.location}: no sets in this run; is it complete?")
        return concat_sets([sets_of(self._read_table(f"sets/{name}")) for name in names])

    def write_analysis(self, name: str, table: pa.Table) -> None:
        self._write_table(f"analysis/{name}.parquet", table)

    def write_file(self, name: str, data: bytes) -> str:
        """Write a file of the run (a report, a figure) and return its location."""
        self._write_bytes(name, data)
        return f"{self.location}/{name}"

    # -- files ----------------------------------------------------------------------------------

    def _is_file(self, name: str) -> bool:
        return self._fs.get_file_info(f"{self._root}/{name}").type == fs.FileType.File

    def _names(self, folder: str) -> list[str]:
        """Parquet files of a folder, sorted; temporary ones left out."""
        selector = fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        found = [i.base_name for i in self._fs.get_file_info(selector)]
        return sorted(n for n in found if n.startswith("part-") and n.endswith(".parquet"))

    @contextmanager
    def _open(self, name: str) -> Iterator[pq.ParquetFile]:
        path = f"{self._root}/{name}"
        try:
            with pq.ParquetFile(
                path, filesystem=self._fs, page_checksum_verification=True
            ) as file:
                yield file
        except (OSError, ValueError) as error:
            mend = (
                "start anew with --overwrite"
                if name == "corpus.parquet"
                else "delete this file and finish the run with --resume"
            )
            raise SparcomError(
                f"{self.location}/{name}: not readable as Parquet "
                f"({str(error).partition(chr(10))[0]}); {mend}"
            ) from error

    def _read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._open(name) as file:
            return file.read(columns=list(columns) if columns else None)

    def _write_table(self, name: str, table: pa.Table, row_group_size: int | None = None) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(
            table, sink, compression="zstd", row_group_size=row_group_size, write_page_checksum=True
        )
        self._write_bytes(name, sink.getvalue())

    def _write_bytes(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a whole file or nothing: under a temporary name, then renamed."""
        target = f"{self._root}/{name}"
        temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self._fs.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with self._fs.open_output_stream(temporary) as file:
                file.write(data)
            self._fs.move(temporary, target)
        except OSError as error:
            self._discard(temporary)
            raise SparcomError(
                f"{self.location}/{name}: cannot be written: {error}; what is already stored is "
                "kept, and --resume finishes the run"
            ) from error

    def _discard(self, path: str) -> None:
        if self._fs.get_file_info(path).type == fs.FileType.File:
            self._fs.delete_file(path)


class Run:
    """A finished run, opened for reading.

    >>> run = Run("runs/chat")
    >>> run.space.neurons, len(run.sets.ids)
    """

    def __init__(self, location: str | Path) -> None:
        self.store = RunStore(location)
        self.manifest = self.store.manifest()

    @cached_property
    def space(self) -> ComponentSpace:
        return ComponentSpace.from_json(self.manifest["sites"])

    @cached_property
    def sets(self) -> Sets:
        return self.store.read_sets()

    @cached_property
    def labels(self) -> pa.Table:
        """id, category, source, origin, n_tokens, n_counted of the instructions in `sets`, in its order."""
        table = self.store.corpus(
            ["id", "category", "source", "origin", "n_tokens", "n_counted", "truncated"]
        )
        row_of = {name: row for row, name in enumerate(table.column("id").to_pylist())}
        return table.take(pa.array([row_of[name] for name in self.sets.ids]))


def part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


def _matrix(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    """[n, width] as a column of lists of `width` numbers."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(kind, values.shape[1]))


def _packed(bits: np.ndarray) -> pa.FixedSizeBinaryArray:
    """[n, bytes] uint8 as a column of `bytes` bytes."""
    data = pa.py_buffer(np.ascontiguousarray(bits))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(bits.shape[1]), len(bits), [None, data])


def _from_matrix(table: pa.Table, name: str) -> np.ndarray:
    """[n, width] int32 of a column that `_matrix` made; width 0 where there is none."""
    if name not in table.column_names:
        return np.zeros((len(table), 0), np.int32)
    array = table[name].combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    return values.reshape(len(array), array.type.list_size)


def _from_packed(table: pa.Table, name: str) -> np.ndarray:
    """[n, bytes] uint8 of a column that `_packed` made; 0 bytes where there is none."""
    if name not in table.column_names:
        return np.zeros((len(table), 0), np.uint8)
    array = table[name].combine_chunks()
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    start = array.offset * width
    return data[start : start + len(array) * width].reshape(len(array), width)


def counts_table(counted: Counted) -> pa.Table:
    """Counts as Arrow: in 16 bits where T allows it, which every count of a part obeys."""
    kind = pa.uint16() if counted.tokens.max(initial=0) < 1 << 16 else pa.uint32()
    arrays = {"neurons": counted.neurons, "experts": counted.experts}
    return _table(
        counted.ids,
        counted.tokens,
        {
            n: _matrix(a.astype(kind.to_pandas_dtype()), kind)
            for n, a in arrays.items()
            if a.shape[1]
        },
    )


def counts_of(table: pa.Table) -> Counted:
    return Counted(
        tuple(table["id"].to_pylist()),
        table["tokens"].to_numpy().astype(np.int64),
        _from_matrix(table, "neurons"),
        _from_matrix(table, "experts"),
    )


def sets_table(sets: Sets) -> pa.Table:
    columns = {n: _matrix(getattr(sets, n), pa.int32()) for n in _SET_NUMBERS if _wide(sets, n)}
    columns |= {n: _packed(getattr(sets, n)) for n in _SET_BITS if _wide(sets, n)}
    return _table(sets.ids, sets.tokens, columns)


def sets_of(table: pa.Table) -> Sets:
    return Sets(
        ids=tuple(table["id"].to_pylist()),
        tokens=table["tokens"].to_numpy().astype(np.int64),
        **{name: _from_packed(table, name) for name in _SET_BITS},
        **{name: _from_matrix(table, name) for name in _SET_NUMBERS},
    )


_SET_BITS = ("neurons", "experts")
_SET_NUMBERS = ("cuts", "sizes", "expert_cuts", "expert_sizes")


def _wide(sets: Sets, name: str) -> bool:
    """Whether a column has any width: Parquet knows no columns of zero bytes, so a dense model's
    sets have no expert columns."""
    return getattr(sets, name).shape[1] > 0


def _table(ids: Sequence[str], tokens: np.ndarray, columns: dict[str, pa.Array]) -> pa.Table:
    head = {"id": pa.array(ids, pa.string()), "tokens": pa.array(tokens, pa.int32())}
    return pa.table(head | columns)


def concat_sets(parts: Sequence[Sets]) -> Sets:
    """The sets of several parts, one after the other."""
    ids = tuple(name for part in parts for name in part.ids)
    arrays = ("tokens", "neurons", "cuts", "sizes", "experts", "expert_cuts", "expert_sizes")
    return Sets(ids=ids, **{a: np.concatenate([getattr(p, a) for p in parts]) for a in arrays})


def concat_counted(parts: Sequence[Counted]) -> Counted:
    """The counts of several passes, one after the other."""
    ids = tuple(name for part in parts for name in part.ids)
    return Counted(
        ids,
        *(np.concatenate([getattr(p, a) for p in parts]) for a in ("tokens", "neurons", "experts")),
    )
