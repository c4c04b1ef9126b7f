"""Rows of other shapes become records of the schema."""

from collections import Counter

import pytest

from sparcom.corpus.reading.fields import FieldMap, numbers_as_text, parse_fields
from sparcom.errors import InputError


def mapped(row, maps=(), fills=(), notes=None):
    return parse_fields(maps, fills).record(row, "file", 7, Counter() if notes is None else notes)


def test_an_empty_map_hands_rows_through():
    row = {"id": "a", "extra": 3}
    assert FieldMap().record(row, "f", 1, Counter()) == (row, None)


def test_paths_go_into_objects_and_lists():
    row = {"task_id": "12", "q": {"text": "Why?"}, "answers": [{"v": "so"}], "category": "QA"}
    maps = ["id=task_id", "instruction=q.text", "reference=answers.0.v"]
    assert mapped(row, maps) == (
        {"id": "12", "instruction": "Why?", "reference": "so", "category": "QA"},
        None,
    )


def test_set_values_know_the_row_and_the_file():
    record, problem = mapped({"instruction": "x"}, fills=["id={file}-{row}", "category=A=B"])
    assert problem is None
    assert record == {"instruction": "x", "id": "file-7", "category": "A=B"}


@pytest.mark.parametrize("path", ["gone", "here.deeper", "list.3", "list.x"])
def test_a_missing_path_names_both_fields(path):
    _, problem = mapped({"here": 1, "list": ["a"]}, [f"reference={path}"])
    assert problem == (
        f"field {path!r}, mapped to 'reference', is missing (fields here: here, list)"
    )


@pytest.mark.parametrize(
    ("maps", "fills", "message"),
    [
        (["instruction"], [], "map: expected FIELD=VALUE, got 'instruction'"),
        (["instructon=q"], [], "did you mean 'instruction'"),
        (["id=a", "id=b"], [], "map: field 'id' is given twice"),
        (["id=a"], ["id=b"], "fill: field 'id' is mapped too"),
        ([], ["messages=x"], "fill: the schema has no field 'messages'"),
        ([], ["id="], "fill: expected FIELD=VALUE"),
    ],
)
def test_bad_arguments(maps, fills, message):
    with pytest.raises(InputError, match=message):
        parse_fields(maps, fills)


def test_chat_messages_are_found_by_themselves():
    notes: Counter[str] = Counter()
    row = {
        "id": "c",
        "category": "QA",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Two and two?"},
            {"role": "assistant", "content": "Four."},
            {"role": "user", "content": "Sure?"},
        ],
    }
    record, problem = mapped(row, notes=notes)
    assert problem is None
    assert record == {
        "id": "c",
        "category": "QA",
        "instruction": "Two and two?",
        "reference": "Four.",
    }
    assert sorted(notes.values()) == [1, 1]


def test_sharegpt_and_parts_and_an_unanswered_turn():
    record, _ = mapped({"conversations": [{"from": "human", "value": "Hi"}]})
    assert record == {"instruction": "Hi"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    record, _ = mapped({"chat": [{"role": "user", "content": parts}]}, ["messages=chat"])
    assert record == {"instruction": "ab"}


def test_a_row_with_an_instruction_is_no_chat():
    row = {"instruction": "x", "messages": []}
    assert mapped(row) == (row, None)


def test_numbers_in_fields_are_read_as_text_and_counted():
    notes: Counter[str] = Counter()
    row = {"id": 12, "category": 3, "reference": 1.5, "instruction": "x", "more": 7}
    assert numbers_as_text(row, notes) == {**row, "id": "12", "category": "3", "reference": "1.5"}
    assert sorted(notes.values()) == [1, 1, 1]
    assert numbers_as_text({"id": 10**400}, notes) == {"id": "1" + "0" * 400}
    for other in ({"id": "a"}, {"id": True}, {"id": float("nan")}, {"id": None}, {"more": 1}, [1]):
        assert numbers_as_text(other, notes) is None


def test_a_tool_call_does_not_cost_the_first_turn():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]}
    chat = [{"role": "user", "content": "Two and two?"}, call, {"role": "tool", "content": "4"}]
    notes: Counter[str] = Counter()
    assert mapped({"messages": chat}, notes=notes) == ({"instruction": "Two and two?"}, None)
    assert notes["first answers without text (tool calls), not used"] == 1


@pytest.mark.parametrize("role", ["gpt", "ChatGPT", "bing", "ASSISTANT", "bard", "model"])
@pytest.mark.parametrize("user", ["USER", "human", "prompter"])
def test_roles_by_other_names(user, role):
    chat = [{"from": user, "value": "Hi"}, {"from": role, "value": "Ho"}]
    assert mapped({"conversations": chat})[0] == {"instruction": "Hi", "reference": "Ho"}


def test_roles_that_are_not_known_are_named():
    notes: Counter[str] = Counter()
    chat = [{"role": "user", "content": "Hi"}, {"role": "oracle", "content": "Ho"}]
    assert mapped({"messages": chat}, notes=notes)[0] == {"instruction": "Hi"}
    assert notes["answers of the unknown role 'oracle', not used"] == 1
    _, problem = mapped({"messages": [{"role": "asker", "content": "Hi"}]})
    assert problem == "the chat messages hold no user turn (roles here: 'asker')"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("text", "must be a list of objects"),
        (["text"], "must be a list of objects"),
        ([], "hold no user turn"),
        ([{"role": "assistant", "content": "x"}], "hold no user turn"),
        ([{"role": "user", "content": None}], "content that is text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content that is text"),
        ([{"content": "x"}], "must have a role"),
    ],
)
def test_bad_chats(chat, message):
    _, problem = mapped({"messages": chat})
    assert message in problem


def test_what_is_no_object_is_left_to_the_schema():
    assert mapped([1], ["id=a"]) == ([1], None)
