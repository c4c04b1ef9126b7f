"""Proving a loaded engine: the pass that is counted is the model's own.

A few prompts of random tokens go through the engine, alone and packed behind each other in both
orders, and through transformers' own, unmodified modules with their eager attention, on the same
weights (`passes.compare_passes`).
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.base import EngineOptions
from sparcom.engines.packing import Pass
from sparcom.engines.proof import Proof, SiteProof
from sparcom.engines.transformers import attention, loading
from sparcom.engines.transformers.proof.end_to_end import Expected, expected_counts
from sparcom.engines.transformers.proof.passes import compare_passes
from sparcom.engines.transformers.proof.prompts import make_prompts, short_windows
from sparcom.engines.transformers.proof.reference import Reference, read_reference
from sparcom.engines.transformers.proof.trace import Points, rounded_otherwise
from sparcom.engines.transformers.sites import Ffn, Instrumentation
from sparcom.errors import InputError, SparcomError

_SMALL = 300_000_000  # parameters: a proof takes one thread about a second
_logger = logging.getLogger("sparcom.engines")


class Provable(Protocol):
    """A transformers engine, as far as it is proved; see there."""

    options: EngineOptions
    model: PreTrainedModel
    space: ComponentSpace
    ffns: list[Ffn]
    instrumentation: Instrumentation
    vocabulary: int
    device: torch.device
    alone: str | None

    def counting(self) -> Recorder: ...
    def pack(self, alone: str | None) -> None: ...
    def forward(self, prompts: Sequence[Prompt], one: Pass) -> torch.Tensor: ...
    def count(self, prompts: Sequence[Prompt]) -> Iterable[Counted]: ...


def prove(engine: Provable) -> Proof:
    """The proof of an engine's passes.

    If packed passes are not the model's own, each prompt gets a pass of its own from then on, and
    those are proved. Raises InputError if neither are.
    """
    started = time.perf_counter()
    points = Points.of(engine.model, engine.ffns)
    prompts = make_prompts(engine.model.config, engine.vocabulary)
    with short_windows(engine.model) as windows, _one_thread_if_small(engine.model):
        sites = _packed_sites(engine, points, prompts) or _sites(engine, points, prompts)
    proof = Proof(
        against="transformers' own modules with eager attention, layer by layer",
        passes="packed" if engine.alone is None else f"one prompt each, slower: {engine.alone}",
        sites=sites,
        lengths=tuple(len(p.token_ids) for p in prompts),
        windows=windows,
        seconds=time.perf_counter() - started,
    )
    _logger.info("model proved", extra={"seconds": round(proof.seconds, 2), "passes": proof.passes})
    return proof


def expect(engine: Provable, longest: int) -> Expected:
    """`TransformersEngine.expect`."""
    recorder = engine.counting()
    prompts = make_prompts(engine.model.config, engine.vocabulary, longest)
    points = Points.of(engine.model, engine.ffns)
    references = _references(engine, points, prompts)
    # One that reads prompts alone runs transformers' own modules, and would differ by nothing.
    other = nullcontext() if engine.alone is None else rounded_otherwise(points)
    with _plain_gates(recorder), other:
        expected = expected_counts(engine.forward, recorder, references, engine.space)
    if (recorder.threshold, recorder.signal) == (0.0, "gate"):
        return expected
    # References show gates alone. What else fires is this engine's word, which is proved.
    rows = {
        name: row
        for counted in engine.count(prompts)
        for name, row in zip(counted.ids, counted.neurons, strict=True)
    }
    return replace(expected, fired=np.stack([rows[p.id] for p in prompts]).astype(np.int64))


def _packed_sites(
    engine: Provable, points: Points, prompts: Sequence[Prompt]
) -> tuple[SiteProof, ...]:
    """How packed passes agree; () if they do not, or if the engine packs none."""
    if engine.alone is not None:
        return ()
    try:
        return _compare(engine, points, prompts)
    except Exception as error:  # attention that does not know packing fails in any way
        engine.counting().discard()
        where = getattr(error, "where", loading.first_line(error))
        engine.pack(f"packed, its passes are not its own ({where})")
        return ()


def _sites(engine: Provable, points: Points, prompts: Sequence[Prompt]) -> tuple[SiteProof, ...]:
    """How the passes of one prompt agree."""
    name = f"model {engine.options.model}"
    try:
        return _compare(engine, points, prompts)
    except SparcomError as error:
        raise InputError(
            f"{name}: what would be counted is not the model's own pass: {error}; try --engine vllm"
        ) from error
    except Exception as error:
        raise InputError(
            f"{name}: it cannot be proved: {loading.first_line(error)}; --no-prove leaves the "
            "proof out"
        ) from error


def _compare(engine: Provable, points: Points, prompts: Sequence[Prompt]) -> tuple[SiteProof, ...]:
    references, recorder = _references(engine, points, prompts), engine.counting()
    with _plain_gates(recorder):
        return compare_passes(
            engine.forward,
            recorder,
            points,
            references,
            packed=engine.alone is None,
            together=recorder.slots >= len(prompts),
        )


def _references(engine: Provable, points: Points, prompts: Sequence[Prompt]) -> list[Reference]:
    """Prompts through the unmodified modules, each alone."""
    model, own = engine.model, engine.model.config._attn_implementation
    with engine.instrumentation.taken_out():
        if engine.alone is None:
            model.set_attn_implementation(attention.REFERENCE)
        try:
            body = loading.body_of(model)
            return [read_reference(body, points, p, engine.device) for p in prompts]
        finally:
            model.set_attn_implementation(own)


@contextmanager
def _one_thread_if_small(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a small model on CPU runs on one thread.

    Its products are so short that threads cost more by waiting for each other than they save: with
    135 million parameters, on two busy cores, one thread took 0.5 s and two took 3 to 9 s.
    """
    before = torch.get_num_threads()
    if sum(p.numel() for p in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _plain_gates(recorder: Recorder) -> Iterator[None]:
    """Within the block, a neuron fires if its gate is positive: what references show."""
    asked = recorder.threshold, recorder.signal
    recorder.threshold, recorder.signal = 0.0, "gate"
    try:
        yield
    finally:
        recorder.threshold, recorder.signal = asked
