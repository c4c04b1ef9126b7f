"""The files of a corpus argument: which names are read, and what is refused by its looks."""

from collections.abc import Iterable
from pathlib import Path

from sparcom.corpus.reading.guard import UnreadableError, guarded
from sparcom.errors import InputError
from sparcom.formatting import shorten

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_OTHER_DATA = (".arrow", ".bz2", ".ndjson", ".parquet.gz", ".xlsx", ".xz", ".zip", ".zst")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def suffix_of(file: Path) -> str:
    """The suffix that decides the format, in lower case: the one before `.gz`, if that is last."""
    packed = file.suffix.lower() == ".gz"
    return (Path(file.stem).suffix if packed else file.suffix).lower()


def is_packed(file: Path) -> bool:
    """True for a file that gzip compressed."""
    return file.suffix.lower() == ".gz"


def is_corpus_file(file: Path) -> bool:
    """True for a name that `read_rows` takes. Hidden files and `.grid.jsonl` files are left out.

    A `.grid.jsonl` file lies beside a bundled category and says how its records were made.
    """
    hidden = file.name.startswith(".") or file.name.endswith(".grid.jsonl")
    packed_parquet = is_packed(file) and suffix_of(file) == ".parquet"
    return suffix_of(file) in SUFFIXES and not hidden and not packed_parquet


def corpus_files(path: str | Path) -> list[Path]:
    """The corpus files at a path: the file itself, or those of a folder, sorted by name.

    A broken link counts as a file, so that its reading fails rather than leaves it out.
    Raises InputError if there is none, or if the folder is of a kind that needs a conversion.
    """
    path, shown = Path(path), f"corpus {shorten(str(path), 200)}"
    with guarded(shown):
        if path.is_file():
            _check_name(path, shown)
            return [path]
        if not path.is_dir():
            raise InputError(f"{shown}: {_what_is_missing(path)}")
        inside = sorted(path.iterdir())
        _check_not_saved(inside, shown)
        files = [file for file in inside if is_corpus_file(file) and not file.is_dir()]
    if not files:
        raise InputError(f"{shown}: the folder holds no {', '.join(SUFFIXES)} file")
    return files


def other_data(path: str | Path) -> list[str]:
    """Names of a folder's files that hold data in a format that is not read."""
    with guarded(f"corpus {path}"):
        if not Path(path).is_dir():
            return []
        names = sorted(file.name for file in Path(path).iterdir())
    return [name for name in names if name.lower().endswith(_OTHER_DATA) and name[0] != "."]


def check_content(file: Path) -> None:
    """Raise UnreadableError for a file that stands for another one, or is not a regular file."""
    with guarded(str(file)):
        if not file.is_file():
            text = "not a regular file (a pipe or a device)" if file.exists() else "a broken link"
            raise UnreadableError(str(file), f"{text}; write the rows to a file")
        with file.open("rb") as data:
            start = data.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        text = "a Git LFS pointer, not the data itself; fetch the data with `git lfs pull`"
        raise UnreadableError(str(file), text)


def _check_name(path: Path, shown: str) -> None:
    if not is_corpus_file(path):
        got = "".join(path.suffixes[-2:]) or "no suffix"
        raise InputError(
            f"{shown}: expected {', '.join(SUFFIXES)}, got {shorten(got, 40)!r}; convert the file "
            "to one of them"
        )


def _what_is_missing(path: Path) -> str:
    if path.exists():
        return "neither a file nor a folder (a pipe or a device); write the rows to a file"
    return (
        f"no such file or folder; give a {', '.join(SUFFIXES)} file, a folder of them, "
        "hub:OWNER/NAME, or the name 'hexainst'"
    )


def _check_not_saved(inside: Iterable[Path], shown: str) -> None:
    names = {file.name for file in inside}
    if ("dataset_info.json" in names and "state.json" in names) or "dataset_dict.json" in names:
        raise InputError(
            f"{shown}: a folder of datasets' save_to_disk, which is not read; write the data set "
            "with `datasets.load_from_disk(FOLDER).to_parquet(FILE)` (each split by itself) and "
            "give that file"
        )
