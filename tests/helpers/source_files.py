"""Small stand-ins for the public data sets of the recipe, each in its own format and fields.

`ROWS[name](at)` is row `at` of the source as the hub has it; `RAW` names the sources whose original
files have other fields or another shape. All text is random words.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpora import write

_SYLLABLES = ["ba", "ce", "di", "fo", "gu", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "xo"]


def words(n: int, seed: object) -> str:
    """`n` random words, the same for the same seed."""
    rng = random.Random(str(seed))
    return " ".join("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(n))


def _flan(tasks: list[str], question: bool) -> Callable[[int], dict]:
    def row(at: int) -> dict:
        inverse = at % 5 == 4  # a template that asks for the text; must not be drawn
        return {
            "inputs": words(30, at) + ("?" if question and not inverse else "."),
            "targets": words(40 if inverse else 2, f"t{at}"),
            "task": f"{tasks[at % len(tasks)]}_10templates",
        }

    return row


_CLS = ["snli", "sst2", "trec", "rte", "word_segment"]  # the last is not in the recipe
_QA = ["bool_q", "arc_easy", "squad_v1", "word_segment"]

ROWS: dict[str, Callable[[int], dict]] = {
    "flan-cls": _flan(_CLS, question=False),
    "flan-qa": _flan(_QA, question=True),
    "banking77": lambda at: {
        "text": words(9, at),
        "label": at % 7,
        "label_text": f"card_kind_{at % 7}",
    },
    "poem-sentiment": lambda at: {"id": at, "verse_text": words(8, at), "label": at % 4},
    "dbpedia": lambda at: {"label": at % 14, "title": words(2, at), "content": words(30, -at)},
    "humaneval": lambda at: {
        "task_id": f"HumanEval/{at}",
        "prompt": f'\n\ndef f{at}(a):\n    """{words(20, at)}"""\n',
        "canonical_solution": f"    return {at}\n",
        "test": "def check(candidate): pass",
        "entry_point": f"f{at}",
    },
    "mbpp": lambda at: {
        "source_file": "x.ipynb",
        "task_id": at,
        "prompt": f"Write a function that {words(12, at)}.",
        "code": f"def g{at}(): return {at}",
        "test_imports": [],
        "test_list": [f"assert g{at}() == {at}", f"assert g{at}() > -1"],
    },
    "trivia-qa": lambda at: {
        "question": words(12, at) + "?",
        "question_id": f"tc_{at}",
        "question_source": "http://example.org",
        "entity_pages": [],
        "search_results": [],
        "answer": {"aliases": ["x"], "value": words(2, f"a{at}"), "type": "WikipediaEntity"},
    },
    "nq-open": lambda at: {"question": words(9, at), "answer": [words(2, at), "other"]},
    "mt-bench": lambda at: {
        "prompt": [words(25, at), words(10, at)],
        "prompt_id": at,
        "category": ("writing", "roleplay", "humanities", "math")[at % 4],
        "reference": [],
    },
    "dolly-gen": lambda at: _dolly(at),
    "dolly-sum": lambda at: _dolly(at),
    "math-500": lambda at: {
        "problem": f"Find $x$. {words(20, at)}",
        "solution": "so",
        "answer": str(at),
        "subject": ("Algebra", "Geometry", "Number Theory")[at % 3],
        "level": 1 + at % 5,
        "unique_id": f"test/algebra/{at}.json",
    },
    "gsm8k": lambda at: {"question": words(25, at), "answer": f"6*7=<<6*7=42>>42\n#### {at}"},
    "svamp": lambda at: {
        "ID": f"chal-{at}",
        "Body": words(15, at) + ".",
        "Question": words(7, -at) + "?",
        "Equation": "( 1.0 + 2.0 )",
        "Answer": "3",
        "Type": ("Addition", "Subtraction")[at % 2],
    },
    "aqua-rat": lambda at: {
        "question": words(25, at),
        "options": ["A)1", "B)2", "C)3", "D)4", "E)5"],
        "rationale": "because",
        "correct": "ABCDE"[at % 5],
    },
    "xsum": lambda at: {"document": words(150, at), "summary": words(15, -at), "id": str(at)},
    "scitldr": lambda at: {
        "source": [words(20, at), words(25, -at)],
        "source_labels": [0, 1],
        "rouge_scores": [0.1, 0.2],
        "paper_id": f"Paper{at}",
        "target": [words(12, at)],
    },
    "cnn-dailymail": lambda at: {
        "article": words(700 if at % 3 == 0 else 200, at),  # a third is too long
        "highlights": words(30, at),
        "id": f"{at:040x}",
    },
    "self-instruct-seeds": lambda at: _self_instruct(f"seed_task_{at}", at),
    "self-instruct-users": lambda at: _self_instruct(f"user_oriented_task_{at}", at),
    "mts-dialog": lambda at: {
        "ID": at,
        "section_header": ("GENHX", "ROS", "PLAN")[at % 3],
        "section_text": words(12, at),
        "dialogue": f"Doctor: {words(30, at)}\nPatient: {words(30, -at)}",
    },
}

# name of the file -> rows of the original publication, where it differs from the hub's
RAW: dict[str, tuple[str, Callable[[int], dict]]] = {
    "humaneval": ("HumanEval.jsonl.gz", ROWS["humaneval"]),
    "mbpp": (
        "mbpp.jsonl",
        lambda at: {
            "text": f"Write a function that {words(12, at)}.",
            "code": f"def g{at}(): return {at}",
            "task_id": at,
            "test_setup_code": "",
            "test_list": [f"assert g{at}() == {at}", f"assert g{at}() > -1"],
            "challenge_test_list": [],
        },
    ),
    "mt-bench": (
        "question.jsonl",
        lambda at: {
            "question_id": at,
            "category": ("writing", "roleplay", "humanities", "math")[at % 4],
            "turns": [words(25, at), words(10, at)],
        },
    ),
    "math-500": ("test.jsonl", ROWS["math-500"]),
    "gsm8k": ("test.jsonl", ROWS["gsm8k"]),
    "svamp": ("SVAMP.json", lambda at: ROWS["svamp"](at) | {"Answer": 3.0}),
    "aqua-rat": ("test.json", ROWS["aqua-rat"]),  # JSON lines under this name
    "trivia-qa": (
        "unfiltered-web-dev.json",  # {"Data": [...], ...}
        lambda at: {
            "Answer": {"Aliases": ["x"], "Type": "WikipediaEntity", "Value": words(2, f"a{at}")},
            "EntityPages": [],
            "Question": words(12, at) + "?",
            "QuestionId": f"tc_{at}",
            "QuestionSource": "http://example.org",
            "SearchResults": [],
        },
    ),
    "nq-open": ("NQ-open.dev.jsonl", ROWS["nq-open"]),
    "banking77": ("test.jsonl", ROWS["banking77"]),
    "scitldr": ("SciTLDR-A/test.jsonl", ROWS["scitldr"]),
    "flan-cls": ("validation/snli_10templates_validation.jsonl", ROWS["flan-cls"]),
    "flan-qa": ("validation/bool_q_10templates_validation.jsonl", ROWS["flan-qa"]),
    "self-instruct-seeds": ("seed_tasks.jsonl", ROWS["self-instruct-seeds"]),
    "self-instruct-users": ("user_oriented_instructions.jsonl", ROWS["self-instruct-users"]),
    "dolly-gen": ("databricks-dolly-15k.jsonl", ROWS["dolly-gen"]),
    "dolly-sum": ("databricks-dolly-15k.jsonl", ROWS["dolly-sum"]),
    "mts-dialog": (
        "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv",
        ROWS["mts-dialog"],
    ),
}

# where the hub keeps a split whose folder the recipe names
_PARQUET = {
    "mbpp": "sanitized/test-00000-of-00001.parquet",
    "trivia-qa": "rc.nocontext/validation-00000-of-00001.parquet",
    "nq-open": "nq_open/validation-00000-of-00001.parquet",
    "poem-sentiment": "data/train-00000-of-00001.parquet",
    "dolly-gen": "train-00000-of-00001.parquet",
    "dolly-sum": "train-00000-of-00001.parquet",
    "mt-bench": "data/train-00000-of-00001.parquet",
    "gsm8k": "main/test-00000-of-00001.parquet",
    "aqua-rat": "raw/test-00000-of-00001.parquet",
    "xsum": "default/test/0000.parquet",
    "scitldr": "Abstract/test/0000.parquet",
    "cnn-dailymail": "3.0.0/test-00000-of-00001.parquet",
}
_ALWAYS_RAW = ("self-instruct-seeds", "self-instruct-users", "mts-dialog", "flan-cls", "flan-qa")


def _dolly(at: int) -> dict:
    return {
        "instruction": words(14, at),
        "context": words(60, -at) if at % 3 == 2 else "",
        "response": words(20, at),
        "category": ("creative_writing", "brainstorming", "summarization")[at % 3],
    }


def _self_instruct(name: str, at: int) -> dict:
    return {
        "id": name,
        "instruction": words(15, at),
        "instances": [{"input": words(8, -at) if at % 2 else "", "output": words(9, at)}],
    }


def _as_published(name: str, rows: list[dict]) -> str:
    """The text of a .json file: a list, unless the source wraps it or writes one row per line."""
    if name == "aqua-rat":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if name == "trivia-qa":
        head = {"Domain": "Unfiltered", "Split": "dev", "VerifiedEval": False, "Version": 1.0}
        return json.dumps({"Data": rows, **head}, indent=4)
    return json.dumps(rows)


def make_mirror(folder: Path, rows: int = 320, raw: bool = False) -> Path:
    """A mirror with all sources: Parquet files as on the hub, or the original files (`raw`)."""
    for name, make in ROWS.items():
        if name in RAW and (raw or name in _ALWAYS_RAW):
            file, make = RAW[name]
            if file.endswith(".json"):
                path = folder / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_as_published(name, [make(at) for at in range(rows)]))
            else:
                write(folder / name / file, [make(at) for at in range(rows)])
        else:
            path = folder / name / _PARQUET.get(name, "data/test-00000-of-00001.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([make(at) for at in range(rows)]), path)
    return folder
