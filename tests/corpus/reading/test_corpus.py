"""A corpus of any shape, streamed; all of its problems in one report."""

import json
import tracemalloc
from itertools import pairwise

import pytest
from corpora import NASTY, record, write

from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.corpus.reading.fields import parse_fields
from sparcom.corpus.reading.files import corpus_files
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError


def test_a_folder_of_many_formats_is_one_corpus(tmp_path):
    for at, suffix in enumerate((".jsonl", ".json", ".csv", ".parquet", ".tsv")):
        write(tmp_path / f"{at}{suffix}", [record(10 * at), record(10 * at + 1)])
    (tmp_path / "README.md").write_text("not a corpus")
    ids = [item.id for item in Corpus(tmp_path)]
    assert ids == [f"r-{10 * at + k}" for at in range(5) for k in range(2)]


def test_every_problem_is_named_by_file_row_and_field(tmp_path):
    a = write(tmp_path / "a.jsonl", [record(0), record(1, instruction=" "), record(0)])
    b = write(tmp_path / "b.parquet", [record(2, category="POEM"), record(0)])
    with pytest.raises(InputError) as caught:
        list(Corpus(tmp_path))
    assert str(caught.value).split("\n") == [
        f"{a}:2: field 'instruction' is blank",
        f"{a}:3: field 'id' repeats 'r-0' of {a}:1",
        f"{b}:row 1: field 'category' must be one of CLS, CODE, QA, GEN, MATH, SUM, got str 'POEM'",
        f"{b}:row 2: field 'id' repeats 'r-0' of {a}:1",
    ]


def test_the_report_has_a_limit_and_says_how_many_more(tmp_path):
    file = write(tmp_path / "a.jsonl", [record(at, id="") for at in range(30)])
    with pytest.raises(InputError, match=r"\.\.\. and 27 more$") as caught:
        list(Corpus(file, log=ProblemLog(limit=3)))
    assert str(caught.value).count("\n") == 3


def test_skip_leaves_bad_rows_out_and_records_all_of_them(tmp_path):
    file = write(
        tmp_path / "a.jsonl", [record(at, id="" if at % 2 else f"r-{at}") for at in range(9)]
    )
    with (tmp_path / "rejects").open("w") as sink:
        log = ProblemLog(limit=2, sink=sink.write)
        items = list(Corpus(file, ReadOptions(on_error="skip"), log))
    assert [item.id for item in items] == ["r-0", "r-2", "r-4", "r-6", "r-8"]
    assert (log.count, len(log.kept)) == (4, 2)
    lines = (tmp_path / "rejects").read_text().splitlines()
    assert [json.loads(line)["place"] for line in lines] == [f"{file}:{n}" for n in (2, 4, 6, 8)]


def test_skip_with_nothing_left_is_an_error(tmp_path):
    file = write(tmp_path / "a.jsonl", [record(0, id="")])
    with pytest.raises(InputError, match="field 'id' is blank"):
        list(Corpus(file, ReadOptions(on_error="skip")))


def test_good_rows_come_before_the_error(tmp_path):
    file = write(tmp_path / "a.jsonl", [record(0, id=""), record(1)])
    stream = iter(Corpus(file))
    assert next(stream).id == "r-1"
    with pytest.raises(InputError, match="blank"):
        next(stream)


def test_a_corpus_can_be_streamed_twice(tmp_path):
    corpus = Corpus(write(tmp_path / "a.jsonl", [record(0), record(1)]))
    assert list(corpus) == list(corpus)
    assert (corpus.rows, corpus.log.count) == (2, 0)


def test_field_maps_and_categories_of_the_user(tmp_path):
    file = write(tmp_path / "web.csv", [{"prompt": "Say hi", "kind": "chat"}])
    options = ReadOptions(
        categories=("chat",),
        fields=parse_fields(["instruction=prompt", "category=kind"], ["id={file}-{row}"]),
    )
    (item,) = Corpus(file, options)
    assert (item.id, item.category, item.instruction) == ("web-2", "chat", "Say hi")


def test_hidden_text_is_escaped_in_messages_and_kept_in_records(tmp_path):
    rows = [record(0, input=NASTY), record(1, id=NASTY), record(2, id=NASTY)]
    file = write(tmp_path / "a.jsonl", rows)
    log = ProblemLog()
    items = list(Corpus(file, ReadOptions(on_error="skip"), log))
    assert items[0].input == NASTY
    assert items[1].id == NASTY
    shown = log.render()
    assert not set("\u202e\u200b\x1b\x00") & set(shown)
    assert "\\u202e" in shown


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "gone", "no such file or folder; give a .jsonl"),
        (lambda p: p, "the folder holds no .jsonl"),
        (lambda p: write(p / "a.jsonl", []), "no instructions in it"),
        (lambda p: (p / "a.txt").touch() or p / "a.txt", "expected .jsonl, .json.* got '.txt'"),
        (lambda p: (p / "a").touch() or p / "a", "'no suffix'"),
    ],
)
def test_corpora_that_are_none(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        list(Corpus(make(tmp_path)))


@pytest.mark.parametrize("name", ["x" * 300 + ".jsonl", "a\0.jsonl", "/".join("x" * 400)])
def test_paths_that_the_system_refuses(name):
    with pytest.raises(InputError, match=r"^corpus .*: (cannot be read|no such file)") as caught:
        list(Corpus(name))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_a_problem_and_the_others_are_read(tmp_path):
    write(tmp_path / "a.jsonl", [record(0), record(1, id="")])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "gone.jsonl")
    write(tmp_path / "d.csv", [record(2)])
    corpus = Corpus(tmp_path, ReadOptions(on_error="skip"))
    assert [item.id for item in corpus] == ["r-0", "r-2"]
    assert (corpus.rows, corpus.bad_rows, corpus.unreadable, corpus.log.count) == (3, 1, 2, 3)
    with pytest.raises(InputError) as caught:
        list(Corpus(tmp_path))
    assert [line.partition(": ")[0] for line in str(caught.value).split("\n")] == [
        f"{tmp_path}/a.jsonl:2",
        f"{tmp_path}/b.parquet",
        f"{tmp_path}/c.jsonl",
    ]


def test_numbers_as_ids_and_labels_are_read_as_text(tmp_path):
    rows = [record(at, id=at, category=at % 2) for at in range(3)]
    corpus = Corpus(write(tmp_path / "a.jsonl", rows), ReadOptions(categories=None))
    assert [(item.id, item.category) for item in corpus] == [("0", "0"), ("1", "1"), ("2", "0")]
    assert corpus.notes["rows whose number in the field 'id' was read as text"] == 3


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        (
            {"instruction": "x", "input": "", "output": "y"},
            "--map reference=output --fill id={file}-{row} --fill category=CATEGORY",
        ),
        (
            {"instruction": "x", "context": "", "response": "y", "category": "open_qa"},
            "--map input=context --map reference=response --fill id={file}-{row} --categories any",
        ),
        (
            {"id": "1", "conversations": [{"from": "human", "value": "x"}]},
            "--fill category=CATEGORY",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}]},
            "--fill id={file}-{row} --fill category=CATEGORY",
        ),
        (
            {"prompt": "x", "completion": "y"},
            "--map instruction=prompt --map reference=completion --fill id={file}-{row} "
            "--fill category=CATEGORY",
        ),
    ],
)
def test_the_flags_for_well_known_data_sets_are_said_and_work(tmp_path, row, flags):
    file = write(tmp_path / "a.jsonl", [row, row | {"id": "2"} if "id" in row else row])
    with pytest.raises(InputError) as caught:
        list(Corpus(file))
    hint = str(caught.value).split("\n")[-1]
    assert hint.endswith(f"; try {flags}")
    words = flags.replace("CATEGORY", "QA").split()
    given = {f: [b for a, b in pairwise(words) if a == f] for f in ("--map", "--fill")}
    fields = parse_fields(given["--map"], given["--fill"])
    allowed = None if "--categories" in words else CATEGORIES
    items = list(Corpus(file, ReadOptions(allowed, fields=fields)))
    assert [item.instruction for item in items] == ["x", "x"]


def test_the_fields_that_are_named_are_those_of_the_file(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "x", "kind": "QA"}])
    options = ReadOptions(fields=parse_fields(["instruction=prompt"], ["id={row}"]))
    with pytest.raises(InputError, match=r"'category' is missing \(fields here: kind, prompt\)"):
        list(Corpus(file, options))


def test_a_folder_of_save_to_disk_says_what_to_do(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(InputError, match=r"a folder of datasets' save_to_disk.*to_parquet"):
        list(Corpus(tmp_path))


def test_data_in_other_formats_is_noted(tmp_path):
    write(tmp_path / "a.jsonl", [record(0)])
    for name in ("b.jsonl.zst", "c.arrow", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    corpus = Corpus(tmp_path)
    list(corpus)
    what = "files of other formats in the folder not read (b.jsonl.zst, c.arrow)"
    assert corpus.notes[what] == 2


def test_records_are_taken_from_the_field_that_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"x": [record(0)], "y": [record(1)]}))
    assert [i.id for i in Corpus(tmp_path / "a.json", ReadOptions(records="y"))] == ["r-1"]


def test_bad_on_error():
    with pytest.raises(InputError, match="on-error: expected stop or skip, got 'ignore'"):
        ReadOptions(on_error="ignore")


def test_files_of_a_folder_are_sorted(tmp_path):
    for name in ("b.jsonl", "a.csv", "c.json"):
        (tmp_path / name).touch()
    assert [file.name for file in corpus_files(tmp_path)] == ["a.csv", "b.jsonl", "c.json"]


def test_memory_does_not_hold_the_text(tmp_path):
    """20,000 records with 60 MB of text pass through 8 MB: digests of ids stay, texts do not."""
    file = tmp_path / "a.jsonl"
    with file.open("w") as out:
        for at in range(20_000):
            out.write(json.dumps(record(at, input="x" * 3000)) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in Corpus(file)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({"prompt": "x", "kind": "QA"}, "--fill id={file}-{row} --map category=kind --map "
                                        "instruction=prompt"),
        ({"Question": "x", "topic": "sums", "uid": "7"}, "--map id=uid --map category=topic "
                                        "--categories any --map instruction=Question"),
        ({"category": "QA", "instruction": "x"}, "--fill id={file}-{row}"),
        ({"the text": "x"}, None),
    ],
)  # fmt: skip
def test_the_flags_for_other_data_sets_are_guessed_from_their_fields(tmp_path, row, flags):
    file = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError) as caught:
        list(Corpus(file))
    lines = str(caught.value).split("\n")
    assert lines[1:] == ([f"hint: try {flags}"] if flags else [])
    if flags:
        words = flags.split()
        given = {f: [b for a, b in pairwise(words) if a == f] for f in ("--map", "--fill")}
        fields = parse_fields(given["--map"], given["--fill"])
        allowed = None if "--categories" in words else CATEGORIES
        (item,) = Corpus(file, ReadOptions(allowed, fields=fields))
        assert item.instruction == "x"


def test_what_is_missing_beside_the_flags_that_are_given_is_added(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "x", "kind": "QA"}])
    options = ReadOptions(fields=parse_fields(["instruction=prompt"], []))
    with pytest.raises(InputError, match=r"hint: add --fill id={file}-{row} --map category=kind$"):
        list(Corpus(file, options))


def test_one_bad_row_among_good_ones_needs_no_flags(tmp_path):
    good = {"id": "a", "category": "QA", "instruction": "x"}
    file = write(tmp_path / "a.jsonl", [good, {"id": "b", "instruction": "y"}])
    with pytest.raises(InputError) as caught:
        list(Corpus(file))
    assert "field 'category' is missing" in str(caught.value)
    assert "hint" not in str(caught.value)
