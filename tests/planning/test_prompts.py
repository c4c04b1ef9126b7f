"""The prompts of a config: parts are whole, and what has no prompt is named all at once."""

from itertools import pairwise

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_llm(tmp_path_factory.mktemp("model")))


def rows():
    """25 rows: 3 and 17 have prompts that are too long, 9 is bad."""
    made = records(25)
    for at in (3, 17):
        made[at]["instruction"] = "sea " * 400
    made[9]["instruction"] = " "
    return made


def maker(model, tmp_path, **options):
    corpus = write_corpus(tmp_path / "c.jsonl", rows())
    config = RunConfig(model=model, corpus=str(corpus), part_size=4, **options)
    return PromptMaker(config, engine_options(config))


def test_long_prompts_and_bad_rows_are_named_all_at_once(model, tmp_path):
    made = maker(model, tmp_path)
    with pytest.raises(InputError) as caught:
        list(made.parts(4))
    first, second, third = sorted(str(caught.value).split("\n"))
    assert first.endswith("c.jsonl:10: field 'instruction' is blank")
    assert second.startswith("instruction i03: ")
    assert third.startswith("instruction i17: ")
    assert "tokens, but the model reads at most 128" in third


def test_they_are_skipped_and_the_parts_stay_full(model, tmp_path):
    made = maker(model, tmp_path, on_error="skip")
    parts = list(made.parts(4))
    assert [len(items) for items, _ in parts] == [4, 4, 4, 4, 4, 2]
    kept = [item.id for items, _ in parts for item in items]
    assert kept == [row["id"] for at, row in enumerate(rows()) if at not in (3, 9, 17)]
    assert [prompt.id for _, prompts in parts for prompt in prompts] == kept
    assert made.skipped.count == 3
    assert all(a < b for a, b in pairwise(kept))


def test_nothing_left_is_an_error_when_skipping_too(model, tmp_path):
    corpus = write_corpus(tmp_path / "c.jsonl", [r for r in rows() if r["id"] in ("i03", "i17")])
    config = RunConfig(model=model, corpus=str(corpus), on_error="skip")
    with pytest.raises(InputError, match="instruction i03: .*\ninstruction i17: "):
        list(PromptMaker(config, engine_options(config)).parts(4))


def test_no_prompt_is_lost_between_a_part_and_the_corpus(model, tmp_path):
    """The parts against one call for all."""
    made = maker(model, tmp_path, on_error="skip", max_tokens=5)
    items = [item for part, _ in made.parts(4) for item in part]
    alone = [prompt for item in items for prompt in made.prompts([item])]
    assert [prompt for _, prompts in made.parts(4) for prompt in prompts] == alone
    assert len(alone) == 22
