"""The bundled recipe is whole; a wrong one is named with source and key."""

from pathlib import Path

import pytest

from sparcom.corpus.hexainst.recipes import load_recipe
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError

SOURCE = """
[[source]]
name = "a"
category = "QA"
take = 2
license = "MIT"
dataset = "owner/a"
key = "{id}"
instruction = ["{q}"]
"""


def load(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    return load_recipe(tmp_path / "r.toml")


def test_the_bundled_recipe():
    recipe = load_recipe()
    assert recipe.categories == CATEGORIES
    assert recipe.per_category == 100
    named = " ".join(source.dataset.lower() for source in recipe.sources)
    for data_set in ("flan", "humaneval", "trivia_qa", "math-500", "gsm8k", "mbpp", "xsum"):
        assert data_set in named
    for source in recipe.sources:
        assert source.license, source.name
        assert source.files, source.name
        if source.revision == "refs/convert/parquet":  # a branch without configurations
            assert source.config is None, source.name


def test_the_data_card_lists_the_sources_as_the_recipe_has_them():
    card = (Path(__file__).parents[3] / "docs" / "reference" / "data_card.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    listed = {row[1]: (row[0], row[2], row[4]) for row in rows if len(row) == 5}
    for s in load_recipe().sources:
        assert listed.get(s.name) == (s.category, str(s.take), s.license)


def test_a_recipe_of_the_user(tmp_path):
    recipe = load(tmp_path, "seed = 4\nper_category = 2\n" + SOURCE)
    assert (recipe.seed, recipe.categories) == (4, ("QA",))
    assert str(recipe.sources[0].data) == "hub:owner/a@train"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "cannot be read"),
        ("seed = 1", r"it has no \[\[source\]\]"),
        (SOURCE.replace("take", "tako"), "source a: key 'tako' is unknown; did you mean 'take'"),
        (SOURCE.replace('key = "{id}"', ""), "source a: lacks 'key'"),
        (SOURCE.replace("take = 2", "take = 0"), "take must be at least 1, got 0"),
        (
            SOURCE.replace("take = 2", 'take = "2"'),
            "source a: take: expected a whole number, got str '2'",
        ),
        (
            SOURCE.replace('["{q}"]', '"{q}"'),
            r"instruction: expected a list \(text each\), got str",
        ),
        (SOURCE.replace("{q}", "{q"), "a brace is open"),
        (SOURCE, "the sources of QA take 2, but per_category is 100"),
        ("per_category = 4\n" + SOURCE * 2, "source a comes twice"),
        ("per_category = 2\nreject = ['(']\n" + SOURCE, "pattern '\\('"),
        ("per_category = 2\ncolour = 1\n" + SOURCE, "key 'colour' is unknown"),
        ("source = 3", r"it has no \[\[source\]\]"),
        ("source = [3]", "source 1: expected a table, got int 3"),
        ("seed = 1.5\n" + SOURCE, "seed: expected a whole number, got float 1.5"),
        ("words = [1]\n" + SOURCE, "words: expected a list of 2"),
        ("words = [1, 'x']\n" + SOURCE, "words: expected a whole number, got str 'x'"),
        ("reject = 'x'\n" + SOURCE, "reject: expected a list"),
        ("sources = []\n" + SOURCE, "key 'sources' is unknown"),
        (SOURCE + 'labels = { a = "x" }', r"labels\.a: expected a list"),
        (SOURCE + "keep = 1", "keep: expected a table, got int 1"),
        (SOURCE + "must = [1]", "must: expected text, got int 1"),
        (SOURCE + 'files = ["/etc/*"]', "files: expected patterns inside a folder"),
        (SOURCE + "name = 'b'", "cannot be read: Cannot overwrite a value"),
        ("a = " + "[" * 3000 + "]" * 3000, "cannot be read: it is nested too deeply"),
        ("seed = " + "1" * 5000, "cannot be read: Exceeds the limit"),
        ('"\x00" = 1', "cannot be read: "),
    ],
)
def test_wrong_recipes(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["gone.toml", "x" * 300, "a\0b", "."])
def test_no_such_file(tmp_path, name):
    with pytest.raises(InputError, match=r"^recipe .*: cannot be read: "):
        load_recipe(tmp_path / name)
