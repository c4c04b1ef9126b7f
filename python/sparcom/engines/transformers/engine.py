"""The embedded engine: a transformers model, prompts packed without padding, exact counts."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting import nvtx
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.base import EngineInfo, EngineOptions, PromptError
from sparcom.engines.packing import Pass, plan_passes
from sparcom.engines.proof import Proof, SiteProof, not_proved
from sparcom.engines.transformers import attention, loading, rotary, sites
from sparcom.engines.transformers.proof.end_to_end import Expected, expect
from sparcom.engines.transformers.proof.prompts import make_prompts, short_windows
from sparcom.engines.transformers.proof.prove import compare_passes
from sparcom.engines.transformers.proof.reference import Reference, advice, read_reference
from sparcom.engines.transformers.proof.trace import Points
from sparcom.errors import InputError, SparcomError
from sparcom.models import versions

_SMALL = 300_000_000  # parameters: a proof of it takes one thread about a second
_logger = logging.getLogger("sparcom.engines")


class TransformersEngine:
    """A causal language model of transformers that counts while it reads prompts.

    >>> engine = TransformersEngine(EngineOptions(model=resolve_model("default")))
    >>> for counted in engine.count(prompts):
    ...     print(counted.ids, counted.neurons.shape)

    alone: why each prompt has a pass of its own; None where prompts are packed.
    proof: how the pass was proved to be the model's own; None where it was not.

    Raises InputError for a model that is not supported, weights that do not fill it, or a pass that
    is not the model's own.
    """

    def __init__(self, options: EngineOptions) -> None:
        if options.batch_tokens < 1 or options.slots < 1:
            raise InputError(
                "batch-tokens and slots must be at least 1, got "
                f"{options.batch_tokens} and {options.slots}"
            )
        self.options = options
        self._device = torch.device(
            options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        if self._device.type == "cpu":
            torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
        config = loading.load_config(options)
        self.space = loading.describe_model(config, options.trust_remote_code)
        self.model, self.head = loading.load_model(options, config, self._device)
        self._vocabulary = loading.vocabulary_of(self.model)
        self._ffns = loading.find_supported(self.model)
        self.solo_above = rotary.solo_above(config)
        self._passes = 0
        self._pack(loading.why_alone(self.model))
        self._put_in = sites.Instrumentation()
        self.recorder: Recorder | None = None
        self.proof: Proof | None = None
        if options.count:
            self._instrument()
            if options.prove:
                self.proof = self._prove()
        why = "--no-prove" if options.count else "nothing is counted"
        self.info = EngineInfo(
            name="transformers",
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self._device.type,
            threads=torch.get_num_threads(),
            batch_tokens=options.batch_tokens,
            versions=versions(),
            proof=self.proof.facts() if self.proof else not_proved(why),
        )

    @property
    def context(self) -> int | None:
        """The model's longest sequence in tokens; None where its config does not say."""
        return loading.context_of(self.model.config)

    def plan(self, lengths: Sequence[int]) -> list[Pass]:
        """The passes that read prompts of these lengths."""
        if self.alone is not None:
            return [Pass((at,), length) for at, length in enumerate(lengths)]
        options = self.options
        return plan_passes(lengths, options.batch_tokens, options.slots, self.solo_above)

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, a pass at a time (see `engines.base.Engine`).

        Raises InputError for token ids that the model has no embedding for; PromptError also for
        prompts whose hidden states are not finite.
        """
        recorder = self._counting()
        loading.check_token_ids(self.options.model, prompts, self._vocabulary)
        for one in self.plan([len(p.token_ids) for p in prompts]):
            held = [prompts[i] for i in one.prompts]
            try:
                self._check_finite(self.forward(held, one), held)
                tokens = [p.n_counted for p in held]
                counted = recorder.take([p.id for p in held], range(len(held)), tokens)
            except SparcomError:
                recorder.discard()
                raise
            except Exception as error:
                recorder.discard()
                raise PromptError([p.id for p in held], loading.first_line(error)) from error
            yield counted

    @torch.inference_mode()
    def forward(self, prompts: Sequence[Prompt], one: Pass, logits: bool = False) -> torch.Tensor:
        """Run one pass.

        prompts: those of the pass, in its order; the rows after them are filled and not counted.
        logits: run the language model head too.
        Returns [rows, hidden or vocabulary].
        Raises InputError where logits are asked of a model without a head.
        """
        if logits and not self.head:
            raise InputError(
                f"model {self.options.model}: {loading.NO_HEAD}, so it has no losses; counts do "
                "not need one"
            )
        if self.alone is not None and len(prompts) > 1:
            raise SparcomError(f"{len(prompts)} prompts in one pass, but {self.alone}")
        spans, start = [], 0
        ids = torch.zeros(one.rows, dtype=torch.int64)
        positions = torch.zeros(one.rows, dtype=torch.int64)
        slot_of_row = torch.full((one.rows,), -1, dtype=torch.int32)
        for slot, prompt in enumerate(prompts):
            length = len(prompt.token_ids)
            ids[start : start + length] = torch.tensor(prompt.token_ids)
            positions[start : start + length] = torch.arange(length)
            for first, last in prompt.counted:
                slot_of_row[start + first : start + last] = slot
            spans.append((start, start + length))
            start += length
        if self.recorder is not None:
            self.recorder.begin(slot_of_row)
        if self.solo_above is not None:
            rotary.reset(self.model)
        model = self.model if logits else loading.body_of(self.model)
        arguments = {"input_ids": ids[None].to(self._device), "use_cache": False}
        if self.alone is None:
            arguments["position_ids"] = positions[None].to(self._device)
        self._passes += 1
        with nvtx.step(self._passes), attention.prompt_spans(spans):
            output = model(**arguments)
        return (output.logits if logits else output.last_hidden_state)[0]

    def close(self) -> None:
        """Free the model."""
        del self.model, self._ffns, self._put_in
        self.recorder = None

    def _instrument(self) -> None:
        options = self.options
        self.recorder = Recorder(
            self.space.sites,
            options.slots,
            threshold=options.threshold,
            signal=options.signal,
            verify=options.verify,
            device=self._device,
        )
        self._put_in = sites.instrument(self._ffns, self.recorder, options.batch_tokens)

    def _counting(self) -> Recorder:
        if self.recorder is None:
            raise SparcomError("this engine was loaded with count=False")
        return self.recorder

    def _pack(self, alone: str | None) -> None:
        """Let prompts share passes, or say why each is alone."""
        self.alone = alone
        self.model.set_attn_implementation(attention.NAME if alone is None else "eager")

    def _check_finite(self, hidden: torch.Tensor, prompts: Sequence[Prompt]) -> None:
        """Raise PromptError naming the prompts whose last hidden state is not finite."""
        slots = self._counting().slots_of_rows
        wrong = (slots >= 0) & ~torch.isfinite(hidden).all(-1)
        if not wrong.any():
            return
        ids = [prompts[slot].id for slot in slots[wrong].unique().tolist()]
        raise PromptError(
            ids,
            f"its hidden states are not finite in {self.info.dtype}; {advice(hidden.dtype)}",
        )

    def _prove(self) -> Proof:
        """Prove the pass; where packed passes are not the model's own, prove those of one prompt.

        Raises InputError where neither are.
        """
        started = time.perf_counter()
        name = f"model {self.options.model}"
        points = Points.of(self.model, self._ffns)
        prompts = make_prompts(self.model.config, self._vocabulary)
        with short_windows(self.model) as windows, _one_thread_if_small(self.model):
            found = None
            if self.alone is None:
                try:
                    found = self._compare(points, prompts)
                except Exception as error:  # attention that does not know packing fails anywhere
                    self._counting().discard()
                    where = getattr(error, "where", loading.first_line(error))
                    self._pack(f"packed, its passes are not its own ({where})")
            try:
                found = found or self._compare(points, prompts)
            except SparcomError as error:
                raise InputError(
                    f"{name}: what would be counted is not the model's own pass: {error}; try "
                    "--engine vllm"
                ) from error
            except Exception as error:
                raise InputError(
                    f"{name}: it cannot be proved: {loading.first_line(error)}; --no-prove leaves "
                    "the proof out"
                ) from error
        proof = Proof(
            against="transformers' own modules with eager attention, layer by layer",
            passes="packed" if self.alone is None else f"one prompt each: {self.alone}",
            sites=found,
            lengths=tuple(len(p.token_ids) for p in prompts),
            windows=windows,
            seconds=time.perf_counter() - started,
        )
        _logger.info(
            "model proved", extra={"seconds": round(proof.seconds, 2), "passes": proof.passes}
        )
        return proof

    def expect(self, longest: int) -> Expected:
        """What transformers' own modules count on a few prompts, for another engine of this model.

        longest: tokens of the longest prompt; one that exceeds the model's windows is among them
        where it is not longer than that.
        """
        prompts, recorder = (
            make_prompts(self.model.config, self._vocabulary, longest),
            self._counting(),
        )
        references = self._references(Points.of(self.model, self._ffns), prompts)
        with _plain_gates(recorder):
            expected = expect(self.forward, recorder, references, self.space)
        if (recorder.threshold, recorder.signal) == (0.0, "gate"):
            return expected
        # References show gates alone. What else fires is this engine's word, which is proved.
        counted = list(self.count(prompts))
        fired = np.zeros_like(expected.fired)
        for group in counted:
            for name, row in zip(group.ids, group.neurons, strict=True):
                fired[[p.id for p in prompts].index(name)] = row
        return replace(expected, fired=fired)

    def _references(self, points: Points, prompts: Sequence[Prompt]) -> list[Reference]:
        """Prompts through the unmodified modules, each alone."""
        own = self.model.config._attn_implementation
        with self._put_in.taken_out():
            if self.alone is None:
                self.model.set_attn_implementation(attention.REFERENCE)
            try:
                body = loading.body_of(self.model)
                return [read_reference(body, points, p, self._device) for p in prompts]
            finally:
                self.model.set_attn_implementation(own)

    def _compare(self, points: Points, prompts: Sequence[Prompt]) -> tuple[SiteProof, ...]:
        """Compare the engine's passes with those of unmodified modules, prompt by prompt."""
        references, recorder = self._references(points, prompts), self._counting()
        with _plain_gates(recorder):
            return compare_passes(
                self.forward,
                recorder,
                points,
                references,
                packed=self.alone is None,
                together=recorder.slots >= len(prompts),
            )


@contextmanager
def _one_thread_if_small(model: nn.Module) -> Iterator[None]:
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
    """Within the block, a neuron fires where its gate is positive: what references show."""
    asked = recorder.threshold, recorder.signal
    recorder.threshold, recorder.signal = 0.0, "gate"
    try:
        yield
    finally:
        recorder.threshold, recorder.signal = asked
