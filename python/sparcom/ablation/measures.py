"""What an ablation reads: engines, prompts, and which instructions are scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparcom.ablation.ablator import Ablator
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.plain_text import RECORDS, TOKENS
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.clusters import turns, with_clusters
from sparcom.config import RunConfig
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import FIELDS, Instruction, to_instruction
from sparcom.engines.base import EngineOptions
from sparcom.engines.load import load_engine
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker, prompts_of
from sparcom.store import Run


@dataclass(frozen=True)
class Answered:
    """Instructions with a reference answer; codes: [n] category; half: [n]; clusters: [n] names."""

    items: tuple[Instruction, ...]
    categories: tuple[str, ...]
    codes: np.ndarray
    half: np.ndarray
    clusters: np.ndarray

    def of(self, half: int, category: str | None) -> list[Instruction]:
        """Those of a half, and of a category unless it is None."""
        return [
            item
            for item, at in zip(self.items, self.half, strict=True)
            if at == half and category in (None, item.category)
        ]

    def take(self, rows: np.ndarray) -> "Answered":
        """Some of them."""
        return Answered(
            tuple(self.items[row] for row in rows), self.categories,
            self.codes[rows], self.half[rows], self.clusters[rows],
        )  # fmt: skip


def answered(run: Run, half: np.ndarray) -> tuple[Answered, list[str]]:
    """(the counted instructions that have a reference answer, warnings).

    half: [n] of the instructions in `run.labels`. They are those that were counted, whatever has
    become of the corpus file since. A category without answers in both halves is left out.
    Raises InputError if none is left.
    """
    half_of = dict(zip(run.labels["id"].to_pylist(), half.tolist(), strict=True))
    records = with_clusters(run.store.corpus.table(FIELDS)).to_pylist()
    counted = [record for record in records if record["id"] in half_of]
    kept = [record for record in counted if record["reference"]]
    warnings = []
    if missing := len(counted) - len(kept):
        warnings.append(f"{missing} instructions have no reference answer")
    if not kept:
        raise InputError(
            f"ablate: {run.store.location}: no instruction has a reference answer, on which the "
            "loss is measured; count a corpus with the field `reference`"
        )
    seen = {(record["category"], half_of[record["id"]]) for record in kept}
    whole = [name for name in run.categories if {(name, 0), (name, 1)} <= seen]
    for name in sorted({name for name, _ in seen} - set(whole)):
        warnings.append(
            f"{name} is undetermined: its instructions with reference answers are of one cluster, "
            "and a second one is needed to score on"
        )
    kept = [record for record in kept if record["category"] in whole]
    if not kept:
        raise InputError("ablate: " + "; ".join(warnings))
    items = tuple(to_instruction(record) for record in kept)
    out = Answered(
        items,
        tuple(whole),
        np.array([whole.index(item.category) for item in items]),
        np.array([half_of[item.id] for item in items]),
        np.array([record["cluster"] for record in kept]),
    )
    return out, warnings


def choose(known: Answered, limit: int | None) -> np.ndarray:
    """Rows of the instructions that are scored: at most `limit` of a category, half of each half.

    Clusters take turns, so that as many as possible are among them.
    """
    turn = turns(known.codes.tolist(), known.clusters.tolist())
    chosen: list[int] = []
    for code in range(len(known.categories)):
        for half, most in ((0, _half_of(limit, 0)), (1, _half_of(limit, 1))):
            rows = np.flatnonzero((known.codes == code) & (known.half == half))
            chosen += rows[np.argsort(turn[rows], kind="stable")][:most].tolist()
    return np.sort(np.array(chosen))


def _half_of(limit: int | None, half: int) -> int | None:
    return None if limit is None else (limit + 1 - half) // 2


def options_of_engine(config: RunConfig, options: AblationOptions, engine: str) -> EngineOptions:
    """How an engine is loaded to measure: vLLM's in as many shards as the run says."""
    if engine == "transformers":
        config = replace(
            config, engine="transformers", generate=0, tensor_parallel=1, pipeline_parallel=1,
            expert_parallel=False, context=None,
        )  # fmt: skip
        return replace(engine_options(config), threads=options.threads)
    found: Any = engine_options(replace(config, engine="vllm"))
    sums = options.hows[0].kind == "mean"  # which CUDA graphs cannot
    vllm: EngineOptions = replace(found, threads=options.threads, ablation=True,
                                  compile=found.compile and not sums)  # fmt: skip
    return vllm


@contextmanager
def open_transformers(engine_of: EngineOptions, how: str) -> Iterator[TransformersAblator]:
    """The transformers engine, ready to ablate; closed after the block."""
    engine = TransformersEngine(engine_of)
    try:
        yield TransformersAblator(engine, how)
    finally:
        engine.close()


@contextmanager
def open_vllm(engine_of: EngineOptions, how: str) -> Iterator[Ablator]:
    """The vLLM engine, ready to ablate; closed after the block."""
    from sparcom.ablation.vllm_ablator import VllmAblator

    engine: Any = load_engine("vllm", engine_of)
    try:
        yield VllmAblator(engine, how)
    finally:
        engine.close()


def plain_prompts(maker: PromptMaker, config: RunConfig) -> list[Prompt]:
    """The first tokens of a few texts of the bundled plain text, without a template."""
    items = load_corpus("plain-text", None, RECORDS)
    rule = {"template": "raw", "scope": "prompt", "max_tokens": TOKENS, "truncate": True}
    return prompts_of(maker, config, items, **rule)
