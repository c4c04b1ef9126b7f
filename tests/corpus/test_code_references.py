"""The references of the CODE records run, and do what their instruction asks.

A wrong reference would pass every check on form, and whoever grades a model by it would be misled.
So each one is executed: Python is loaded into a namespace, SQL is put to SQLite, a pattern to `re`,
a shell script to `sh`. The assertions for each record are in `code_references.py`.
"""

import json
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from code_references import CHECKS

CODE_FILE = files("sparcom.corpus") / "data" / "hexainst" / "CODE.jsonl"
RECORDS = {r["id"]: r for r in map(json.loads, CODE_FILE.read_text("utf-8").splitlines())}
NOT_PYTHON = {"sql-query", "regex", "shell-script"}


def run(setup_sql: str, query: str) -> list[tuple[Any, ...]]:
    """The rows that `query` returns on a fresh SQLite database made by `setup_sql`."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(setup_sql)
        return database.execute(query).fetchall()


def sh(script: str, stdin: str = "", files: Mapping[str, str] | None = None) -> str:
    """What `script` prints when sh runs it in a folder that holds only `files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (files or {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        # awk's decimal point and the order of sort follow the locale
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(["sh", "-c", script], input=stdin, cwd=folder, env=environment,
                              capture_output=True, text=True, timeout=60, check=True)
        return done.stdout


def test_every_record_has_a_check() -> None:
    assert list(CHECKS) == list(RECORDS)


@pytest.mark.parametrize("record_id", CHECKS)
def test_reference_passes_its_check(record_id: str) -> None:
    record = RECORDS[record_id]
    task_kind = record["origin"].split("/")[1]
    namespace = {"__name__": record_id, "REFERENCE": record["reference"], "run": run, "sh": sh}
    if task_kind not in NOT_PYTHON:
        exec(compile(record["reference"], f"{record_id}.reference", "exec"), namespace)
    exec(compile(CHECKS[record_id], f"{record_id}.check", "exec"), namespace)
