"""The embedded engine: a transformers model, prompts packed without padding, exact counts."""

import os
from collections.abc import Iterator, Sequence

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting import nvtx
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.base import EngineInfo, EngineOptions, PromptError
from sparcom.engines.packing import Pass, plan_passes
from sparcom.engines.transformers import attention, sites
from sparcom.errors import InputError, SparcomError
from sparcom.models import check_plain_weights, versions

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
DEQUANTISED = ("fp8", "mxfp4")  # what transformers turns into plain weights while it loads them


class TransformersEngine:
    """A causal language model of transformers that counts while it reads prompts.

    >>> engine = TransformersEngine(EngineOptions(model=resolve_model("default")))
    >>> for counted in engine.count(prompts):
    ...     print(counted.ids, counted.neurons.shape)

    Raises InputError where the model is not supported, before its weights are read.
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
        config = load_config(options)
        self.space = describe_model(config)
        self.model = self._load_model(config)
        ffns = sites.find_ffns(self.model)
        self.recorder: Recorder | None = None
        if options.count:
            self.recorder = Recorder(
                self.space.sites,
                options.slots,
                threshold=options.threshold,
                signal=options.signal,
                verify=options.verify,
                device=self._device,
            )
            inputs = sites.probe_inputs(ffns)
            before = sites.run_probe(ffns, inputs)
            sites.instrument(ffns, self.recorder, options.batch_tokens)
            self.recorder.begin(torch.full((sites.PROBE_ROWS,), -1))
            sites.compare_probe(ffns, before, sites.run_probe(ffns, inputs))
        self.solo_above = solo_above(config)
        self._passes = 0
        self.info = EngineInfo(
            name="transformers",
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self._device.type,
            threads=torch.get_num_threads(),
            batch_tokens=options.batch_tokens,
            versions=versions(),
        )

    @property
    def context(self) -> int | None:
        """The model's longest sequence in tokens; None where its config does not say."""
        return context_of(self.model.config)

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, a pass at a time (see `engines.base.Engine`)."""
        if self.recorder is None:
            raise SparcomError("this engine was loaded with count=False")
        lengths = [len(p.token_ids) for p in prompts]
        options = self.options
        for one in plan_passes(lengths, options.batch_tokens, options.slots, self.solo_above):
            held = [prompts[i] for i in one.prompts]
            try:
                self.forward(held, one)
                tokens = [p.n_counted for p in held]
                counted = self.recorder.take([p.id for p in held], range(len(held)), tokens)
            except SparcomError:
                self.recorder.discard()
                raise
            except Exception as error:
                self.recorder.discard()
                raise PromptError([p.id for p in held], _first_line(error)) from error
            yield counted

    @torch.inference_mode()
    def forward(self, prompts: Sequence[Prompt], one: Pass, logits: bool = False) -> torch.Tensor:
        """Run one pass.

        prompts: those of the pass, in its order; the rows after them are filled and not counted.
        logits: run the language model head too.
        Returns [rows, hidden or vocabulary].
        """
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
        model = self.model if logits else self.model.base_model
        self._passes += 1
        with nvtx.step(self._passes), attention.prompt_spans(spans):
            output = model(
                input_ids=ids[None].to(self._device),
                position_ids=positions[None].to(self._device),
                use_cache=False,
            )
        return (output.logits if logits else output.last_hidden_state)[0]

    def close(self) -> None:
        """Free the model."""
        self.model = None
        self.recorder = None

    def _load_model(self, config):
        options = self.options
        transformers_logging.disable_progress_bar()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                options.model,
                config=config,
                dtype=DTYPES.get(options.dtype, "auto"),
                attn_implementation=attention.NAME,
                use_safetensors=True,
                trust_remote_code=options.trust_remote_code,
            )
        except torch.OutOfMemoryError as error:
            raise InputError(f"model {options.model}: does not fit on {self._device}") from error
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"model {options.model}: {_first_line(error)}") from error
        return model.to(self._device).eval()


def load_config(options: EngineOptions):
    """The model's config; raises InputError where it cannot be had, or for quantised weights."""
    if options.dtype not in (*DTYPES, "auto"):
        raise InputError(f"dtype: expected {', '.join(DTYPES)} or auto, got {options.dtype!r}")
    try:
        config = AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise InputError(f"model {options.model}: {_first_line(error)}") from error
    check_plain_weights(options.model, config, dequantised=DEQUANTISED)
    return config


def describe_model(config) -> ComponentSpace:
    """The component space of a model, from its config alone: no weight is read.

    Raises InputError where the architecture is not supported.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        try:
            model = AutoModelForCausalLM.from_config(config)
        except Exception as error:  # models check their configs each in its own way
            raise InputError(
                f"model {config.model_type}: cannot be built from its config: "
                f"{type(error).__name__}: {_first_line(error)}"
            ) from error
    if not model._supports_attention_backend:
        raise InputError(
            f"model {type(model).__name__}: its attention cannot be exchanged, which packing needs"
        )
    return sites.space_of(sites.find_ffns(model))


def context_of(config) -> int | None:
    """The longest sequence, in tokens, that a config names."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)


def solo_above(config) -> int | None:
    """Length above which a prompt needs a pass of its own; None for most models.

    Rotary embeddings of the kinds `dynamic` and `longrope` change with the longest position of a
    pass, so that a long prompt would change its neighbours.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("dynamic", "longrope"):
        return None
    return rope.get("original_max_position_embeddings") or context_of(config)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
