"""Building from files in each source's own format, offline; from a ready half; and refusals."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from corpora import human_half, record, write
from source_files import make_mirror

from sparcom.corpus.hexainst.build import BuildOptions, build
from sparcom.corpus.hexainst.draw import ALIKE, grams, jaccard
from sparcom.corpus.hexainst.recipes import Recipe, load_recipe
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.schema import CATEGORIES, Instruction
from sparcom.errors import InputError

BUNDLED = [
    Instruction(
        f"{c}-ai-{at:03d}",
        c,
        source="ai",
        origin="sparcom",
        license="Apache-2.0",
        instruction=f"Bundled task {c} {at}",
    )
    for c in CATEGORIES
    for at in range(1, 101)
]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return make_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def built(mirror, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "hexainst"
    seen = []
    report = build(load_recipe(), BUNDLED, out, BuildOptions(mirror=str(mirror)), seen.append)
    assert seen == [source.name for source in load_recipe().sources]
    return report


def test_both_halves_are_whole_and_balanced(built):
    records = list(Corpus(built.folder))
    cells = Counter((item.category, item.source) for item in records)
    assert cells == {(c, s): 100 for c in CATEGORIES for s in ("human", "ai")}
    assert built.records.total() == 1200
    assert "1200 records" in built.render()
    assert json.loads(json.dumps(built.to_json()))["absent"] == {}


def test_every_source_gives_what_its_recipe_takes(built):
    humans = [item for item in Corpus(built.folder) if item.source == "human"]
    sources = {(s.category, s.license, s.origin): s.take for s in load_recipe().sources}
    drawn = Counter((i.category, i.license, i.origin.partition("#")[0]) for i in humans)
    assert drawn == sources


def test_no_two_records_of_a_category_are_alike(built):
    for category in CATEGORIES:
        shapes = [
            grams(item.text)
            for item in Corpus(built.folder)
            if item.category == category and item.source == "human"
        ]
        pairs = [(a, b) for at, a in enumerate(shapes) for b in shapes[:at]]
        assert max(jaccard(a, b) for a, b in pairs) <= ALIKE


def test_what_single_sources_become(built):
    by_origin = {item.origin: item for item in Corpus(built.folder)}

    def some(prefix):
        return next(item for origin, item in by_origin.items() if origin.startswith(prefix))

    gsm = some("openai/gsm8k#")
    assert gsm.reference.isdecimal()
    svamp = some("ChilleD/SVAMP#chal-")
    assert svamp.instruction.endswith("?")
    assert some("google-research-datasets/poem_sentiment#").reference in (
        "negative", "positive", "no impact", "mixed",
    )  # fmt: skip
    mbpp = some("google-research-datasets/mbpp#")
    assert mbpp.instruction.count("\nassert g") == 2
    assert some("deepmind/aqua_rat#").instruction.endswith("E)5")
    assert len(some("allenai/scitldr#").input.split()) == 45
    assert some("mteb/banking77#").reference.startswith("card kind ")
    assert all(
        len(item.input.split()) < 450
        for origin, item in by_origin.items()
        if origin.startswith("abisee/cnn_dailymail")
    )


def test_original_files_give_the_same_draw_as_the_hubs(built, tmp_path):
    raw = make_mirror(tmp_path / "raw", raw=True)
    options = BuildOptions(mirror=str(raw), half="human")
    again = build(load_recipe(), BUNDLED, tmp_path / "out", options)
    first = {i.id: i for i in Corpus(built.folder) if i.source == "human"}
    second = {i.id: i for i in Corpus(again.folder)}
    assert first == second


def test_another_seed_draws_others(built, mirror, tmp_path):
    options = BuildOptions(mirror=str(mirror), half="human", seed=7)
    other = build(load_recipe(), BUNDLED, tmp_path / "out", options)
    origins = [{i.origin for i in Corpus(r.folder)} for r in (built, other)]
    assert len(origins[0] & origins[1]) < 500


def test_a_card_lists_sources_and_licences(built):
    card = (built.folder / "CARD.md").read_text()
    assert "| MATH | human | HuggingFaceH4/MATH-500 | MIT | 50 |" in card
    assert "| SUM | ai | bundled with SPARCOM | Apache-2.0 | 100 |" in card
    assert "seed 25052119" in card


def test_missing_sources_are_all_named_or_filled(mirror, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    for folder in mirror.iterdir():
        if folder.name not in ("svamp", "xsum"):
            (part / folder.name).symlink_to(folder)
    with pytest.raises(InputError) as caught:
        build(load_recipe(), [], tmp_path / "out", BuildOptions(mirror=str(part)))
    first, second = str(caught.value).split("\n")
    assert first.startswith("source svamp: the mirror has no **/test*.parquet or ")
    assert second.endswith("put the files of EdinburghNLP/xsum there")
    options = BuildOptions(mirror=str(part), missing="fill", half="human")
    report = build(load_recipe(), [], tmp_path / "out", options)
    assert set(report.absent) == {"svamp", "xsum"}
    assert report.records.total() == 600
    assert "left out: svamp" in report.render()
    assert "- xsum: " in (tmp_path / "out" / "CARD.md").read_text()


def test_a_source_with_too_few_rows(tmp_path):
    few = make_mirror(tmp_path / "few", rows=40)
    with pytest.raises(InputError, match=r"source [\w-]+: only \d+ of \d+ records pass"):
        build(load_recipe(), [], tmp_path / "out", BuildOptions(mirror=str(few)))
    assert not (tmp_path / "out").exists()
    options = BuildOptions(mirror=str(few), missing="fill")
    with pytest.raises(InputError, match=r"category \w+: only \d+ of 100 records"):
        build(load_recipe(), [], tmp_path / "out", options)


def test_a_damaged_mirror_file_is_named(mirror, tmp_path):
    recipe = load_recipe()
    one = replace(recipe.sources[-2], take=1)
    file = write(tmp_path / one.name / "databricks-dolly-15k.jsonl", [{}])
    file.write_text("{oops\n")
    with pytest.raises(InputError, match="source dolly-sum: row 1: not JSON at column 2"):
        build(
            Recipe(sources=(one,), per_category=1),
            [],
            tmp_path / "out",
            BuildOptions(mirror=str(tmp_path)),
        )


def test_a_ready_half(tmp_path):
    rows = [record(at, id=f"h-{at}") for at in range(6 * 103)]
    ready = write(tmp_path / "ready.parquet", rows)
    report = build(load_recipe(), BUNDLED, tmp_path / "out", BuildOptions(human=str(ready)))
    assert report.records.total() == 1200
    kept = [item for item in Corpus(report.folder) if item.source == "human"]
    assert {item.id for item in kept} < {row["id"] for row in rows}
    write(ready, rows[: 6 * 99])
    with pytest.raises(InputError, match="99 records of category CLS, but 100 are needed"):
        build(load_recipe(), BUNDLED, tmp_path / "b", BuildOptions(human=str(ready)))


def test_the_real_ready_half(tmp_path):
    human = human_half()
    report = build(load_recipe(), BUNDLED, tmp_path / "out", BuildOptions(human=str(human)))
    kept = [item for item in Corpus(report.folder) if item.source == "human"]
    assert sorted(kept, key=lambda i: i.id) == sorted(Corpus(human), key=lambda i: i.id)


def test_the_bundled_half_alone(tmp_path):
    report = build(load_recipe(), BUNDLED, tmp_path / "out", BuildOptions(half="ai"))
    assert sorted(i.id for i in Corpus(report.folder)) == sorted(i.id for i in BUNDLED)
    with pytest.raises(InputError, match="this recipe has no bundled half"):
        build(load_recipe(), [], tmp_path / "b", BuildOptions(half="ai"))


def test_what_is_in_the_way_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    build(load_recipe(), BUNDLED[:6], out, BuildOptions(half="ai"))
    with pytest.raises(InputError, match="holds a corpus already; replace it with --overwrite"):
        build(load_recipe(), BUNDLED, out, BuildOptions(half="ai"))
    build(load_recipe(), BUNDLED, out, BuildOptions(half="ai", overwrite=True))
    assert len(list(Corpus(out))) == 600
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"is not a corpus that SPARCOM built"):
        build(load_recipe(), BUNDLED, tmp_path / "mine", BuildOptions(half="ai", overwrite=True))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        build(load_recipe(), BUNDLED, tmp_path / "file" / "out", BuildOptions(half="ai"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half": "robot"}, "half: expected both, human, ai, got 'robot'"),
        ({"missing": "go"}, "missing: expected stop, fill, got 'go'"),
        ({"human": "a", "mirror": "b"}, "a ready corpus needs no mirror"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        BuildOptions(**options)
