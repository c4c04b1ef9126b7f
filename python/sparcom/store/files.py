"""A folder on any file system that pyarrow reaches; every file in it appears whole or not at all.

On file systems with a rename (local, NFS, HDFS) a file is written under a temporary name, flushed
to the disk and renamed. On object stores a file appears when its upload ends, and an upload cannot
be given up half-way; so it is kept aside until it is whole, then uploaded under its own name.
"""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sparcom.errors import InputError, SparcomError
from sparcom.formatting import shorten

OBJECT_STORES = ("s3", "gcs", "abfs")
_SPOOL_BYTES = 64 << 20
_COPY_BYTES = 8 << 20
_LONGEST_NAME = 255  # bytes, on every file system of Linux
_STREAM_BYTES = 1 << 20
_SECRET_KEYS = ("access_key", "secret_key", "session_token", "account_key", "sas_token")
_REACH = "check the rights, the credentials and the connection"
_KEPT = "what is already stored is kept, and --resume finishes the run"


class Files:
    """The files of one folder.

    location: local path, or URI without credentials in it.
    Raises InputError for a URI that no file system takes, or that holds credentials. Its methods
    raise SparcomError where the file system does not do what it is asked.
    """

    def __init__(self, location: str | Path) -> None:
        text = str(location)
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise InputError(f"{shorten(repr(text), 200)}: not the text of a location")
        if "://" in text:
            try:
                refuse_credentials(text)
                self.fs, self.root = fs.FileSystem.from_uri(_one_request_a_file(text))
            except (OSError, ValueError) as error:
                raise InputError(f"{text}: no file system for this location: {error}") from error
            self.location = text.rstrip("/")
        else:
            self.fs, self.root = fs.LocalFileSystem(), _local_root(text)
            self.location = self.root

    @property
    def local(self) -> bool:
        return self.fs.type_name == "local"

    # -- what is there --------------------------------------------------------------------------

    def is_file(self, name: str) -> bool:
        return self._info(self._path(name)).type == fs.FileType.File

    def modified(self, name: str) -> datetime | None:
        """When a file was written, by the clock of the file system; None where it is gone."""
        info = self._info(self._path(name))
        return info.mtime if info.type == fs.FileType.File else None

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if there is none."""
        return self._info(self._path(name)).size or 0

    def root_type(self) -> fs.FileType:
        return self._info(self.root).type

    def names(self, folder: str = "") -> list[str]:
        """Base names of what lies in a folder, sorted; none where there is no such folder."""
        path = self._path(folder) if folder else self.root
        with self._asking(path, "listed"):
            found = self.fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def free_bytes(self) -> int | None:
        """Free space of a local disk; None where that cannot be known."""
        if not self.local:
            return None
        root = Path(self.root)
        with self._asking(self.root, "looked up"):
            return shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free

    # -- reading --------------------------------------------------------------------------------

    def read_bytes(self, name: str) -> bytes:
        path = self._path(name)
        with self._asking(path, "read"), self.fs.open_input_stream(path) as file:
            return file.read()

    @contextmanager
    def parquet(
        self,
        name: str,
        hint: str,
        metadata: pq.FileMetaData | None = None,
        *,
        streamed: bool = False,
    ) -> Iterator[pq.ParquetFile]:
        """A Parquet file, its pages checked against their checksums.

        hint: what to do if it cannot be read, which an InputError then says.
        streamed: fetch it in pieces of 1 MB, in place of whole columns.
        """
        try:
            with pq.ParquetFile(
                self._path(name),
                filesystem=self.fs,
                metadata=metadata,
                page_checksum_verification=True,
                buffer_size=_STREAM_BYTES if streamed else 0,
            ) as file:
                yield file
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{self.location}/{name}: not readable as Parquet ({reason}); {hint}"
            ) from error

    # -- writing --------------------------------------------------------------------------------

    def write_bytes(self, name: str, data: bytes | pa.Buffer) -> None:
        with self.writing(name) as file:
            file.write(data)

    def write_table(
        self, name: str, table: pa.Table, metadata: dict[str, str] | None = None
    ) -> None:
        """Write a Parquet file; metadata: text kept in its schema."""
        if metadata:
            table = table.replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        self.write_bytes(name, sink.getvalue())

    @contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """A stream whose content becomes the file when the block ends, and nothing if it fails."""
        path = self._path(name)
        upload = self.fs.type_name in OBJECT_STORES
        with (
            self._asking(path, "written", self._kept),
            self._uploading(path) if upload else self._renaming(path) as file,
        ):
            yield file

    @contextmanager
    def _renaming(self, target: str) -> Iterator[Any]:
        path = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self.fs.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with self.fs.open_output_stream(path) as file:
                yield file
            self._flush(path)
            self.fs.move(path, target)
        except BaseException:
            with suppress(OSError):  # the first error is what counts
                self._discard(path)
            raise

    @contextmanager
    def _uploading(self, target: str) -> Iterator[Any]:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as aside:
            yield aside
            size = aside.tell()
            aside.seek(0)
            file = self.fs.open_output_stream(target)
            try:
                shutil.copyfileobj(aside, file, _COPY_BYTES)
            except BaseException:
                with suppress(OSError):  # then nothing has appeared, and what was there stays
                    whole = file.tell() == size
                    file.close()  # which publishes what was copied so far
                    if not whole:
                        self._discard(target)
                raise
            file.close()

    def delete(self, name: str) -> None:
        """Delete a file, where there is one."""
        path = self._path(name)
        with self._asking(path, "deleted"):
            self._discard(path)

    def delete_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it, where there is one."""
        path = self._path(folder)
        if self._info(path).type == fs.FileType.Directory:
            with self._asking(path, "deleted"):
                self.fs.delete_dir(path)

    def delete_if_empty(self, folder: str = "") -> None:
        """Delete a folder (this one, where none is named) of a local disk where nothing lies in it.

        Elsewhere it stays: the file systems of pyarrow delete a folder only with all that is in it,
        what another driver has just put there among it. Object stores have no empty folders.
        """
        if self.local:
            with suppress(OSError):  # there is something in it, or no such folder
                os.rmdir(self._path(folder) if folder else self.root)

    def sweep(self, folders: Sequence[str]) -> None:
        """Delete the temporary files that killed writers left in the folder and some of its own."""
        for folder in ("", *folders):
            for name in self.names(folder):
                if name.endswith(".tmp"):
                    self.delete(f"{folder}/{name}" if folder else name)

    @contextmanager
    def _asking(
        self, path: str, done: str, hint: Callable[[], str] = lambda: _REACH
    ) -> Iterator[None]:
        """Within the block an error of the file system becomes one of ours, in one line."""
        try:
            yield
        except OSError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where = self.location + path.removeprefix(self.root)
            raise SparcomError(f"{where}: cannot be {done}: {reason}; {hint()}") from error

    def _kept(self) -> str:
        """What to do if a file cannot be written: resume, if there is a run."""
        with suppress(OSError):
            if self.fs.get_file_info(f"{self.root}/run.json").type == fs.FileType.File:
                return _KEPT
        return _REACH

    def _info(self, path: str) -> fs.FileInfo:
        with self._asking(path, "looked up"):
            return self.fs.get_file_info(path)

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name:
            raise InputError(f"{name!r}: not the name of a file inside {self.location}")
        return f"{self.root}/{name}"

    def _flush(self, path: str) -> None:
        """Force a file to the disk before it is renamed: a crash must not leave an empty one."""
        if self.local:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _discard(self, path: str) -> None:
        if self.fs.get_file_info(path).type == fs.FileType.File:
            with suppress(FileNotFoundError):  # another driver was faster
                self.fs.delete_file(path)


def _local_root(text: str) -> str:
    """The absolute path of a folder that may exist.

    Raises InputError for a path that none can have: below a file, at the end of a broken link, with
    a name that is too long.
    """
    try:
        path = Path(text).expanduser().absolute()
        there = next(p for p in (path, *path.parents) if p.is_symlink() or p.exists())
        there.stat()  # of a link that is broken, or part of a loop: an error
        if there != path and not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
        if max(len(os.fsencode(part)) for part in path.parts) > _LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, "a name in it is too long")
    except (OSError, RuntimeError) as error:  # RuntimeError: "~" of an unknown user
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError):
            reason = "it is a broken link"
        raise InputError(f"{shorten(text, 200)}: no folder can lie there: {reason}") from error
    return str(path)


def _one_request_a_file(uri: str) -> str:
    """The URI with pyarrow told to upload small files to S3 in one request, not in three."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def refuse_credentials(uri: str) -> None:
    """Raise InputError, without repeating them, where a URI holds credentials: it would end up in
    run.json, in logs and in reports."""
    parts = urlsplit(uri)
    if "@" in parts.netloc or set(_SECRET_KEYS) & set(parse_qs(parts.query)):
        raise InputError(
            f"{parts.scheme}://.../{parts.path.lstrip('/')}: credentials do not belong into a "
            "location; give them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS) or by the machine's role"
        )
