"""The references of the CODE records run, and do what their instruction asks.

A wrong reference would pass every check on form, and whoever grades a model by it would be misled.
So each one is executed: Python is loaded into a namespace, SQL is put to SQLite, a pattern to `re`,
a shell script to `sh`. The assertions for each record are in `code_references.py`.
"""

import json
import linecache
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sparcom.corpus.hexainst.code_checks import CHECKS

CODE_FILE = resources.files("sparcom.corpus.hexainst") / "data" / "hexainst" / "CODE.jsonl"
RECORDS = {r["id"]: r for r in map(json.loads, CODE_FILE.read_text("utf-8").splitlines())}
# awk's decimal point and the order of sort follow the locale
C_LOCALE = {**os.environ, "LC_ALL": "C"}
NOT_PYTHON = {"sql-query", "regex", "shell-script"}


def run(setup_sql: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of `query` on a fresh SQLite database made by `setup_sql`."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(setup_sql)
        return database.execute(query).fetchall()


def sh(script: str, stdin: str = "", files: Mapping[str, str] | None = None) -> str:
    """Return what `script` prints when sh runs it in a folder that holds only `files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (files or {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        command = ["sh", "-c", script]
        return subprocess.check_output(command, input=stdin, cwd=folder, env=C_LOCALE, text=True)


def execute(source: str, filename: str, namespace: dict[str, Any]) -> None:
    """Execute `source` so that a failure shows the line that failed."""
    linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    exec(compile(source, filename, "exec"), namespace)


def test_every_record_has_a_check() -> None:
    assert list(CHECKS) == list(RECORDS)


@pytest.mark.parametrize("record_id", CHECKS)
def test_reference_passes_its_check(record_id: str) -> None:
    record = RECORDS[record_id]
    task_kind = record["origin"].split("/")[1]
    namespace = {"__name__": record_id, "REFERENCE": record["reference"], "run": run, "sh": sh}
    if task_kind not in NOT_PYTHON:
        execute(record["reference"], f"{record_id} reference", namespace)
    execute(CHECKS[record_id], f"{record_id} check", namespace)
