"""The embedded engine: a transformers model, prompts packed without padding, exact counts."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import torch

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting import nvtx
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.base import EngineInfo, EngineOptions, PromptError, check_room
from sparcom.engines.model_facts import NO_HEAD, check_token_ids
from sparcom.engines.packing import Pass, plan_passes
from sparcom.engines.proof import Proof, not_proved
from sparcom.engines.transformers import attention, loading, rotary, sites, writing
from sparcom.engines.transformers.proof.end_to_end import Expected
from sparcom.engines.transformers.proof.prove import expect, prove
from sparcom.engines.transformers.proof.reference import advice
from sparcom.errors import InputError, SparcomError
from sparcom.models import versions
from sparcom.quantisation import quantisation_of

Part = tuple[Prompt, int, int]
"""Rows of a pass that are tokens of one prompt: (it, the position of the first, how many)."""


class TransformersEngine:
    """A causal language model of transformers that counts while it reads prompts.

    >>> engine = TransformersEngine(EngineOptions(model=resolve_model("default")))
    >>> for counted in engine.count(prompts):
    ...     print(counted.ids, counted.neurons.shape)

    alone: why each prompt has a pass of its own; None if prompts are packed.
    proof: how the pass was proved to be the model's own; None if it was not.
    ffns, instrumentation: what is counted, and the code that counts it. vocabulary: rows of the
    embedding. head: the model has a language model head. recorder: None with count=False.
    before_pass: called before each pass with (its `Part`s in the order of its rows, how many rows).

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
        self.device = torch.device(
            options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        if self.device.type == "cpu":
            torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
        config = loading.load_config(options)
        quantised = quantisation_of(config)  # loading may take it out of the model's config
        self.space = loading.describe_model(config, options.trust_remote_code)
        self.model, self.head = loading.load_model(options, config, self.device)
        self.vocabulary = loading.vocabulary_of(self.model)
        self.ffns = loading.find_supported(self.model)
        self.solo_above = rotary.solo_above(config)
        self._passes = 0
        self.before_pass: Callable[[Sequence[Part], int], None] | None = None
        alone = quantised.why_alone if quantised else None
        self.pack(alone or loading.why_alone(self.model))
        self.instrumentation = sites.Instrumentation()
        self.recorder: Recorder | None = None
        self.proof: Proof | None = None
        if options.count:
            self._instrument()
        self.info = EngineInfo(
            name="transformers",
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self.device.type,
            threads=torch.get_num_threads(),
            batch_tokens=options.batch_tokens,
            versions=versions(),
            proof=not_proved("--no-prove" if options.count else "nothing is counted"),
        )
        if options.count and options.prove:
            self.prove()

    def prove(self) -> None:
        """Prove that the pass is the model's own; raises InputError if it is not."""
        self.proof = prove(self)
        self.info = replace(self.info, proof=self.proof.facts())

    def set_batch_tokens(self, rows: int) -> None:
        """Read passes of so many rows from now on, as an engine does that is loaded with them. What
        was proved was proved of other passes: prove it again."""
        self.options = replace(self.options, batch_tokens=rows)
        self.info = replace(self.info, batch_tokens=rows)
        if self.recorder is not None:
            sites.prepare_experts(self.ffns, self.recorder, rows)

    @property
    def context(self) -> int | None:
        """The model's longest sequence in tokens; None if its config does not say."""
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
        recorder = self.counting()
        check_token_ids(self.options.model, prompts, self.vocabulary)
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

    def trace(
        self, prompts: Sequence[Prompt], index: np.ndarray
    ) -> Iterator[tuple[Counted, list[np.ndarray]]]:
        """As `count`, with what some neurons do at each counted token (`TracingEngine`)."""
        with self.counting().tracing(index) as trace:
            for counted in self.count(prompts):
                yield counted, [trace.take(slot) for slot in range(len(counted.ids))]

    @torch.inference_mode()
    def forward(
        self,
        prompts: Sequence[Prompt],
        one: Pass,
        logits: bool = False,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run one pass; what it returns has no gradient (see `read`)."""
        return self.read(prompts, one, logits, keep)

    def read(
        self,
        prompts: Sequence[Prompt],
        one: Pass,
        logits: bool = False,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run one pass, with gradients unless the caller has them off.

        prompts: those of the pass, in its order; the rows after them are filled and not counted.
        logits: run the language model head too.
        keep: [n] int64, the only rows whose logits are wanted; None: all.
        Returns [rows or n, hidden or vocabulary].
        Raises InputError if logits are asked of a model without a head.
        """
        if logits and not self.head:
            raise InputError(
                f"model {self.options.model}: {NO_HEAD}, so it has no losses; counts do "
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
            if self.recorder.trace is not None:
                self.recorder.trace.step(slot_of_row)
        if self.before_pass is not None:
            self.before_pass([(p, 0, len(p.token_ids)) for p in prompts], one.rows)
        if self.solo_above is not None:
            rotary.reset(self.model)
        model = self.model if logits else loading.body_of(self.model)
        arguments: dict[str, Any] = {"input_ids": ids[None].to(self.device), "use_cache": False}
        # A model without this argument, such as one of remote code, computes all of them.
        known = "logits_to_keep" in signature(self.model.forward).parameters
        if logits and keep is not None and known:
            arguments["logits_to_keep"] = keep.to(self.device)
        if self.alone is None:
            arguments["position_ids"] = positions[None].to(self.device)
        self._passes += 1
        with nvtx.step(self._passes), attention.prompt_spans(spans):
            output = model(**arguments)
        if not logits:
            return output.last_hidden_state[0]
        return output.logits[0] if keep is None or known else output.logits[0, keep]

    def generate(self, prompts: Sequence[Prompt]) -> dict[str, tuple[int, ...]]:
        """Id -> token ids of the answer that the model writes, greedily, without its end token.

        prompts: `generate` of each is the most tokens of its answer. Raises InputError for a model
        without a head, and for a prompt that leaves no room for its answer.
        """
        if not self.head:
            raise InputError(f"model {self.options.model}: {NO_HEAD}, so it writes nothing")
        check_token_ids(self.options.model, prompts, self.vocabulary)
        check_room(prompts, self.context)
        with self._as_transformers("an answer is written with a KV cache"):
            return dict(
                writing.write(self.model, prompts, self.recorder, self.solo_above, self.before_pass)
            )

    @contextmanager
    def batches(self) -> Iterator[Any]:
        """Within the block, transformers' model itself, to be called and to write, with padded
        batches if need be; nothing is counted, what is ablated is.

        Raises InputError for a model without a head, and while outputs come from other
        instructions ("resample"), since nothing says whose the rows are.
        """
        if not self.head:
            raise InputError(f"model {self.options.model}: {NO_HEAD}, so it writes nothing")
        if self.before_pass is not None:
            raise InputError(
                "how resample: not in padded batches, which do not say whose tokens they hold; use "
                "Model.losses and Model.generate"
            )
        with (
            torch.inference_mode(),
            self._as_transformers("batches are padded"),
            writing.uncounted(self.model, self.recorder),
        ):
            if self.solo_above is not None:
                rotary.reset(self.model)
            yield self.model

    @contextmanager
    def _as_transformers(self, why: str) -> Iterator[None]:
        """Within the block, attention is transformers' own; why: prompts share no pass."""
        alone = self.alone
        self.pack(why)
        try:
            yield
        finally:
            self.pack(alone)

    def close(self) -> None:
        """Free the model."""
        del self.model, self.ffns, self.instrumentation
        self.recorder = None

    def _instrument(self) -> None:
        options = self.options
        self.recorder = Recorder(
            self.space.sites,
            options.slots,
            threshold=options.threshold,
            signal=options.signal,
            signs=options.signs,
            magnitudes=options.magnitudes,
            verify=options.verify,
            device=self.device,
        )
        self.instrumentation = sites.instrument(self.ffns, self.recorder, options.batch_tokens)

    def counting(self) -> Recorder:
        """The recorder; raises SparcomError if nothing is counted."""
        if self.recorder is None:
            raise SparcomError("this engine was loaded with count=False")
        return self.recorder

    def pack(self, alone: str | None) -> None:
        """Let prompts share passes, or say why each is alone."""
        self.alone = alone
        self.model.set_attn_implementation(attention.NAME if alone is None else "eager")

    def _check_finite(self, hidden: torch.Tensor, prompts: Sequence[Prompt]) -> None:
        """Raise PromptError naming the prompts whose last hidden state is not finite."""
        slots = self.counting().slots_of_rows
        wrong = (slots >= 0) & ~torch.isfinite(hidden).all(-1)
        if not wrong.any():
            return
        ids = [prompts[slot].id for slot in slots[wrong].unique().tolist()]
        raise PromptError(
            ids,
            f"its hidden states are not finite in {self.info.dtype}; {advice(hidden.dtype)}",
        )

    def expect(self, longest: int) -> Expected:
        """What transformers' own modules count on a few prompts, for another engine of this model.

        longest: tokens of the longest prompt; one that exceeds the model's windows is among them if
        it needs no more.
        """
        return expect(self, longest)
