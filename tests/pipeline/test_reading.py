"""A run reads any corpus that `corpus check` reads, by the same keys."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_runs import save_tiny_llm

from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.pipeline.plan import prepare


def config(folder: Path, **changes: object) -> RunConfig:
    keys = {
        "model": str(save_tiny_llm(folder / "model")),
        "corpus": str(folder / "mine.csv"),
        "map": ("instruction=prompt", "category=kind"),
        "fill": ("id=row-{row}",),
        "categories": "chat,code",
        "out": str(folder / "run"),
    }
    return RunConfig(**{**keys, **changes})


def test_other_fields_and_categories(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind\nhello there,chat\nsort a list,code\n")
    plan = prepare(config(tmp_path))
    rows = plan.store.corpus.table(["id", "category"]).to_pylist()
    assert [row["category"] for row in rows] == ["chat", "code"]
    assert plan.manifest["skipped_rows"]["count"] == 0


def test_bad_rows_stop_a_run_or_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind\nhello there,chat\n ,code\nlast one,code\n")
    with pytest.raises(InputError, match="field 'instruction' is blank"):
        prepare(config(tmp_path))
    assert not (tmp_path / "run" / "run.json").exists()
    plan = prepare(config(tmp_path, on_error="skip", out=str(tmp_path / "other")))
    assert plan.manifest["corpus"]["instructions"] == 2
    assert plan.manifest["skipped_rows"]["count"] == 1
    assert "is blank" in plan.manifest["skipped_rows"]["first"][0]


def test_the_reference_is_read_in_scope_response(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind,reference\nadd 2 and 2,chat,four\n")
    asked = prepare(config(tmp_path)).store.corpus.prompts(0)[0][0]
    both = config(tmp_path, scope="response", out=str(tmp_path / "answers"))
    answered = prepare(both).store.corpus.prompts(0)[0][0]
    assert answered.token_ids[: len(asked.token_ids)] == asked.token_ids
    assert answered.counted == ((len(asked.token_ids), len(answered.token_ids)),)


def test_overwrite_resources_nothing_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind\nhello there,chat\n")
    for _ in range(2):
        plan = prepare(config(tmp_path), overwrite=True)
        assert plan.store.is_run()
        assert plan.store.corpus.table(["id"]).num_rows == 1


def abandon(folder: Path, *, planned: bool) -> None:
    """What a driver leaves that was killed before run.json: while it wrote the corpus, or after."""
    if planned:
        prepare(config(folder))
        (folder / "run" / "run.json").unlink()
        return
    (folder / "run").mkdir()
    (folder / "run" / "corpus.parquet.0123abcd.tmp").write_bytes(b"half of it")


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_start_that_was_killed_is_started_again(tmp_path: Path, planned: bool, how: str) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind\nhello there,chat\n")
    abandon(tmp_path, planned=planned)
    with pytest.raises(InputError, match="exists already; finish it with --resume"):
        prepare(config(tmp_path))
    plan = prepare(config(tmp_path), **{how: True})
    assert plan.store.corpus.table(["id"]).num_rows == 1
    assert plan.store.is_run()
    assert list((tmp_path / "run").glob("*.tmp")) == []


@pytest.mark.parametrize("content", ["a table", "no table"])
@pytest.mark.parametrize("name", ["corpus.parquet", "notes.txt", "mine.0123abcd.tmp"])
@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_what_is_not_a_run_is_never_touched(
    tmp_path: Path, name: str, how: str, content: str
) -> None:
    (tmp_path / "mine.csv").write_text("prompt,kind\nhello there,chat\n")
    (tmp_path / "run").mkdir()
    theirs = tmp_path / "run" / name
    if content == "a table":
        pq.write_table(pa.table({"id": ["theirs"]}), theirs)
    else:
        theirs.write_text("theirs")
    before = theirs.read_bytes()
    with pytest.raises(InputError, match="not a run"):
        prepare(config(tmp_path), **{how: True})
    assert theirs.read_bytes() == before
