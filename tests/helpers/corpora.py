"""Small corpora on disk for the tests of reading."""

import csv
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NASTY = (
    "<b>bold</b> \x00\x1b[31m \u202eright to left\u202c שלום \u200bzero e\u0301 "
    "\U0001f469\u200d\U0001f467"
)


def record(at: int, **changes: object) -> dict:
    """A valid record, number `at`, with some fields changed."""
    base = {
        "id": f"r-{at}",
        "category": ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")[at % 6],
        "source": "human",
        "origin": "test",
        "license": "CC0-1.0",
        "instruction": f"Please do task number {at}, and do it well.",
        "input": "",
        "reference": f"done {at}",
    }
    return base | changes


def write(path: Path, rows: Sequence[Mapping]) -> Path:
    """Write rows in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif kind == ".json":
            json.dump(list(rows), file)
        else:
            delimiter = "\t" if kind == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def human_half() -> Path:
    """The 600 human-written records, which are not part of the project; skips where absent."""
    default = Path(__file__).parents[2] / ".." / "shared" / "data" / "hexainst_human"
    folder = Path(os.environ.get("SPARCOM_HUMAN", default))
    if not folder.is_dir():
        pytest.skip(f"no human half in {folder}; name its folder in SPARCOM_HUMAN")
    return folder
