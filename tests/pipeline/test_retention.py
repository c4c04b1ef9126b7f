"""What a run keeps, and that its profile says the same whichever it is."""

from pathlib import Path

import numpy as np
import pytest
from store_helpers import stored_table
from tiny_runs import POISON, records, save_tiny_llm, write_corpus

from sparcom.analysis.data.load import load
from sparcom.analysis.options import AnalysisOptions
from sparcom.config import RunConfig
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.identify import identify
from sparcom.pipeline.plan import prepare
from sparcom.store import Run, Span


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    rows = records(40)
    rows[7]["instruction"] += POISON
    write_corpus(folder / "corpus.jsonl", rows)
    return folder


def count(work: Path, out: Path, **changes: object) -> Run:
    """A run without Ray."""
    config = RunConfig(
        model=str(work / "model"), corpus=str(work / "corpus.jsonl"), out=str(out), cpus=1,
        part_size=4, batch_tokens=64, slots=4, **changes,
    )  # fmt: skip
    plan = prepare(config)
    actor = CountActor(plan.work)
    for part in plan.todo:
        actor.run(part)
    plan.store.profiles.merge(Span(0, plan.parts))
    return Run(out)


def test_every_retention_keeps_the_same_profile(work: Path, tmp_path: Path) -> None:
    runs = {
        keep: count(work, tmp_path / keep, retain=keep) for keep in ("counts", "sets", "profile")
    }
    tables = [stored_table(r.store, "profiles/parts-00000-00009.parquet") for r in runs.values()]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert sum(tables[0]["instructions"].to_pylist()) == 39
    for keep, folders in (("counts", 2), ("sets", 1), ("profile", 0)):
        there = {p.name for p in (tmp_path / keep).iterdir() if p.is_dir()}
        assert len(there & {"counts", "sets"}) == folders
        assert runs[keep].store.done_parts(keep) == set(range(10))


def test_the_stored_profile_is_that_of_the_sets(work, tmp_path) -> None:
    run = count(work, tmp_path / "run")
    edges = np.array(run.manifest["cells"]["edges"])
    labels, tokens = run.labels.to_pylist(), run.sets.tokens
    members = np.unpackbits(run.sets.neurons, axis=1, bitorder="little")[:, : run.space.neurons]
    keys = [(row["category"], row["source"], int((t > edges).sum()))
            for row, t in zip(labels, tokens, strict=True)]  # fmt: skip
    cells, sums = run.store.profiles.read(("category", "source", "length"), ("neurons",))
    names = ("category", "source", "length")
    assert [tuple(c[n] for n in names) for c in cells.to_pylist()] == sorted(set(keys))
    for cell, found in zip(cells.to_pylist(), sums["neurons"], strict=True):
        inside = np.array([key == tuple(cell[n] for n in names) for key in keys])
        assert (cell["instructions"], cell["tokens"]) == (inside.sum(), tokens[inside].sum())
        np.testing.assert_array_equal(found, members[inside].sum(0))
    loaded = load(run, AnalysisOptions())
    assert loaded.strata.codes.tolist() == [
        sorted({key[1:] for key in keys}).index(key[1:]) for key in keys
    ]


def test_labels_of_a_profile_run_are_those_of_its_sets(work, tmp_path) -> None:
    run = count(work, tmp_path / "run")
    assert sorted(run.labels["id"].to_pylist()) == sorted(run.store.profiles.ids())


def test_sets_selected_again_bring_their_profile_along(work, tmp_path) -> None:
    run = count(work, tmp_path / "run")
    identify(str(tmp_path / "run"), rule="top:0.2")
    direct = count(work, tmp_path / "direct", rule="top:0.2")
    name = "profiles/parts-00000-00009.parquet"
    assert stored_table(run.store, name).equals(stored_table(direct.store, name))
