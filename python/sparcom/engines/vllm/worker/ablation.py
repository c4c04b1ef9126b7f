"""Ablation in a worker: `keep` and `fill` of every site, at addresses that never change.

Graphs, torch's and CUDA's, read these buffers in every pass; only their contents change.
"""

from contextlib import ExitStack

import numpy as np
import torch

from sparcom.counting.masks import ablation_masks
from sparcom.counting.recorder import Recorder


class AblationBuffers:
    """Ablates neurons of a worker's recorder, and sums its outputs for their means.

    dtype: of the model's activations. The buffers take twice the neurons in it.
    """

    def __init__(self, recorder: Recorder, dtype: torch.dtype) -> None:
        self._recorder = recorder
        self._masks = {}
        for at, site in enumerate(recorder.sites):
            keep = torch.ones(site.bins, site.width, dtype=dtype, device=recorder.device)
            self._masks[at] = keep, torch.zeros_like(keep)
        recorder.ablate(self._masks)
        self._summing = ExitStack()
        self._sums: list[torch.Tensor] = []

    def set(self, index: np.ndarray, values: np.ndarray | None, factor: float | np.ndarray) -> None:
        """h of these neurons, and of no others, becomes h * factor + values; flat indices over the
        worker's own sites. factor: of all, or [n]."""
        for keep, fill in self._masks.values():
            keep.fill_(1)
            fill.zero_()
        for at, *masks in ablation_masks(self._recorder.sites, index, values, factor):
            for buffer, mask in zip(self._masks[at], masks, strict=True):
                buffer.copy_(mask)

    def sums(self, begin: bool) -> bytes:
        """[neurons] float64 as bytes: sums since the last call that began, b"" without one.

        begin: start again from zero; else stop summing.
        """
        found = b"".join(total.cpu().numpy().tobytes() for total in self._sums)
        self._summing.close()
        self._sums = self._summing.enter_context(self._recorder.summing()) if begin else []
        return found
