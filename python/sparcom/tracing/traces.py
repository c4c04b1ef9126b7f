"""What some neurons do at each counted token of some texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from sparcom.component_list import component_table
from sparcom.components import ComponentSpace
from sparcom.corpus.checking.show import CLOSE, OPEN, Token
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.reference import activate
from sparcom.engines.base import TracingEngine
from sparcom.errors import CountError
from sparcom.tracing.units import name_of


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Gate, up and h of some neurons, token by token; of an ablated model, its own pass.

    space: of the model. neurons: [u] int64, flat indices of the traced neurons.
    ids: of the instructions. tokens: of each, all tokens that the model read; those that were not
        counted are not traced.
    values: of each, [T, u, 3] float32: gate, up and h, as the model computed them; NaN: up of an
        ungated FFN, all three where a token was not routed to the neuron's expert.
    fired: of each, [T, u] bool, as they are counted: before h is changed by an ablation.
    """

    space: ComponentSpace
    neurons: np.ndarray
    ids: tuple[str, ...]
    tokens: tuple[tuple[Token, ...], ...]
    values: tuple[np.ndarray, ...]
    fired: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def table(self) -> pa.Table:
        """One row for each instruction, counted token and neuron.

        Columns: id, position (in the prompt), token_id, token (its text), layer, kind, expert,
        unit, gate, up, h (null where NaN), fired.
        """
        parts = [self._table(at) for at in range(len(self.ids))]
        return pa.concat_tables(parts) if parts else _SCHEMA.empty_table()

    def _table(self, at: int) -> pa.Table:
        counted = [(p, t) for p, t in enumerate(self.tokens[at]) if t.counted]
        n, u = len(counted), len(self.neurons)
        places = pa.array(np.repeat(np.arange(n), u))
        heads = {
            "position": pa.array([p for p, _ in counted], pa.int32()),
            "token_id": pa.array([t.id for _, t in counted], pa.int64()),
            "token": pa.array([t.text for _, t in counted], pa.string()),
        }
        units = component_table(self.space, "neurons", np.tile(self.neurons, n))
        values = self.values[at].reshape(n * u, 3)
        columns = {
            "id": pa.array([self.ids[at]] * (n * u), pa.string()),
            **{name: column.take(places) for name, column in heads.items()},
            **{name: units[name] for name in units.column_names},
            **{name: pa.array(values[:, i], pa.float32(), from_pandas=True)
               for i, name in enumerate(("gate", "up", "h"))},
            "fired": pa.array(self.fired[at].reshape(-1)),
        }  # fmt: skip
        return pa.table(columns, schema=_SCHEMA)

    def render(self, neuron: int, at: int) -> str:
        """The text of one instruction with the tokens at which a neuron fires in brackets.

        neuron: index into `neurons`; at: index into `ids`.
        """
        fires = iter(self.fired[at][:, neuron])
        out, inside = "", False
        for token in self.tokens[at]:
            fired = token.counted and bool(next(fires))
            out += CLOSE * (inside and not fired) + OPEN * (fired and not inside) + token.text
            inside = fired
        return out + CLOSE * inside

    def names(self) -> list[str]:
        """[u] how the neurons are named: `22:616`, `12:3:700`."""
        return [name_of(self.space, int(index)) for index in self.neurons]


_SCHEMA = pa.schema(
    {
        "id": pa.string(), "position": pa.int32(), "token_id": pa.int64(), "token": pa.string(),
        "layer": pa.int32(), "kind": pa.string(), "expert": pa.int32(), "unit": pa.int32(),
        "gate": pa.float32(), "up": pa.float32(), "h": pa.float32(), "fired": pa.bool_(),
    }
)  # fmt: skip


def trace_prompts(
    engine: TracingEngine,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[Token, ...]],
    index: np.ndarray,
    *,
    threshold: float = 0.0,
    signal: str = "gate",
) -> Traces:
    """Trace neurons on prompts.

    tokens: of each prompt. index: flat indices of the neurons. threshold, signal: when a neuron
    fires, as the engine counts.
    Raises CountError if at any neuron the firing tokens are not as many as the kernel counted.
    """
    values: dict[str, np.ndarray] = {}
    fired: dict[str, np.ndarray] = {}
    for counted, found in engine.trace(prompts, index):
        for name, traced, counts in zip(counted.ids, found, counted.neurons, strict=True):
            fires = np.concatenate([*_fires(engine.space, index, traced, threshold, signal)], 1)
            wrong = np.flatnonzero(fires.sum(0) != counts[index])
            if len(wrong):
                neuron = int(index[wrong[0]])
                raise CountError(
                    f"trace: {name_of(engine.space, neuron)} fires at {fires[:, wrong[0]].sum()} "
                    f"tokens of instruction {name}, but {counts[neuron]} were counted"
                )
            values[name], fired[name] = traced[:, :, :3], fires
    ids = tuple(prompt.id for prompt in prompts)
    return Traces(
        space=engine.space, neurons=index, ids=ids, tokens=tuple(tokens),
        values=tuple(values[name] for name in ids), fired=tuple(fired[name] for name in ids),
    )  # fmt: skip


def _fires(
    space: ComponentSpace, index: np.ndarray, traced: np.ndarray, threshold: float, signal: str
) -> Iterator[np.ndarray]:
    """[T, 1] bool for each neuron: the signal exceeds the threshold; NaN does not."""
    for column, neuron in enumerate(index):
        at = int(np.searchsorted(space.neuron_offsets, neuron, side="right")) - 1
        gate, h = (torch.from_numpy(traced[:, column, v].astype(np.float64)) for v in (0, 3))
        value = activate(space.sites[at].activation, gate) if signal == "gate" else h
        yield (value > threshold).numpy()[:, None]
