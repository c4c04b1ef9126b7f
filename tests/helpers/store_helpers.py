"""Random counts of two small component spaces; runs written as the pipeline writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from sparcom.components import ComponentSpace, Site
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.selection.rules import Selection
from sparcom.selection.sets import Sets
from sparcom.store import CellRule, RunStore, writing_corpus

DENSE = ComponentSpace((Site("dense", 0, 11, "silu"), Site("dense", 1, 6, "silu")))
MOE = ComponentSpace(
    (Site("dense", 0, 5, "silu"), Site("routed", 1, 2, "silu", experts=9, top_k=2))
)

STAMPS = {name: f"of {name}" for name in ("corpus", "counts", "failed", "sets", "profiles")}


def counted_of(space: ComponentSpace, ids: tuple[str, ...], seed: int = 0, top: int = 9) -> Counted:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, top + 1, len(ids))
    return Counted(
        ids,
        tokens,
        rng.integers(0, tokens[:, None] + 1, (len(ids), space.neurons)).astype(np.int32),
        rng.integers(0, tokens[:, None] + 1, (len(ids), space.experts)).astype(np.int32),
    )


def signed_of(space: ComponentSpace, ids: tuple[str, ...], seed: int = 0) -> Counted:
    """Counts with signs that are conserved."""
    counted, rng = counted_of(space, ids, seed), np.random.default_rng(seed + 1)
    tokens = np.repeat(counted.tokens[:, None], space.neurons, 1)
    at = space.neuron_experts
    rows = np.where(at >= 0, counted.experts[:, at] if space.experts else 0, tokens)
    four = rng.multinomial(rows, [0.25] * 4)  # both, gate only, up only, neither
    gate, up, both = four[..., 0] + four[..., 1], four[..., 0] + four[..., 2], four[..., 0]
    signs = np.stack([up, both]).astype(np.int32)
    return replace(counted, neurons=gate.astype(np.int32), signs=signs)


def assert_equal(a: object, b: object) -> None:
    """Two Counted or two Sets: ids, every array, and its shape."""
    assert type(a) is type(b)
    for name, value in vars(a).items():
        if not isinstance(value, np.ndarray):
            assert value == getattr(b, name)
        else:
            np.testing.assert_array_equal(value, getattr(b, name))
            assert value.shape == getattr(b, name).shape


def manifest_of(space: ComponentSpace, instructions: int = 1, **changes: Any) -> dict[str, Any]:
    """A whole run.json, of a run whose files have the stamps `STAMPS`.

    changes: values of its keys; what is given for a table is added to it.
    """
    corpus = {"instructions": instructions, "hash": "", "labels": ""}
    whole: dict[str, Any] = {
        "status": "complete",
        "config": RunConfig().to_json(),
        "model": {"path": "/models/tiny", "weights": "ab" * 32},
        "corpus": {**corpus, "prompt_tokens": 0, "counted_tokens": 0},
        "cells": CellRule((4, 6)).to_json(),
        "sites": space.to_json(),
        "selection": asdict(Selection()),
        "threads": 1,
        "versions": {"torch": "2"},
        "created": "2026-01-01T00:00:00Z",
        "stamps": STAMPS,
        "run": "abcdef",
    }
    for key, value in changes.items():
        table = isinstance(whole.get(key), Mapping) and isinstance(value, Mapping)
        whole[key] = {**whole[key], **value} if table else value
    return whole


def store_corpus(
    store: RunStore, instructions: Sequence[Instruction], prompts: Sequence[Prompt], part_size: int
) -> int:
    """Write corpus.parquet with `part_size` instructions a part; returns the number of parts."""
    with writing_corpus(store.files) as writer:
        for start in range(0, len(prompts), part_size):
            part = slice(start, start + part_size)
            writer.add(instructions[part], prompts[part])
        writer.stamp((store.stamps or {}).get("corpus", ""))
    return writer.parts


def store_part(
    store: RunStore,
    part: int,
    counted: Counted | None,
    sets: Sets | None,
    failures: Sequence[Failure] = (),
    profile: pa.Table | None = None,
) -> None:
    """Write the results of one part, the profile last."""
    store.results.write(part, counted, sets, failures)
    if profile is not None:
        store.profiles.write(part, profile)


def stored_table(store: RunStore, name: str) -> pa.Table:
    """Any Parquet file of a run, on whatever file system it lies."""
    with store.files.parquet(name, "") as file:
        return file.read()
