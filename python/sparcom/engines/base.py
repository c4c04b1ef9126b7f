"""What every engine offers: a component space, facts about itself, and counts of prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.proof import Proof
from sparcom.errors import InputError, SparcomError


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is loaded.

    model: what `models.resolve_model` returned.
    dtype: "bfloat16" | "float16" | "float32" | "auto" (that of the weights).
    batch_tokens: activation rows of one forward pass.
    slots: instructions in one forward pass at most; bounds the memory of the counts.
    threads: CPU threads of this engine; None leaves torch's own choice.
    device: "cpu", "cuda", or None (cuda if there is one).
    threshold, signal: when a neuron fires (`act_mul_count`).
    signs: count up > 0, and gate and up > 0, too (`Counted.signs`).
    magnitudes: add up h and what experts return (`Counted.magnitudes`).
    verify: recount everything with plain torch beside the kernel.
    count: False loads the same engine without counting, to compare speed and losses.
    trust_remote_code: run code that comes with the model.
    prove: prove when loading that the pass is the model's own (DESIGN.md, 3).
    """

    model: str
    _: KW_ONLY
    dtype: str = "bfloat16"
    batch_tokens: int = 1024
    slots: int = 64
    threads: int | None = None
    device: str | None = None
    threshold: float = 0.0
    signal: str = "gate"
    signs: bool = False
    magnitudes: bool = False
    verify: bool = False
    count: bool = True
    trust_remote_code: bool = False
    prove: bool = True


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """Facts of a loaded engine that decide its counts; stored in run.json.

    batch_tokens: activation rows of one forward pass. versions: library -> its version.
    proof: whether and how the model was proved: "proved", and "how" or "why not". The same for all
        actors of a run: no times, no measured differences.
    """

    name: str
    dtype: str
    device: str
    threads: int
    batch_tokens: int
    versions: dict[str, str] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)


class PromptError(SparcomError):
    """A forward pass failed: any of the instructions `ids` may be the cause, for `reason`."""

    def __init__(self, ids: Sequence[str], reason: str) -> None:
        super().__init__(tuple(ids), reason)
        self.ids, self.reason = tuple(ids), reason

    def __str__(self) -> str:
        shown = ", ".join(self.ids[:8]) + (", ..." if len(self.ids) > 8 else "")
        return f"forward pass failed on {len(self.ids)} instructions ({shown}): {self.reason}"


class Engine(Protocol):
    """A loaded model that counts.

    proof: how its pass was proved to be the model's own; None if it was not (`info.proof` says
    why).
    """

    space: ComponentSpace
    info: EngineInfo
    proof: Proof | None

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, in groups, in any order; each prompt exactly once.

        Raises `PromptError` naming the ids if a forward pass fails on them.
        """
        ...

    def close(self) -> None:
        """Free the model and every process that it holds."""
        ...


class TracingEngine(Engine, Protocol):
    """An engine of one process, which also keeps what neurons do token by token."""

    def trace(
        self, prompts: Sequence[Prompt], index: np.ndarray
    ) -> Iterator[tuple[Counted, list[np.ndarray]]]:
        """As `count`, with what some neurons do at each counted token.

        index: [n] flat indices of the neurons, each once. Yields counts and, for each of their
        instructions, [T, n, 4] float32 (`counting.trace.VALUES`).
        """
        ...


class Writer(Protocol):
    """An engine that writes answers."""

    def generate(self, prompts: Sequence[Prompt]) -> dict[str, tuple[int, ...]]:
        """Id -> token ids of the answer that the model writes, greedily, without its end token; at
        most `generate` of the prompt."""
        ...


def check_room(prompts: Sequence[Prompt], context: int | None) -> None:
    """Raise InputError for a prompt that leaves no room for its answer in a context of so many
    tokens (None: nothing says), or whose `generate` is 0."""
    for prompt in prompts:
        if prompt.generate < 1:
            raise InputError(
                f"instruction {prompt.id}: generate: must be at least 1, got {prompt.generate}"
            )
        needed = len(prompt.token_ids) + prompt.generate
        if context is not None and needed > context:
            raise InputError(
                f"instruction {prompt.id}: {len(prompt.token_ids)} tokens and an answer of "
                f"{prompt.generate} do not fit the model's {context}; shorten or truncate it"
            )


def predicted(prompt: Prompt) -> list[int]:
    """Positions of the counted tokens that the model predicts: all but the first of a sequence."""
    return [at for start, stop in prompt.counted for at in range(max(start, 1), stop)]
