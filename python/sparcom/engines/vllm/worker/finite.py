"""Whether what the model puts out is finite on every counted row.

A gate that is not a number counts as "did not fire", so that a pass that overflows would look like
one in which neurons are silent.
"""

from collections.abc import Sequence

import torch


class FiniteCheck:
    """Notes, pass by pass, which slots had a counted row whose last hidden state is not finite.

    slots: of the recorder.
    """

    def __init__(self, slots: int, device: torch.device | str) -> None:
        self._wrong = torch.zeros(slots + 1, dtype=torch.int32, device=device)  # the last: of none
        self._dtype = ""

    def note(self, output: object, slot_of_row: torch.Tensor) -> None:
        """Look at a pass.

        output: of the model: hidden states [rows, hidden size], alone or first of a tuple. What an
        earlier stage of a pipeline hands on is no tensor, and is left to the last one.
        slot_of_row: [rows or more] int32; -1: not counted.
        """
        hidden = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(hidden, torch.Tensor):
            return
        self._dtype = str(hidden.dtype).removeprefix("torch.")
        slots = slot_of_row[: len(hidden)].long()
        slots = torch.where(slots < 0, len(self._wrong) - 1, slots)
        wrong = ~torch.isfinite(hidden[: len(slots)]).all(-1)
        self._wrong.index_add_(0, slots, wrong.to(torch.int32))

    def check(self, ids: Sequence[str], slots: Sequence[int]) -> str | None:
        """What is wrong with the first of these instructions that is not finite; None: nothing."""
        counts = self._wrong[list(slots)].tolist()
        for name, count in zip(ids, counts, strict=True):
            if count:
                advice = "its weights may be damaged"
                if self._dtype == "float16":
                    advice = "use bfloat16 or float32"
                return (
                    f"instruction {name}: its hidden states are not finite in {self._dtype} on "
                    f"{count} counted tokens; {advice}"
                )
        return None

    def clear(self, slots: Sequence[int]) -> None:
        """Forget what was noted of finished or given-up slots."""
        self._wrong[list(slots)] = 0
