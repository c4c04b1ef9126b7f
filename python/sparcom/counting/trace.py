"""A trace: what some neurons do at each counted token of the instructions that are under way.

Counting adds up; a trace keeps gate, up and h apart, token by token. It sees the same tensors, in
the same calls, as the kernel that counts, so that the two can be compared.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparcom.components import Site
from sparcom.errors import CountError

VALUES = ("gate", "up", "h", "counted")
"""What is kept of a neuron at a token, in the order of the last axis; counted: h before the
neuron's own ablation, which is what is counted by signal "product"."""


class Trace:
    """Keeps gate, up and h (`VALUES`) of some neurons at every counted row.

    sites: the worker's sites, whose neurons `index` numbers.
    index: [n] int64, flat indices of the traced neurons.
    """

    def __init__(self, sites: Sequence[Site], index: np.ndarray, device: torch.device) -> None:
        self.index = np.asarray(index, np.int64)
        self._device = device
        self._at: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        start = 0
        for at, site in enumerate(sites):
            inside = np.flatnonzero((self.index >= start) & (self.index < start + site.neurons))
            expert, unit = np.divmod(self.index[inside] - start, site.width)
            self._at[at] = [
                (int(e), self._tensor(inside[expert == e]), self._tensor(unit[expert == e]))
                for e in np.unique(expert)
            ]
            start += site.neurons
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._place = torch.zeros(0, dtype=torch.int64, device=device)

    def step(self, slot_of_row: Tensor) -> None:
        """A pass begins. slot_of_row: [rows], the slot of each row, or -1; the rows of a slot are
        in the order of its tokens, over all passes too."""
        slots = slot_of_row.to(self._device).clone()  # the caller writes the next pass over it
        counted = slots >= 0
        self._place = torch.where(counted, counted.cumsum(0) - 1, -1)
        shape = int(counted.sum()), len(self.index), len(VALUES)
        if shape[0]:
            kept = torch.full(shape, float("nan"), device=self._device)
            self._steps.append((slots[counted], kept))

    def add(
        self,
        site: int,
        values: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
        counted: Tensor,
        token: Tensor | None = None,
        expert: Tensor | None = None,
    ) -> None:
        """Keep what a site's call holds of the traced neurons.

        values: `VALUES`, each [rows, width]; up: None if the FFN is ungated; counted: None if
        nothing is ablated there. counted: [rows] bool. token: [rows] the row of the pass that
        each row is of; None: they are the rows of the pass. expert: [rows]; None: all 0.
        """
        gate, up, h, before = values
        for number, columns, units in self._at[site]:
            rows = counted if expert is None else counted & (expert == number)
            rows = rows.nonzero().flatten()
            place = self._place[rows if token is None else token[rows]]
            if len(place) and int(place.min()) < 0:
                raise CountError("trace: a row is counted that the pass did not announce")
            target = self._steps[-1][1] if self._steps else self._nothing()
            for value, tensor in enumerate((gate, up, h, h if before is None else before)):
                if tensor is not None:
                    picked = tensor[rows[:, None], units].float()
                    target[place[:, None], columns, value] = picked

    @torch.inference_mode()
    def take(self, slot: int) -> np.ndarray:
        """[T, n, 4] float32: `VALUES` of the traced neurons at each counted token of a slot, which
        may then be used again.

        NaN: up of an ungated FFN; all of them where a token was not routed to the neuron's expert.
        """
        parts = []
        for slots, values in self._steps:
            mine = slots == slot
            parts.append(values[mine])
            slots[mine] = -1
        self._steps = [step for step in self._steps if bool((step[0] >= 0).any())]
        out: np.ndarray = torch.cat([*parts, self._nothing()]).cpu().numpy()
        return out

    def _nothing(self) -> Tensor:
        return torch.zeros(0, len(self.index), len(VALUES), device=self._device)

    def _tensor(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(index, np.int64)).to(self._device)
