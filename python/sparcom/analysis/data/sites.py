"""Families of components, and their sites: the bins of everything that is said by depth.

A family is all neurons, the neurons of one kind of site, or the routed experts. A model with
several kinds of site in one layer has one bin for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.bitsets import set_sizes, slice_bits
from sparcom.components import ComponentSpace


@dataclass(frozen=True, kw_only=True)
class FamilySite:
    """One site as a bin of a family: its layer and kind, and where its components lie.

    part: flat range in the neuron index, or in the expert index for the family "experts".
    """

    layer: int
    kind: str
    part: slice

    @property
    def width(self) -> int:
        return self.part.stop - self.part.start


def families(space: ComponentSpace) -> tuple[str, ...]:
    """The families of a model: "neurons", each kind if there are several, and "experts"."""
    kinds = space.kinds if len(space.kinds) > 1 else ()
    return ("neurons", *kinds, *(("experts",) if space.experts else ()))


def family_sites(space: ComponentSpace, family: str) -> list[FamilySite]:
    """The sites of a family in the order of its flat index."""
    offsets = space.expert_offsets if family == "experts" else space.neuron_offsets
    return [
        FamilySite(layer=site.layer, kind=site.kind, part=slice(int(start), int(stop)))
        for site, start, stop in zip(space.sites, offsets, offsets[1:], strict=False)
        if stop > start and family in ("neurons", "experts", site.kind)
    ]


def site_sizes(bits: np.ndarray, sites: Sequence[FamilySite]) -> np.ndarray:
    """[n, sites] int64: how many components of each site a set holds."""
    return np.stack([set_sizes(slice_bits(bits, site.part)) for site in sites], axis=1)
