"""A model that counts in memory: no Ray, no run directory."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparcom.api.counts import Counts
from sparcom.api.inputs import Inputs, to_instructions
from sparcom.components import ComponentSpace
from sparcom.config import RunConfig, near_key
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError, SparcomError

if TYPE_CHECKING:
    from sparcom.planning.prompts import PromptMaker
    from sparcom.tracing.traces import Traces

_ENGINE_KEYS = (
    "dtype", "trust_remote_code", "threshold", "signal", "verify", "prove", "compile",
    "tensor_parallel", "pipeline_parallel", "expert_parallel", "prefix_caching", "context",
    "temperature", "seed", "batch_tokens", "slots", "cpus", "gpus",
)  # fmt: skip


class Model:
    """A causal language model, loaded to count which neurons fire on an instruction.

    model: "default" (SmolLM2-135M-Instruct), a folder, a .gguf file, or a hub id.
    engine: "transformers" or "vllm". options: keys of `RunConfig` that say how an engine is loaded:
    dtype, threshold, signal, verify, batch_tokens, slots, cpus, compile, tensor_parallel, ...
    Raises InputError for an unknown option, or a model that cannot be counted.

    >>> with Model("default") as model:
    ...     counts = model.count(["What is 17 * 23?", "Summarise: ..."])
    >>> counts.frequencies().shape
    (2, 46080)
    """

    def __init__(
        self, model: str = "default", *, engine: str = "transformers", **options: Any
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
        self._maker = PromptMaker(self.config, loading)
        self.engine = load_engine(engine, loading, self.config.gpus)
        self.space: ComponentSpace = self.engine.space
        self._lock = threading.Lock()
        self._open = True

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

        if not self._open:
            raise SparcomError("this model is closed")
        instructions, systems = to_instructions(inputs)
        config = replace(
            self.config, scope=scope, template=template, system=system, date=date,
            max_tokens=max_tokens, truncate=truncate, generate=generate,
        )  # fmt: skip
        prompts = self._prompts(config, instructions, systems)
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

        if not self._open:
            raise SparcomError("this model is closed")
        index = parse_units(units, self.space)
        instructions, systems = to_instructions(inputs)
        config = replace(
            self.config, scope=scope, template=template, system=system, date=date,
            max_tokens=max_tokens, truncate=truncate, generate=0,
        )  # fmt: skip
        made = self._prompts(config, instructions, systems)
        tokens = [
            self._maker_of(config, own).tokens(instruction, prompt)
            for instruction, prompt, own in zip(instructions, made, systems, strict=True)
        ]
        engine: Any = self.engine
        with self._lock:
            return trace_prompts(
                engine, made, tokens, index, threshold=config.threshold, signal=config.signal
            )

    def _maker_of(self, config: RunConfig, system: str | None) -> "PromptMaker":
        return self._maker.changed(config if system is None else replace(config, system=system))

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
