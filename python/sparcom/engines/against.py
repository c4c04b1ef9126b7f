"""Proving an engine whose modules are its own, by the counts of transformers' own modules.

The transformers engine is loaded first, in the other engine's place, and freed before that one is.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from sparcom.components import ComponentSpace, Site
from sparcom.counting.counted import Counted
from sparcom.engines.base import Engine, EngineOptions
from sparcom.engines.proof import DisagreementError, Proof
from sparcom.errors import InputError
from sparcom.model_files import weight_files
from sparcom.models import model_folder
from sparcom.quantisation import check_readable, quantisation_of

if TYPE_CHECKING:  # it imports transformers
    from sparcom.engines.transformers.proof.end_to_end import Expected

_ROOM = 1.3  # memory that a model takes while it is loaded, over that of its weights
_logger = logging.getLogger("sparcom.engines")


@dataclass(frozen=True)
class Prover:
    """What transformers' own modules count, to compare another engine with.

    expected: None if the model cannot be counted here by transformers; `why` says why.
    seconds: what it took. model_type: of the model's config.
    """

    expected: "Expected | None"
    why: str
    seconds: float = 0.0
    model_type: str = ""

    @classmethod
    def of(cls, options: EngineOptions, longest: int) -> "Prover":
        """Count a few prompts with the transformers engine, which is proved itself, and free it.

        options: of any engine. longest: tokens of the longest prompt; one beyond the model's
        windows is among them if it needs no more.
        """
        if not (options.prove and options.count):
            return cls(None, "--no-prove" if options.count else "nothing is counted")
        started = time.perf_counter()
        if why := _why_not_comparable(options) or _why_not_here(options):
            return cls(None, why)
        from sparcom.engines.transformers.engine import TransformersEngine

        plain = {f.name: getattr(options, f.name) for f in fields(EngineOptions)}
        try:
            engine = TransformersEngine(
                EngineOptions(**{**plain, "signs": False, "magnitudes": False})
            )
        except InputError as error:
            return cls(None, f"the transformers engine does not count it: {error}")
        try:
            kind = engine.model.config.get_text_config().model_type
            return cls(engine.expect(longest), "", time.perf_counter() - started, kind)
        finally:
            engine.close()
            _free_device()

    def prove(self, engine: Engine, known: Mapping[str, str] | None = None) -> Proof | None:
        """The proof of an engine by its counts; None if there is nothing to compare it with.

        known: model type -> in what the engine's modules are known to differ; a refusal tells it.
        Raises InputError naming the site whose counts are not the model's.
        """
        if self.expected is None:
            return None
        from sparcom.engines.transformers.proof.end_to_end import compare_counts

        started, name = time.perf_counter(), engine.info.name
        try:
            _check_shapes(engine.space, self.expected.space)
            sites = compare_counts(self.expected, _count(engine, self.expected))
        except InputError as error:
            reason = (known or {}).get(self.model_type)
            raise InputError(
                f"what {name} counts is not the model's own pass: {error}"
                + (f" ({reason})" if reason else "")
                + "; try --engine transformers"
            ) from error
        proof = Proof(
            against="transformers' own modules with eager attention, end to end",
            passes=f"as {name} schedules them",
            sites=sites,
            lengths=tuple(len(p.token_ids) for p in self.expected.prompts),
            windows={},
            seconds=self.seconds + time.perf_counter() - started,
        )
        _logger.info("model proved", extra={"seconds": round(proof.seconds, 2), "engine": name})
        return proof


def _check_shapes(found: ComponentSpace, expected: ComponentSpace) -> None:
    """Raise DisagreementError at the first site that two engines do not have alike.

    Counts lie in the order of the sites, so that those of other sites cannot be compared. What the
    activation is called is left to `load.check_sites`: it changes no sign.
    """
    for theirs, ours in zip_longest(expected.sites, found.sites):
        if theirs is None or ours is None or _shape(theirs) != _shape(ours):
            raise DisagreementError(
                (theirs or ours).name, f"the sites differ: transformers has {theirs}, this {ours}"
            )


def _shape(site: Site) -> tuple[str, int, int, int]:
    return site.name, site.width, site.experts, site.top_k


def _count(engine: Engine, expected: "Expected") -> Counted:
    """The counts of the expected prompts, in their order."""
    rows = {
        name: (counted.neurons[row], counted.experts[row], counted.tokens[row])
        for counted in engine.count(expected.prompts)
        for row, name in enumerate(counted.ids)
    }
    ids = tuple(p.id for p in expected.prompts)
    neurons, experts, tokens = zip(*(rows[name] for name in ids), strict=True)
    return Counted(
        ids=ids, tokens=np.array(tokens), neurons=np.stack(neurons), experts=np.stack(experts)
    )


def _why_not_comparable(options: EngineOptions) -> str:
    """Why no counts of transformers' own modules are those of quantised weights; "" if some are."""
    from sparcom.engines.transformers.loading import load_config

    config = load_config(options)
    found = quantisation_of(config)
    if found is None:
        return ""
    why = f"quantised weights ({found.method})"
    try:
        check_readable(options.model, config)
    except InputError:
        return f"{why}, which transformers does not read here, so that there is no pass to compare"
    if found.rounds_inputs and not found.rounded_by_transformers:
        return (
            f"{why}: vLLM may round the inputs of its products too, which transformers, with "
            "dequantised weights, does not"
        )
    return ""


def _why_not_here(options: EngineOptions) -> str:
    """Why transformers cannot hold the model here; "" if it can."""
    size = sum(file.stat().st_size for file in weight_files(model_folder(options.model)))
    free = _free_memory(options.device)
    if free is not None and free < _ROOM * size:
        return (
            f"its weights, {size >> 20} MB, do not fit into one device of {free >> 20} MB for the "
            "transformers engine; run `sparcom verify` where they do"
        )
    return ""


def _free_memory(device: str | None) -> int | None:
    """Bytes that are free on the device that transformers would use; None if unknown."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    try:
        with open("/proc/meminfo") as lines:
            facts = dict(line.split(":", 1) for line in lines)
    except OSError:
        return None
    return int(facts["MemAvailable"].split()[0]) << 10


def _free_device() -> None:
    """Give the memory of freed tensors back to the device, for the engine that comes next."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
