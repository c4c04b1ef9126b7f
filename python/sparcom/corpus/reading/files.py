"""Which files are corpora: their names, and the files of a corpus argument."""

from pathlib import Path

from sparcom.errors import InputError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def suffix_of(file: Path) -> str:
    """The suffix that decides the format: the one before `.gz`, if the name ends so."""
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def is_corpus_file(file: Path) -> bool:
    """True for a name that `read_rows` takes. Hidden files and `.grid.jsonl` files are left out.

    A `.grid.jsonl` file lies beside a bundled category and says how its records were made.
    """
    hidden = file.name.startswith(".") or file.name.endswith(".grid.jsonl")
    packed_parquet = file.name.endswith(".parquet.gz")
    return suffix_of(file) in SUFFIXES and not hidden and not packed_parquet


def corpus_files(path: str | Path) -> list[Path]:
    """The corpus files at a path: the file itself, or those of a folder, sorted by name."""
    path = Path(path)
    if path.is_file():
        if not is_corpus_file(path):
            raise InputError(
                f"corpus {path}: expected {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
            )
        return [path]
    if not path.is_dir():
        raise InputError(
            f"corpus {path}: no such file or folder; give a {', '.join(SUFFIXES)} file, a folder "
            "of them, hub:OWNER/NAME, or the name 'hexainst'"
        )
    files = sorted(file for file in path.iterdir() if is_corpus_file(file) and file.is_file())
    if not files:
        raise InputError(f"corpus {path}: the folder holds no {', '.join(SUFFIXES)} file")
    return files
