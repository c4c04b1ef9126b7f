"""Ablation in a worker: `keep` and `fill` of every site, at addresses that never change.

Graphs, torch's and CUDA's, read these buffers in every pass; only their contents change.
"""

from contextlib import ExitStack

import numpy as np
import torch

from sparcom.counting.changes import SilenceBySign
from sparcom.counting.masks import ablation_masks
from sparcom.counting.recorder import Recorder


class AblationBuffers:
    """Ablates neurons of a worker's recorder, and sums its outputs for their means.

    dtype: of the model's activations. The buffers take three times the neurons in it.
    graphs: CUDA graphs replay the passes, so that every site must look at the signs in each;
    without them only those with neurons to silence by sign do.
    """

    def __init__(self, recorder: Recorder, dtype: torch.dtype, graphs: bool = False) -> None:
        self._recorder, self._graphs = recorder, graphs
        self._masks, self._signs = {}, {}
        for at, site in enumerate(recorder.sites):
            keep = torch.ones(site.bins, site.width, dtype=dtype, device=recorder.device)
            self._masks[at] = keep, torch.zeros_like(keep)
            self._signs[at] = torch.zeros_like(keep)
        self.set(np.zeros(0, np.int64), None, 0.0)
        self._summing = ExitStack()
        self._sums: list[torch.Tensor] = []

    def set(
        self,
        index: np.ndarray,
        values: np.ndarray | None,
        factor: float | np.ndarray,
        sign: int | np.ndarray = 0,
    ) -> None:
        """h of these neurons, and of no others, becomes h * factor + values; flat indices over the
        worker's own sites.

        factor: of all, or [n]. sign: of all, or [n]: where it is 1 or -1, h becomes 0 at gates of
        this sign instead, and stays elsewhere.
        """
        signs = np.broadcast_to(sign, len(index))
        for keep, fill in self._masks.values():
            keep.fill_(1)
            fill.zero_()
        factors = np.where(signs == 0, factor, 1.0)
        for at, *masks in ablation_masks(self._recorder.sites, index, values, factors):
            for buffer, mask in zip(self._masks[at], masks, strict=True):
                buffer.copy_(mask)
        looking = set(self._signs) if self._graphs else set()
        for buffer in self._signs.values():
            buffer.zero_()
        by_sign = index[signs != 0], signs[signs != 0].astype(np.float64)
        for at, _, found in ablation_masks(self._recorder.sites, *by_sign):
            self._signs[at].copy_(found)
            looking.add(at)
        changes = {at: SilenceBySign(self._signs[at]) for at in looking}
        self._recorder.ablate(self._masks, changes)

    def sums(self, begin: bool) -> bytes:
        """[neurons] float64 as bytes: sums since the last call that began, b"" without one.

        begin: start again from zero; else stop summing.
        """
        found = b"".join(total.cpu().numpy().tobytes() for total in self._sums)
        self._summing.close()
        self._sums = self._summing.enter_context(self._recorder.summing()) if begin else []
        return found
