"""How the answer to an instruction is scored: one metric for each category, 1 for right, 0 for not.

MATH          exact match   the same number or expression as the reference's (math-verify)
QA, others    exact match   the reference or an alias, but for case, articles and punctuation
CLS           label         the answer is, or begins with, the reference
GEN, SUM      constraints   every demand of the instruction that a program can tell is kept
CODE          pass@1        the code passes the record's tests; only if code may be run
"""

import csv
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparcom.behaviour.code import code_check
from sparcom.behaviour.maths import math_check
from sparcom.corpus.hexainst.constraints import constraint_of
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

Aliases = Mapping[str, Sequence[str]]
"""Id of an instruction -> further answers that are right."""


@dataclass(frozen=True)
class Task:
    """metric: its name. right: True if an answer is right."""

    metric: str
    right: Callable[[str], bool]


def task_of(item: Instruction, aliases: Aliases, *, run_code: bool) -> Task | None:
    """How answers to an instruction are scored; None if no way is known.

    aliases: further right answers, of categories scored by exact match or label.
    run_code: answers to CODE may be run, in a sandbox.
    """
    if item.category == "CODE":
        check = code_check(item) if run_code else None
        return check and Task("pass@1", check)
    if item.category in ("GEN", "SUM"):
        keeps = constraint_of(item.id)
        return keeps and Task("constraints", keeps)
    accepted = [item.reference, *aliases.get(item.id, ())]
    if not item.reference:
        return None
    if item.category == "CLS":
        labels = [found for one in accepted if (found := _words(one))]
        return Task("label", lambda answer: _is_label(answer, labels)) if labels else None
    if item.category == "MATH":
        checks = [math_check(one) for one in accepted]
        return Task("exact match", lambda answer: any(check(answer) for check in checks))
    normal = {normalise(one) for one in accepted} - {""}  # else an empty answer were right
    return Task("exact match", lambda answer: normalise(answer) in normal) if normal else None


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and further spaces, as SQuAD compares answers.

    >>> normalise("The  Eiffel Tower.")
    'eiffel tower'
    """
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def _words(text: str) -> list[str]:
    """Articles count here: "a" may be a label."""
    return re.findall(r"\w+", text.lower())


def _is_label(answer: str, labels: Sequence[list[str]]) -> bool:
    words = _words(answer)
    return any(words[: len(label)] == label for label in labels)


def read_aliases(path: str | None) -> Aliases:
    """Aliases of a CSV file with the columns id and alias, a row for each; None: none.

    Raises InputError if it cannot be read, or if an alias is blank.
    """
    if path is None:
        return {}
    out: dict[str, list[str]] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"id", "alias"} <= set(rows.fieldnames or ()):
                raise InputError(f"aliases {path}: expected the columns id and alias")
            for row in rows:
                if not (row["alias"] or "").strip():
                    raise InputError(f"aliases {path}: line {rows.line_num}: the alias is blank")
                out.setdefault(row["id"], []).append(row["alias"])
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"aliases {path}: cannot be read: {error}") from error
    return out
