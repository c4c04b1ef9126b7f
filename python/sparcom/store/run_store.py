"""The run directory: run.json and Parquet files, on any file system that pyarrow reaches.

    run.json                     what was run, with what, and whether it is complete
    corpus.parquet               the instructions as counted, with their token ids
    counts/part-00000.parquet    T and every count, per instruction (retain counts)
    sets/part-00000.parquet      cuts, sizes and packed sets, per instruction (retain counts, sets)
    profiles/parts-00000-00015.parquet   sums over the instructions of these parts, by cell
    failed/part-00000.parquet    instructions set aside, and why
    lock/                        who is writing

A *part* is a fixed group of instructions, planned before counting starts, and the unit of work: it
is counted as a whole by one worker and written file by file, the profile last. A part is done when
all files of its retention are there; writing it again replaces it by itself.
"""

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.errors import InputError, SparcomError
from sparcom.selection.sets import Sets
from sparcom.store.corpus_file import NAME as CORPUS
from sparcom.store.corpus_file import CorpusReader, writing_corpus
from sparcom.store.files import Files
from sparcom.store.lock import FOLDER as LOCK_FOLDER
from sparcom.store.profiles import merge
from sparcom.store.profiles.spans import Span, covered, outermost, part_name, span_of
from sparcom.store.tables import (
    FAILED_SCHEMA,
    concat_sets,
    counts_of,
    counts_table,
    sets_of,
    sets_table,
)

SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Schema versions that this version opens; 1 has no stamps in run.json."""
RETAIN = ("counts", "sets", "profile")
FOLDERS = {"counts": ("counts", "sets"), "sets": ("sets",), "profile": ()}
"""The folders, beside profiles, that a part's results lie in, for each retention."""
RESULT_FOLDERS = ("counts", "sets", "profiles", "failed")
_UNFINISHED = re.compile(r"(corpus\.parquet|run\.json)\.[0-9a-f]{8}\.tmp")
_HINT = "delete this file and finish the run with --resume"


class RunStore:
    """A run directory, for writing and reading.

    location: local path or URI of the directory.
    stamps: folder -> fingerprint of the measurement (and of the selection, where sets went in)
        that is written; kept in every result file, so that another run's is never taken for its
        own.
    """

    def __init__(self, location: str | Path, stamps: Mapping[str, str] | None = None) -> None:
        self.files = Files(location)
        self.location = self.files.location
        self.stamps = dict(stamps or {})
        self._corpus = CorpusReader(self.files)

    # -- the manifest ---------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything lies at the location, but for a lock."""
        kind = self.files.root_type()
        if kind == fs.FileType.NotFound:
            return False
        return kind == fs.FileType.File or bool(set(self.files.names()) - {LOCK_FOLDER})

    def is_run(self) -> bool:
        """Whether the location holds a run."""
        return self.files.is_file("run.json")

    def is_abandoned(self) -> bool:
        """Whether all that lies here is what a writer left that was killed before run.json."""
        if self.is_run() or self.files.root_type() != fs.FileType.Directory:
            return False
        left = {n for n in self.files.names() if n != LOCK_FOLDER and not _UNFINISHED.fullmatch(n)}
        return not left or (left == {CORPUS} and self._corpus.is_ours())

    def manifest(self) -> dict:
        """run.json; raises InputError where there is none or its schema version is unknown."""
        if not self.is_run():
            raise InputError(f"{self.location}: no run here (it has no run.json)")
        try:
            manifest = json.loads(self.files.read_bytes("run.json").decode("utf-8"))
        except ValueError as error:
            raise InputError(f"{self.location}/run.json: not JSON: {error}") from error
        if not isinstance(manifest, dict):
            raise InputError(f"{self.location}/run.json: not a run's manifest: {manifest!r:.40}")
        version = manifest.get("schema_version")
        if version not in READABLE:
            raise InputError(
                f"{self.location}/run.json: schema version {version}, but this sparcom reads "
                f"versions {READABLE[0]} to {READABLE[-1]}; open it with the version that wrote it"
            )
        return manifest

    def write_manifest(self, manifest: dict) -> None:
        text = json.dumps({**manifest, "schema_version": SCHEMA_VERSION}, indent=1) + "\n"
        self.files.write_bytes("run.json", text.encode())

    def delete(self) -> None:
        """Remove the whole run but for its lock; raises InputError where no run lies here."""
        if self.exists() and not self.is_run():
            raise InputError(
                f"{self.location}: not a run (no run.json), so it is not overwritten; give another "
                "--out, or remove it yourself"
            )
        names = {n for n in self.files.names() if n != LOCK_FOLDER and not n.endswith(".tmp")}
        for name in sorted(names, reverse=True):  # run.json, which makes it a run, last but one
            if name != "run.json":
                self.files.delete(name)
                self.files.delete_folder(name)
        if names:
            self.files.delete("run.json")
        self.files.delete_if_empty()

    # -- the corpus -----------------------------------------------------------------------------

    def write_corpus(
        self, instructions: Sequence[Instruction], prompts: Sequence[Prompt], part_size: int
    ) -> int:
        """Write corpus.parquet with `part_size` instructions a part; the number of parts."""
        with writing_corpus(self.files) as writer:
            for start in range(0, len(prompts), part_size):
                part = slice(start, start + part_size)
                writer.add(instructions[part], prompts[part])
        return writer.parts

    def corpus(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The instructions as counted (`PROMPT_SCHEMA`), in corpus order."""
        return self._corpus.table(columns)

    def corpus_part(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of the instructions of one part."""
        return self._corpus.part(part, columns)

    def parts(self) -> int:
        """The number of parts that were planned."""
        return self._corpus.parts()

    def read_prompts(self, part: int) -> list[Prompt]:
        """The prompts of one part."""
        return self.read_part(part)[0]

    def read_part(self, part: int) -> tuple[list[Prompt], pa.Table]:
        """The prompts of one part, and the columns that tell their cells."""
        return self._corpus.prompts(part)

    # -- results, part by part --------------------------------------------------------------------

    def write_part(
        self,
        part: int,
        counted: Counted | None,
        sets: Sets | None,
        failures: Sequence[Failure],
        profile: pa.Table | None = None,
    ) -> None:
        """Write the results of one part: those that are given, the profile, which ends it, last."""
        name = part_name(part)
        if counted is not None:
            self._write(f"counts/{name}", counts_table(counted))
        if failures:
            rows = [{"id": f.id, "reason": f.reason} for f in failures]
            self._write(f"failed/{name}", pa.Table.from_pylist(rows, FAILED_SCHEMA))
        else:  # those of an earlier try
            self.files.delete(f"failed/{name}")
        if sets is not None:
            self.write_sets(part, sets)
        if profile is not None:
            self.write_profile(part, profile)

    def write_sets(self, part: int, sets: Sets) -> None:
        self._write(f"sets/{part_name(part)}", sets_table(sets))

    def write_profile(self, part: int, profile: pa.Table) -> None:
        """Write the profile of one part."""
        name = f"profiles/{part_name(part)}"
        merge.write_profile(self.files, name, profile, {"sparcom": self.stamp("profiles")})

    def done_parts(self, retain: str) -> set[int]:
        """The parts that are done."""
        done = covered(self.spans())
        for folder in FOLDERS[retain]:
            done &= {span.first for span in self._spans(folder)}
        return done

    def has_counts(self) -> bool:
        return bool(self._spans("counts"))

    def has_sets(self) -> bool:
        return bool(self._spans("sets"))

    def count_parts(self) -> Iterator[tuple[int, Counted]]:
        """The counts of every part, one part at a time."""
        for span in self._spans("counts"):
            yield span.first, counts_of(self.read_table(f"counts/{span.name}"))

    def set_parts(self, space: ComponentSpace) -> Iterator[tuple[int, Sets]]:
        """The sets of every part, one part at a time."""
        for span in self._spans("sets"):
            yield span.first, sets_of(self.read_table(f"sets/{span.name}"), space)

    def set_heads(self) -> pa.Table:
        """id, tokens (T) and sizes of every instruction that has a set, in part order: what is
        known of the sets without reading one."""
        columns = ["id", "tokens", "sizes"]
        tables = []
        for span in self._spans("sets"):
            with self.files.parquet(f"sets/{span.name}", _HINT) as file:
                tables.append(file.read(columns=columns))
        return pa.concat_tables(tables)

    def profile_ids(self) -> list[str]:
        """The instructions that the profile sums over."""
        ids: list[str] = []
        for span in outermost(self.spans()):
            with self.files.parquet(f"profiles/{span.name}", _HINT) as file:
                ids += pc.list_flatten(file.read(columns=["ids"])["ids"]).to_pylist()
        return ids

    def read_sets(self, space: ComponentSpace) -> Sets:
        """The sets of all parts, in part order."""
        if not self.has_sets():
            raise InputError(
                f"{self.location}: no sets in this run; it is not complete, or retains only its "
                "profile"
            )
        return concat_sets([sets for _, sets in self.set_parts(space)])

    def failures(self, without: Container[int] = ()) -> list[Failure]:
        """The instructions that were set aside; without: parts that are left out."""
        return [
            Failure(row["id"], row["reason"])
            for span in self._spans("failed")
            if span.first not in without
            for row in self.read_table(f"failed/{span.name}").to_pylist()
        ]

    # -- profiles -------------------------------------------------------------------------------

    def spans(self) -> list[Span]:
        """The spans of parts whose profiles are stored, merged ones among them."""
        return self._spans("profiles")

    def merge_span(self, span: Span) -> None:
        """Merge the profiles inside a span into one file, and remove them.

        Raises SparcomError where one is missing: the merged file would cover its part all the same.
        """
        inside = [s for s in outermost(self.spans()) if span.holds(s)]
        if missing := set(range(*span)) - covered(inside):
            raise SparcomError(
                f"{self.location}/profiles/{span.name}: cannot be merged, since part "
                f"{min(missing)} has no profile; finish the run with --resume"
            )
        if inside != [span]:
            names = [f"profiles/{s.name}" for s in inside]
            merge.merge_profiles(self.files, names, f"profiles/{span.name}")
        for old in self.spans():
            if span.holds(old) and old != span:
                self.files.delete(f"profiles/{old.name}")

    def read_profile(
        self, by: Sequence[str], columns: Sequence[str]
    ) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """The run's profile, summed over everything but the keys `by` (see `merge.read_sums`).

        >>> cells, sums = store.read_profile(("category", "source", "length"), ("neurons",))
        """
        names = [f"profiles/{span.name}" for span in outermost(self.spans())]
        if not names:
            raise InputError(f"{self.location}: no profile in this run; is it complete?")
        return merge.read_sums(self.files, names, by, columns)

    # -- other files ------------------------------------------------------------------------------

    def write_analysis(self, name: str, table: pa.Table) -> None:
        self.files.write_table(f"analysis/{name}.parquet", table)

    def write_file(self, name: str, data: bytes) -> str:
        """Write a file of the run (a report, a figure) and return its location."""
        self.files.write_bytes(name, data)
        return f"{self.location}/{name}"

    def stamp(self, folder: str) -> str:
        """What the files of a folder are stamped with."""
        return self.stamps.get(folder, "")

    def _spans(self, folder: str) -> list[Span]:
        return sorted(s for n in self.files.names(folder) if (s := span_of(n)) is not None)

    def read_table(self, name: str) -> pa.Table:
        with self.files.parquet(name, _HINT) as file:
            return file.read()

    def _write(self, name: str, table: pa.Table) -> None:
        self.files.write_table(name, table, {"sparcom": self.stamp(name.partition("/")[0])})
