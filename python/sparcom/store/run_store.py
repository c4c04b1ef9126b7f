"""The run directory: run.json and Parquet files, on any file system that pyarrow reaches.

run.json                     what was run, with what, and whether it is complete
corpus.parquet               the instructions as counted, with their token ids
counts/part-00000.parquet    T and every count, per instruction (retain counts)
sets/part-00000.parquet      cuts, sizes and packed sets, per instruction (retain counts, sets)
profiles/parts-00000-00015.parquet   sums over the instructions of these parts, by cell
failed/part-00000.parquet    instructions set aside, and why
analysis/*.parquet           what the analysis found
lock/                        who is writing
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sparcom.errors import InputError
from sparcom.store.corpus_file import NAME as CORPUS
from sparcom.store.corpus_file import CorpusReader, is_corpus_of_a_run
from sparcom.store.files import Files
from sparcom.store.lock import FOLDER as LOCK_FOLDER
from sparcom.store.profiles.files import ProfileFiles
from sparcom.store.profiles.spans import covered
from sparcom.store.results import Kind, ResultFiles
from sparcom.store.run_json import read_run_json, write_run_json
from sparcom.store.stamped import HINT, StampedFiles

FOLDERS: dict[str, tuple[Kind, ...]] = {
    "counts": ("counts", "sets"),
    "sets": ("sets",),
    "profile": (),
}
"""The folders, beside profiles, that a part's results lie in, for each retention."""
RESULT_FOLDERS = ("counts", "sets", "profiles", "failed")
_UNFINISHED = re.compile(r"(corpus\.parquet|run\.json)\.[0-9a-f]{8}\.tmp")


class RunStore:
    """A run directory, for writing and reading.

    location: local path or URI of the directory.
    stamps: folder ("corpus" for corpus.parquet) -> what its files are stamped with; None: as
        run.json has it.
    corpus, results, profiles: the files of the run, by kind.
    """

    def __init__(self, location: str | Path, stamps: Mapping[str, str] | None = None) -> None:
        self.files = Files(location)
        self.location = self.files.location
        self._stamps = stamps

    def bind(self, stamps: Mapping[str, str]) -> None:
        """Stamp files with these from now on, and check them against these."""
        self._stamps = stamps
        for name in ("stamps", "corpus", "results", "profiles"):
            vars(self).pop(name, None)

    # -- the manifest ---------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything lies at the location, but for a lock."""
        kind = self.files.root_type()
        if kind == fs.FileType.NotFound:
            return False
        return kind != fs.FileType.Directory or bool(set(self.files.names()) - {LOCK_FOLDER})

    def is_run(self) -> bool:
        """Whether the location holds a run."""
        return self.files.is_file("run.json")

    def is_abandoned(self) -> bool:
        """True if the folder holds only what a writer left that was killed before run.json."""
        if self.is_run() or self.files.root_type() != fs.FileType.Directory:
            return False
        left = {n for n in self.files.names() if n != LOCK_FOLDER and not _UNFINISHED.fullmatch(n)}
        return not left or (left == {CORPUS} and is_corpus_of_a_run(self.files))

    def manifest(self) -> dict[str, Any]:
        """run.json; raises InputError if there is none, or if it is not whole (`run_json`)."""
        if not self.is_run():
            raise InputError(f"{self.location}: no run here (it has no run.json)")
        return read_run_json(self.files)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_run_json(self.files, manifest)

    def delete(self) -> None:
        """Remove the whole run but for its lock; raises InputError if no run lies here."""
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

    # -- its files ------------------------------------------------------------------------------

    @cached_property
    def stamps(self) -> dict[str, str] | None:
        """What files are stamped with; None for a run of a version without stamps."""
        if self._stamps is not None:
            return dict(self._stamps)
        return self.manifest().get("stamps") if self.is_run() else None

    @cached_property
    def corpus(self) -> CorpusReader:
        """The instructions as counted."""
        return CorpusReader(self.files, self._stamp("corpus"))

    @cached_property
    def results(self) -> ResultFiles:
        """Counts, sets and failures."""
        return ResultFiles(self._folder("counts"), self._folder("sets"), self._folder("failed"))

    @cached_property
    def profiles(self) -> ProfileFiles:
        """Sums over instructions."""
        return ProfileFiles(self._folder("profiles"))

    def done_parts(self, retain: str) -> set[int]:
        """The parts that are done."""
        done = covered(self.profiles.spans())
        for folder in FOLDERS[retain]:
            done &= self.results.parts(folder)
        return done

    def stamped(self) -> list[StampedFiles]:
        """Every folder of results, for those that check all files."""
        return [self._folder(name) for name in RESULT_FOLDERS]

    def table_names(self) -> tuple[str, ...]:
        """Names of the tables in analysis/."""
        names = self.files.names("analysis")
        return tuple(n.removesuffix(".parquet") for n in names if n.endswith(".parquet"))

    def read_table(self, name: str) -> pa.Table:
        """A table of the analysis."""
        with self.files.parquet(f"analysis/{name}.parquet", HINT) as file:
            return file.read()

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table of the analysis."""
        self.files.write_table(f"analysis/{name}.parquet", table)

    def write_file(self, name: str, data: bytes) -> str:
        """Write a file of the run (a report, a figure) and return its location."""
        self.files.write_bytes(name, data)
        return f"{self.location}/{name}"

    def _folder(self, name: str) -> StampedFiles:
        return StampedFiles(self.files, name, self._stamp(name))

    def _stamp(self, name: str) -> str | None:
        return None if self.stamps is None else self.stamps.get(name, "")
