"""Tracing a stored run: its model, its prompts, and the instructions on which units fire most."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparcom.config import RunConfig
from sparcom.corpus.schema import FIELDS, Instruction, to_instruction
from sparcom.errors import InputError
from sparcom.models import weights_fingerprint
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker
from sparcom.store import Run
from sparcom.tracing.traces import Traces, trace_prompts
from sparcom.tracing.units import parse_units


@dataclass(frozen=True)
class Top:
    """An instruction on which a unit fires much. tokens: T; p: c / T."""

    id: str
    tokens: int
    p: float


def top_instructions(run: Run, index: np.ndarray, most: int) -> list[list[Top]]:
    """For each neuron the instructions with the highest frequency, the highest first.

    Of equal ones the longest comes first, then the first of the corpus. Instructions on which it
    never fires are left out.
    Raises InputError if the run did not retain its counts.
    """
    found: list[list[Top]] = [[] for _ in index]
    some = False
    for _, counted in run.store.results.counts():
        some = True
        with np.errstate(invalid="ignore"):
            p = counted.neurons[:, index] / counted.tokens[:, None]
        for column, best in enumerate(found):
            order = np.lexsort((-counted.tokens, -p[:, column]))[:most]
            best += [
                Top(counted.ids[i], int(counted.tokens[i]), float(p[i, column]))
                for i in order
                if p[i, column] > 0
            ]
            best.sort(key=lambda one: (-one.p, -one.tokens))
            del best[most:]
    if not some:
        raise InputError(
            f"{run.store.location}: this run did not retain its counts, so the instructions on "
            "which a unit fires most are not known; name some with --id, or give a --text"
        )
    return found


def trace(
    run: Run,
    units: Sequence[str],
    ids: Sequence[str] = (),
    texts: Sequence[str] = (),
    *,
    engine: str | None = None,
    threads: int | None = None,
) -> Traces:
    """What some neurons do at each counted token, on instructions of a run and on other texts.

    units: `LAYER:UNIT`, `LAYER:EXPERT:UNIT`, `LAYER:shared:UNIT`, or files of component lists.
    ids: of instructions. texts: what a user writes; their ids are "text 1", "text 2", ...
    engine: "transformers" or "vllm"; None: the run's. threads: CPU threads; None: all cores.
    Prompts are rendered and counted as the run did; an answer that the model writes itself is not
    traced. Raises InputError if the model is not there or has other weights, an id is unknown, or
    nothing is named.

    >>> trace(run, ["22:616"], ids=["MATH-ai-001"]).table()
    """
    index = parse_units(units, run.space)
    items = [*instructions_of(run, ids), *_own(texts)]
    if not items:
        raise InputError("trace: name an instruction with --id, or give a --text")
    with tracing(run, engine=engine, threads=threads) as read:
        return read(items, index)


@contextmanager
def tracing(
    run: Run, *, engine: str | None = None, threads: int | None = None, prove: bool = True
) -> Iterator[Callable[[Sequence[Instruction], np.ndarray], Traces]]:
    """Load a run's model; yields what traces neurons (flat indices) on instructions.

    prove: prove when loading that the pass is the model's own.
    Raises InputError if the model is not there or has other weights.
    """
    from sparcom.engines.load import load_engine

    config = RunConfig.from_json(run.manifest["config"])
    config = replace(config, generate=0, engine=engine or config.engine, tensor_parallel=1,
                     pipeline_parallel=1, expert_parallel=False, prove=prove)  # fmt: skip
    options = replace(engine_options(config), threads=threads)
    if weights_fingerprint(options.model) != run.manifest["model"]["weights"]:
        raise InputError(f"trace: model {options.model}: its weights are not those of the run")
    maker = PromptMaker(config, options)
    loaded: Any = load_engine(config.engine, options)

    def read(items: Sequence[Instruction], index: np.ndarray) -> Traces:
        prompts = maker.prompts(items)
        tokens = [maker.tokens(*pair) for pair in zip(items, prompts, strict=True)]
        return trace_prompts(
            loaded, prompts, tokens, index, threshold=config.threshold, signal=config.signal
        )

    try:
        yield read
    finally:
        loaded.close()


def _own(texts: Sequence[str]) -> list[Instruction]:
    if any(not text.strip() for text in texts):
        raise InputError("trace: a text is blank")
    return [Instruction(f"text {n + 1}", "", instruction=text) for n, text in enumerate(texts)]


def instructions_of(run: Run, ids: Sequence[str]) -> list[Instruction]:
    """The instructions of a run that have these ids, each once; InputError if one has none."""
    table = run.store.corpus.table(FIELDS).to_pylist() if ids else []
    record_of = {record["id"]: record for record in table}
    for name in ids:
        if name not in record_of:
            raise InputError(f"{run.store.location}: no instruction has the id {name!r}")
    return [to_instruction(record_of[name]) for name in dict.fromkeys(ids)]
