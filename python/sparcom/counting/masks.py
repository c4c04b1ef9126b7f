"""Ablation masks: the `keep` and `fill` of ablated neurons, which `act_mul_count` reads."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sparcom.components import Site


def ablation_masks(
    sites: Sequence[Site],
    index: np.ndarray,
    values: np.ndarray | None = None,
    factor: float | np.ndarray = 0.0,
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(site, keep, fill) of each site with ablated neurons; h becomes `h * keep + fill`.

    sites: the sites whose neurons `index` numbers, in their order.
    index: [n] int64, the flat indices of the ablated neurons, each once.
    values: [n] what is added to their h; None: 0.
    factor: what their h is multiplied by first: of all, or [n].

    site is an index into `sites`. keep, fill: [experts or 1, width] float64 on CPU; the factor and
    the value for an ablated neuron, 1 and 0 for any other.

    >>> from sparcom.components import Site
    >>> sites = [Site("dense", layer, 3, "silu") for layer in (0, 1)]
    >>> [(at, keep.tolist()) for at, keep, _ in ablation_masks(sites, np.array([4]))]
    [(1, [[1.0, 0.0, 1.0]])]
    """
    start = 0
    for at, site in enumerate(sites):
        inside = (index >= start) & (index < start + site.neurons)
        if inside.any():
            keep = torch.ones(site.neurons, dtype=torch.float64)
            fill = torch.zeros_like(keep)
            local = torch.from_numpy(index[inside] - start)
            keep[local] = torch.from_numpy(
                np.broadcast_to(factor, len(index))[inside].astype(float)
            )
            if values is not None:
                fill[local] = torch.from_numpy(np.asarray(values, np.float64)[inside])
            yield at, keep.view(site.bins, site.width), fill.view(site.bins, site.width)
        start += site.neurons
