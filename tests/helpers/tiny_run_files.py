"""Runs of a tiny model on twenty instructions, and what they leave in files."""

from collections.abc import Sequence
from pathlib import Path

from tiny_runs import records

from sparcom.config import RunConfig
from sparcom.counting.counted import Counted
from sparcom.pipeline.actor import CountActor, PartResult
from sparcom.pipeline.plan import prepare
from sparcom.store import RunStore, concat_counted

ROWS = records(20)


def config_of(work: Path, out: Path, **changes: object) -> RunConfig:
    values = {
        "model": str(work / "model"), "corpus": str(work / "corpus.jsonl"), "out": str(out),
        "cpus": 1, "part_size": 4, "batch_tokens": 64, "slots": 4,
    }  # fmt: skip
    return RunConfig(**{**values, **changes})


def run_here(config: RunConfig, parts: Sequence[int] | None = None) -> dict[str, bytes]:
    """A run without Ray: the plain functions, part by part, in the order given."""
    plan = prepare(config)
    actor = CountActor(plan.work)
    for part in plan.todo if parts is None else parts:
        assert isinstance(actor.count(part), PartResult)
    return parts_of(Path(config.out))


def parts_of(folder: Path) -> dict[str, bytes]:
    """Bytes of every counts and sets file."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for name in ("counts", "sets")
        for p in (folder / name).glob("*.parquet")
    }


def all_counts(folder: Path) -> Counted:
    return concat_counted([counted for _, counted in RunStore(folder).results.counts()])
