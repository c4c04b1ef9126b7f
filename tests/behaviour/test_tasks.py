"""Scores of answers that were judged by hand, and of every bundled reference."""

from pathlib import Path

import pytest

from sparcom.behaviour import sandbox
from sparcom.behaviour.code import code_of
from sparcom.behaviour.tasks import Task, read_aliases, task_of
from sparcom.corpus.hexainst.bundled import BUNDLED
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

ITEMS = list(load_corpus(BUNDLED))


def task(category: str, reference: str, text: str = "?", aliases: tuple[str, ...] = ()) -> Task:
    item = Instruction("x", category, instruction=text, reference=reference)
    found = task_of(item, {"x": aliases}, run_code=True)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("category", "reference", "answer", "right"),
    [
        ("QA", "The Eiffel Tower", "eiffel tower.", True),
        ("QA", "The Eiffel Tower", "It is the Eiffel Tower", False),
        ("QA", "seven", "7", True),  # an alias
        ("Other", "Yes", "yes!", True),
        ("CLS", "positive", "Positive.", True),
        ("CLS", "positive", "\nPositive, since the lid opens.", True),
        ("CLS", "positive", "Not positive", False),
        ("CLS", "a", "a: straw man", True),
        ("CLS", "a", "b", False),
        ("CLS", "c", "cat", False),
        ("CLS", "very good", "very bad", False),
        ("CLS", "positive", "", False),
    ],
)
def test_answers_judged_by_hand(category, reference, answer, right) -> None:
    aliases = ("7",) if reference == "seven" else ()
    assert task(category, reference, aliases=aliases).right(answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("Thus it is 33.\nAnswer: 33", "so the remainder is 33.", True),
        ("Answer: 33", "Answer: 34\nAnswer: 33", True),
        ("Answer: 33", "33 is near, but\nAnswer: 34", False),
        ("Answer: 1/2", r"\boxed{\frac{1}{2}}", True),
        ("Answer: 0.5", r"$\frac{2}{4}$", True),
        (r"Answer: 2\sqrt{3}", r"It is $\sqrt{12}$.", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}", True),
        (r"\left( 3, \frac{\pi}{2} \right)", "Answer: 2", False),
        ("He has 3 cows and 4 pigs, so it is 1,234.", "Answer: 1234", True),
        ("He has 3 cows and 4 pigs, so it is 1,234.", "Answer: 4", False),
        ("#### 42", "**Answer: 42**", True),
        ("Answer: $18", "Answer: 18.0", True),
        ("Answer: 18", "Answer: $18", True),
        ("Answer: 42", "Answer: 41 or 42", False),
        ("Answer: yellow", "Answer: yellow", True),
        ("Answer: yellow", "Answer: blue", False),
        ("Answer: 33", "I do not know.", False),
        ("Answer: 33", "", False),
    ],
)
def test_mathematical_answers_judged_by_hand(reference, answer, right) -> None:
    pytest.importorskip("math_verify", reason="math-verify is not installed")
    assert task("MATH", reference).right(answer) is right


def test_every_bundled_reference_is_right_and_an_empty_answer_is_not() -> None:
    scored = 0
    for item in ITEMS:
        if item.category not in ("CODE", "MATH") and (found := task_of(item, {}, run_code=False)):
            assert found.right(item.reference), item.id
            assert not found.right(" "), item.id
            scored += 1
    assert scored == 100 + 100 + 91  # CLS, QA, and GEN and SUM that demand what can be told


def test_code_is_run_only_if_asked() -> None:
    assert all(task_of(i, {}, run_code=False) is None for i in ITEMS if i.category == "CODE")


@pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not()))
def test_code_passes_its_tests() -> None:
    asked = "Write double(x). Your code should pass these tests:\n\nassert double(2) == 4"
    right = task("CODE", "def double(x): return 2 * x", asked).right
    assert right("Here:\n```python\ndef double(x):\n    return x + x\n```\nIt adds.")
    assert not right("```\ndef double(x):\n    return x ** 3\n```")
    assert not right("I cannot.")
    kinds = {"python": "CODE-ai-001", "sql": "CODE-ai-003"}
    for name in kinds.values():
        (item,) = (i for i in ITEMS if i.id == name)
        found = task_of(item, {}, run_code=True)
        assert found is not None
        assert found.metric == "pass@1"
        assert found.right(f"```\n{item.reference}\n```")
        assert not found.right("```\npass\n```")


def test_tests_whose_names_nobody_could_know_are_left_out() -> None:
    item = Instruction(
        "CODE-ai-001", "CODE", instruction="Find the tides.",
        reference="def high_waters(levels): return []",
    )  # fmt: skip
    assert task_of(item, {}, run_code=True) is None


def test_the_first_block_is_the_code() -> None:
    assert code_of("a\n```py\nx = 1\n```\n```\ny\n```") == "x = 1\n"
    assert code_of("x = 1") == "x = 1"
    assert code_of("```\nx = 1") == "x = 1"  # cut off


def test_aliases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "aliases.csv"
    file.write_text("id,alias\nq1,UK\nq1,Britain\n")
    assert read_aliases(str(file)) == {"q1": ["UK", "Britain"]}
    assert read_aliases(None) == {}
    file.write_text("id,name\n")
    with pytest.raises(InputError, match="expected the columns id and alias"):
        read_aliases(str(file))
    with pytest.raises(InputError, match="cannot be read"):
        read_aliases(str(tmp_path / "none.csv"))
    for blank in ("q1,UK\nq1, \n", "q1,UK\nq1\n"):
        file.write_text(f"id,alias\n{blank}")
        with pytest.raises(InputError, match="line 3: the alias is blank"):
            read_aliases(str(file))


@pytest.mark.parametrize(
    ("category", "reference"), [("QA", "The"), ("QA", "?!"), ("Other", "a"), ("CLS", ":-)")]
)
def test_a_reference_of_which_nothing_is_left_scores_nothing(category, reference) -> None:
    """Else an empty answer were right, or none."""
    item = Instruction("x", category, instruction="?", reference=reference)
    assert task_of(item, {}, run_code=True) is None
