"""A model that counts in memory: no Ray, no run directory."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from sparcom.api.counts import Counts
from sparcom.api.inputs import Inputs, to_instructions
from sparcom.api.units import Units, to_components
from sparcom.components import ComponentSpace
from sparcom.config import RunConfig, near_key
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError, SparcomError

if TYPE_CHECKING:
    from sparcom.ablation.ablator import Ablator
    from sparcom.ablation.resample import Donors
    from sparcom.engines.base import TracingEngine
    from sparcom.planning.prompts import PromptMaker
    from sparcom.tracing.traces import Traces

_ENGINE_KEYS = (
    "dtype", "trust_remote_code", "threshold", "signal", "signs", "magnitudes", "verify", "prove",
    "compile", "tensor_parallel", "pipeline_parallel", "expert_parallel", "prefix_caching",
    "context", "temperature", "seed", "batch_tokens", "slots", "cpus", "gpus",
)  # fmt: skip


class _Read(NamedTuple):
    """What a call was given: its config, and for each input its own system prompt and prompt."""

    config: RunConfig
    instructions: Sequence[Instruction]
    systems: Sequence[str | None]
    prompts: list[Prompt]


class Model:
    """A causal language model, loaded to count which neurons fire on an instruction.

    model: "default" (SmolLM2-135M-Instruct), a folder, a .gguf file, or a hub id.
    engine: "transformers" or "vllm". ablation: vLLM only: load it so that units can be ablated.
    options: keys of `RunConfig` that say how an engine is loaded:
    dtype, threshold, signal, verify, batch_tokens, slots, cpus, compile, tensor_parallel, ...
    Raises InputError for an unknown option, or a model that cannot be counted.

    >>> with Model("default") as model:
    ...     counts = model.count(["What is 17 * 23?", "Summarise: ..."])
    >>> counts.frequencies().shape
    (2, 46080)
    """

    def __init__(
        self,
        model: str = "default",
        *,
        engine: str = "transformers",
        ablation: bool = False,
        **options: Any,
    ) -> None:
        from sparcom.engines.load import load_engine
        from sparcom.planning.options import engine_options
        from sparcom.planning.prompts import PromptMaker

        for name in options:
            if name not in _ENGINE_KEYS:
                raise InputError(
                    f"Model: no option {name!r}; did you mean {near_key(name, _ENGINE_KEYS)!r}?"
                )
        self.config = RunConfig(model=model, engine=engine, **options)
        loading = engine_options(self.config)
        if ablation and engine == "vllm":
            vllm: Any = loading
            loading = replace(vllm, ablation=True)
        self._maker = PromptMaker(self.config, loading)
        self.engine = load_engine(engine, loading, self.config.gpus)
        self.space: ComponentSpace = self.engine.space
        self._lock = threading.Lock()
        self._open = True
        self._changed = False

    def count(
        self,
        inputs: Inputs,
        *,
        scope: str = RunConfig.scope,
        template: str = RunConfig.template,
        system: str | None = None,
        date: str | None = None,
        max_tokens: int | None = None,
        truncate: bool = False,
        generate: int = 0,
    ) -> Counts:
        """Count which neurons fire, on every instruction.

        inputs: a string; a list of strings, of chats (`[system, ]user[, assistant]`, each a dict of
            role and content) or of `Instruction`s; a DataFrame or Arrow table with a column
            `instruction`.
        scope, template, system, date, max_tokens, truncate, generate: as in `RunConfig`.
        Returns `Counts`, in the order of the inputs. Raises InputError for inputs of another form,
        or a prompt that does not fit the model; SparcomError if the model fails on an instruction.
        """
        from sparcom.engines.count_part import count_part

        prompts = self._read(
            inputs, scope=scope, template=template, system=system, date=date,
            max_tokens=max_tokens, truncate=truncate, generate=generate,
        ).prompts  # fmt: skip
        with self._lock:
            counted, failures = count_part(self.engine, prompts)
        if failures:
            first = failures[0]
            raise SparcomError(
                f"the model failed on {len(failures)} of {len(prompts)} instructions; the first: "
                f"{first.id}: {first.reason}"
            )
        return Counts(
            ids=counted.ids,
            tokens=counted.tokens,
            neurons=counted.neurons,
            experts=counted.experts,
            signs=counted.signs,
            magnitudes=counted.magnitudes,
            space=self.space,
        )

    def trace(
        self,
        inputs: Inputs,
        units: Sequence[str],
        *,
        scope: str = RunConfig.scope,
        template: str = RunConfig.template,
        system: str | None = None,
        date: str | None = None,
        max_tokens: int | None = None,
        truncate: bool = False,
    ) -> "Traces":
        """What some neurons do at each counted token: gate, up, h, and whether they fire.

        inputs and the options: as in `count`. units: `LAYER:UNIT`, `LAYER:EXPERT:UNIT`,
            `LAYER:shared:UNIT`, or files of component lists.
        Raises InputError as `count` does, and for a unit that the model does not have.

        >>> traces = model.trace(["What is 17 * 23?"], ["22:616", "15:788"])
        >>> traces.table().to_pandas()
        """
        from sparcom.tracing.traces import trace_prompts
        from sparcom.tracing.units import parse_units

        index = parse_units(units, self.space)
        read = self._read(
            inputs, scope=scope, template=template, system=system, date=date,
            max_tokens=max_tokens, truncate=truncate, generate=0,
        )  # fmt: skip
        tokens = [
            self._maker_of(read.config, own).tokens(instruction, prompt)
            for instruction, prompt, own in zip(
                read.instructions, read.prompts, read.systems, strict=True
            )
        ]
        engine, config = cast("TracingEngine", self.engine), self.config
        with self._lock:
            return trace_prompts(
                engine, read.prompts, tokens, index, threshold=config.threshold,
                signal=config.signal,
            )  # fmt: skip

    def _maker_of(self, config: RunConfig, system: str | None) -> "PromptMaker":
        return self._maker.changed(config if system is None else replace(config, system=system))

    def losses(
        self,
        inputs: Inputs,
        *,
        answer_tokens: int | None = None,
        template: str = RunConfig.template,
        system: str | None = None,
        date: str | None = None,
        truncate: bool = False,
    ) -> np.ndarray:
        """[n] mean negative log-likelihood of each reference answer, in nats per token.

        inputs: as of `count`, with answers: chats that end with the assistant's, or a reference.
        answer_tokens: the first that are scored; None: all.
        template, system, date, truncate: as in `RunConfig`.
        Raises InputError for an input without an answer; SparcomError if a loss is not finite.

        >>> chat = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
        >>> model.losses([chat])
        """
        prompts = self._read(
            inputs, scope="response", template=template, system=system, date=date,
            max_tokens=answer_tokens, truncate=truncate,
        ).prompts  # fmt: skip
        with self._lock:
            return self._ablator("zero").losses(prompts)

    def attribution(
        self,
        inputs: Inputs,
        *,
        rule: str = "attribution",
        answer_tokens: int | None = None,
        template: str = RunConfig.template,
        system: str | None = None,
        date: str | None = None,
        truncate: bool = False,
    ) -> np.ndarray:
        """[n, neurons] float64: what each neuron adds to the likelihood of each reference answer.

            a = sum over the tokens read of h * dL/dh,  L in nats per token of the answer

        To first order it is what `losses` rise by if the neuron is silenced. By one forward and one
        backward pass for each input; transformers engine only.
        inputs, answer_tokens and the others: as of `losses`. rule: "attribution", gradient times
            activation, or "relp", coefficients of relevance in place of gradients (arXiv
            2508.21258).
        Raises InputError for an input without an answer, another engine, within `ablated`, and for
        a model of which no gradient can be taken or, with "relp", whose relevance is not conserved.

        >>> model.attribution([chat])[0].argsort()[-20:]  # the 20 that help most
        """
        from sparcom.attribution.gradients import Attributor
        from sparcom.engines.transformers.engine import TransformersEngine

        if not isinstance(self.engine, TransformersEngine):
            raise InputError(
                'attribution: gradients need Model(..., engine="transformers"), got '
                f"{self.engine.info.name}"
            )
        if self._changed:
            raise InputError("attribution: this model is ablated or scaled; end that block first")
        attributor = Attributor(self.engine, rule)
        prompts = self._read(
            inputs, scope="response", template=template, system=system, date=date,
            max_tokens=answer_tokens, truncate=truncate,
        ).prompts  # fmt: skip
        with self._lock:
            return np.stack([attributor(prompt) for prompt in prompts])

    def generate(
        self,
        inputs: Inputs,
        *,
        max_tokens: int = 64,
        template: str = RunConfig.template,
        system: str | None = None,
        date: str | None = None,
        truncate: bool = False,
    ) -> list[str]:
        """The answers that the model writes, greedily, in the order of the inputs.

        max_tokens: of each answer, at most. The others: as of `count`. The transformers engine
        writes one answer at a time, vLLM all together.
        Raises InputError for a prompt that leaves no room for its answer.

        >>> model.generate("What is 17 * 23?", max_tokens=8)
        ['391']
        """
        prompts = self._read(
            inputs, scope="prompt", template=template, system=system, date=date,
            max_tokens=None, truncate=truncate,
        ).prompts  # fmt: skip
        with self._lock:
            written = self._ablator("zero").write(prompts, max_tokens)
        return [self._maker.decode(written[prompt.id]) for prompt in prompts]

    @contextmanager
    def ablated(
        self,
        units: Units,
        how: str = "zero",
        *,
        over: Inputs | None = None,
        template: str = RunConfig.template,
        seed: int = 0,
    ) -> Iterator[None]:
        """Within the block, the outputs of units are ablated in every pass of this model.

        units: flat neuron indices; words as of `trace`; or a list of components: a .csv or .parquet
            file, an Arrow table or a DataFrame with the columns layer, kind, expert, unit (without
            a unit: a whole expert, all its neurons).
        how: "zero", "scale:X", "mean"; "negative" or "positive": 0 where the gate is so;
            "resample": taken from another input (transformers engine; `ablation.resample` says from
            which token); or in the router of experts "boost:X" and "route".
        over, template: for "mean": inputs over all whose tokens it is taken, and how they are
            rendered; for "resample": the inputs that outputs are taken from, with their answers if
            they have any.
        seed: which of them each input takes its outputs from, by its id.
        Raises InputError for units that the model does not have, an unknown `how`, a vLLM engine
        that was loaded without `ablation=True`, and within another such block.

        >>> with model.ablated("list.csv"):
        ...     model.generate("What is 17 * 23?")
        """
        from sparcom.ablation.ablator import neurons_of
        from sparcom.ablation.target import Target

        self._require_open()
        found = to_components(units, self.space)
        ablator = self._ablator(how)
        if self._changed:
            raise InputError("this model is ablated or scaled already; end that block first")
        if ablator.how.shift is not None:
            if len(found.neurons):
                raise InputError(f"units: only whole experts have a router, for {how!r}")
            target = Target("units", "experts", found.experts)
        else:
            of_experts = np.flatnonzero(np.isin(self.space.neuron_experts, found.experts))
            target = Target("units", "neurons", np.union1d(found.neurons, of_experts))
        if ablator.how.kind == "mean":
            if over is None:
                raise InputError('how "mean": over which inputs? give over=[...]')
            instructions, systems = to_instructions(over)
            config = replace(self.config, scope="prompt", template=template)
            with self._lock:
                ablator.calibrate(self._prompts(config, instructions, systems))
        if ablator.how.kind == "resample":
            if over is None:
                raise InputError('how "resample": from which inputs? give over=[...]')
            with self._lock:
                ablator.read_donors(
                    self._donors(over, template, seed), neurons_of(target, self.space)
                )
        with ablator.ablated(target):
            self._changed = True
            try:
                yield
            finally:
                self._changed = False

    def _donors(self, over: Inputs, template: str, seed: int) -> "Donors":
        """Inputs, each with its answer if it has one, as donors that are drawn by seed."""
        from sparcom.ablation.resample import Donors, draw

        instructions, systems = to_instructions(over)
        prompts: list[Prompt] = []
        for scope, answered in (("all", True), ("prompt", False)):
            rows = [at for at, one in enumerate(instructions) if bool(one.reference) == answered]
            config = replace(self.config, scope=scope, template=template)
            prompts += self._prompts(
                config, [instructions[at] for at in rows], [systems[at] for at in rows]
            )
        if not prompts:
            raise InputError('how "resample": over holds no input')
        return Donors(tuple(prompts), lambda name: draw(seed, name, range(len(prompts))))

    def scaled(self, units: Units, factor: float) -> AbstractContextManager[None]:
        """Within the block, the outputs of units are multiplied by a factor.

            h = h * factor

        units: as of `ablated`. factor: 0 ablates, 1 changes no bit; rounded to the model's dtype.

        >>> with model.scaled("list.csv", 2.0):
        ...     model.losses([chat])
        """
        return self.ablated(units, f"scale:{float(factor)}")

    def _ablator(self, how: str) -> "Ablator":
        """The engine, ready to write, to be scored and to be ablated."""
        if self.config.engine == "transformers":
            from sparcom.ablation.transformers_ablator import TransformersAblator

            return TransformersAblator(self.engine, how)
        from sparcom.ablation.vllm_ablator import VllmAblator
        from sparcom.engines.vllm.engine import VllmEngine

        if not isinstance(self.engine, VllmEngine):
            raise InputError(
                "Model: several actors share this model, and they only count; load it with "
                "ablation=True"
            )
        return VllmAblator(self.engine, how)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Within the block, no other thread's call runs this model. Raises SparcomError if it is
        closed."""
        self._require_open()
        with self._lock:
            yield

    def _require_open(self) -> None:
        if not self._open:
            raise SparcomError("this model is closed")

    def _read(self, inputs: Inputs, **rules: Any) -> "_Read":
        """The inputs as prompts; rules: keys of `RunConfig` that say how they are rendered."""
        self._require_open()
        instructions, systems = to_instructions(inputs)
        config = replace(self.config, **rules)
        return _Read(config, instructions, systems, self._prompts(config, instructions, systems))

    def _prompts(
        self, config: RunConfig, instructions: Sequence[Instruction], systems: Sequence[str | None]
    ) -> list[Prompt]:
        """The prompts, in order; those with a system prompt of their own are rendered with it."""
        made: dict[str, Prompt] = {}
        for own in dict.fromkeys(systems):
            rows = [i for i, s in zip(instructions, systems, strict=True) if s == own]
            found = self._maker_of(config, own).prompts(rows)
            made |= {prompt.id: prompt for prompt in found}
        return [made[instruction.id] for instruction in instructions]

    def close(self) -> None:
        """Free the model and every process that it holds."""
        if self._open:
            self._open = False
            self.engine.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.engine.info
        size = f"{self.space.neurons:,} neurons"
        return f"Model({self.config.model!r}, {info.name}, {info.dtype}, {size})"
