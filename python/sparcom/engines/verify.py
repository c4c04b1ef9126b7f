"""Proving a model on demand, on either engine.

The transformers engine proves itself when it is loaded. An engine with modules of its own is
compared with what transformers' own modules count: the transformers engine is loaded first, in its
place, then freed.
"""

import time
from dataclasses import fields, replace

import numpy as np

from sparcom.engines.base import Engine, EngineOptions
from sparcom.engines.load import load_engine
from sparcom.engines.proof import Proof
from sparcom.errors import InputError

LONGEST = 8192  # tokens of a prompt that is to exceed a window


def verify(name: str, options: EngineOptions) -> tuple[Proof, str]:
    """(the proof of a model on an engine, the dtype that it runs in).

    Raises InputError for a model that is not counted as it runs.
    """
    if name == "transformers":
        engine = load_engine(name, replace(options, prove=True))
        try:
            return engine.proof, engine.info.dtype
        finally:
            engine.close()
    started = time.perf_counter()
    expected = expect(options, LONGEST)
    engine = load_engine(name, options)
    try:
        return prove_against(engine, expected, started), engine.info.dtype
    finally:
        engine.close()


def expect(options: EngineOptions, longest: int):
    """What transformers' own modules count of the model of any engine's options."""
    from sparcom.engines.transformers.engine import TransformersEngine

    plain = {f.name: getattr(options, f.name) for f in fields(EngineOptions)}
    engine = TransformersEngine(EngineOptions(**{**plain, "prove": True, "count": True}))
    try:
        return engine.expect(longest)
    finally:
        engine.close()


def prove_against(engine: Engine, expected, started: float) -> Proof:
    """The proof of an engine by its counts.

    started: when the proof began, by `time.perf_counter`.
    Raises InputError naming the site whose counts are not the model's.
    """
    from sparcom.counting.counted import Counted
    from sparcom.engines.transformers.proof.end_to_end import compare_counts

    rows = {
        name: (counted.neurons[row], counted.experts[row])
        for counted in engine.count(expected.prompts)
        for row, name in enumerate(counted.ids)
    }
    lengths = [len(p.token_ids) for p in expected.prompts]
    neurons, experts = zip(*(rows[p.id] for p in expected.prompts), strict=True)
    ids = tuple(p.id for p in expected.prompts)
    counted = Counted(ids, np.array(lengths), np.stack(neurons), np.stack(experts))
    try:
        sites = compare_counts(expected, counted)
    except InputError as error:
        raise InputError(
            f"what {engine.info.name} counts is not the model's own pass: {error}"
        ) from error
    return Proof(
        against="transformers' own modules with eager attention, end to end",
        passes=f"as {engine.info.name} schedules them",
        sites=sites,
        lengths=tuple(lengths),
        windows={},
        seconds=time.perf_counter() - started,
    )
