"""Whether code that a model wrote passes the tests of its instruction, run in a sandbox.

Tests are the `assert` lines of the instruction itself (as in MBPP), or those that come with the
bundled records.
"""

import ast
import re
from collections.abc import Callable

from sparcom.behaviour.sandbox import passes
from sparcom.corpus.hexainst.code_checks import CHECKS
from sparcom.corpus.schema import Instruction

_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_HELPERS = """
import sqlite3, subprocess, tempfile, os
from contextlib import closing
from pathlib import Path


def run(setup_sql, query):
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(setup_sql)
        return database.execute(query).fetchall()


def sh(script, stdin="", files=None):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (files or {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        env = {**os.environ, "LC_ALL": "C"}
        command = ["sh", "-c", script]
        return subprocess.check_output(command, input=stdin, cwd=folder, env=env, text=True)
"""


def code_check(item: Instruction) -> Callable[[str], bool] | None:
    """True for answers whose code passes the tests of an instruction; None if it has none.

    A test is left out if it calls a name that the instruction does not say.
    """
    asserts = re.findall(r"(?m)^assert .+$", item.text)
    if asserts:
        tests = "\n".join(asserts)
        return lambda answer: passes(f"{code_of(answer)}\n{tests}\n")
    if item.id not in CHECKS:
        return None
    tests, names = CHECKS[item.id], _defined(item.reference)
    if names is None:  # SQL, a pattern, a shell script: the tests read it as text
        return lambda answer: passes(f"{_HELPERS}\nREFERENCE = {code_of(answer)!r}\n{tests}")
    called = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    if not all(re.search(rf"\b{name}\b", item.text) for name in names & called):
        return None
    return lambda answer: passes(
        f"{code_of(answer)}\n{_HELPERS}\nREFERENCE = {code_of(answer)!r}\n{tests}"
    )


def code_of(answer: str) -> str:
    """The first fenced block of an answer; without one all of it."""
    found = _BLOCK.search(answer)
    return found[1] if found else answer


def _defined(source: str) -> set[str] | None:
    """Names that Python source defines; None if it is no Python that defines any."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return None
    names = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names or None
