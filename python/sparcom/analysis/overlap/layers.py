"""Where in depth the sets lie: components per site, and layer histograms by category.

Sites of one family (`FAMILIES`: all neurons, the neurons of one kind of site, or the routed
experts) are the bins; a model with several kinds of site in one layer has one bin for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.bitsets import set_sizes, slice_bits
from sparcom.analysis.overlap.overlap import encode, one_hot
from sparcom.components import KINDS, ComponentSpace
from sparcom.selection.sets import Sets

FAMILIES = ("neurons", *KINDS, "experts")


@dataclass(frozen=True)
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
    """The families of a model: "neurons", each kind where there are several, and "experts"."""
    kinds = space.kinds if len(space.kinds) > 1 else ()
    return ("neurons", *kinds, *(("experts",) if space.experts else ()))


def family_sites(space: ComponentSpace, family: str) -> list[FamilySite]:
    """The sites of a family in the order of its flat index."""
    offsets = space.expert_offsets if family == "experts" else space.neuron_offsets
    return [
        FamilySite(site.layer, site.kind, slice(int(start), int(stop)))
        for site, start, stop in zip(space.sites, offsets, offsets[1:], strict=False)
        if stop > start and family in ("neurons", "experts", site.kind)
    ]


def family_bits(sets: Sets, family: str) -> np.ndarray:
    """The packed sets that a family indexes: experts, or neurons."""
    return sets.experts if family == "experts" else sets.neurons


def site_sizes(bits: np.ndarray, sites: Sequence[FamilySite]) -> np.ndarray:
    """[n, sites] int64: how many components of each site a set holds."""
    return np.stack([set_sizes(slice_bits(bits, site.part)) for site in sites], axis=1)


@dataclass(frozen=True)
class LayerHistogram:
    """Components per site in the sets of each category.

    categories: [C]; layers, kinds, widths: [sites].
    mean: [C, sites] components of the site in a set, mean over the category's instructions.
    low, high: [C, sites] 95 % interval of that mean (normal, over instructions); NaN where a
        category has a single instruction.
    share: [C, sites] the site's share of all components in the category's sets; rows sum to 1,
        or are 0 where all sets are empty.
    chance: [sites] share of a set that falls evenly on all components.
    """

    family: str
    categories: tuple[str, ...]
    layers: np.ndarray
    kinds: tuple[str, ...]
    widths: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    chance: np.ndarray

    def table(self) -> pa.Table:
        """One row per category and site."""
        rows, sites = len(self.categories), len(self.layers)
        return pa.table(
            {
                "family": [self.family] * (rows * sites),
                "category": np.repeat(self.categories, sites).tolist(),
                "layer": np.tile(self.layers, rows),
                "kind": list(self.kinds) * rows,
                "width": np.tile(self.widths, rows),
                **{
                    name: pa.array(getattr(self, name).reshape(-1), from_pandas=True)
                    for name in ("mean", "low", "high", "share")
                },
                "chance": np.tile(self.chance, rows),
            }
        )


def layer_histogram(
    bits: np.ndarray,
    space: ComponentSpace,
    labels: Sequence[str],
    family: str = "neurons",
    categories: Sequence[str] | None = None,
) -> LayerHistogram:
    """Histogram over the sites of a family, per category.

    bits: [n, bytes] the family's packed sets (`family_bits`); labels: [n] category of each row.
    """
    sites = family_sites(space, family)
    return histogram_of_sizes(site_sizes(bits, sites), sites, labels, family, categories)


def histogram_of_sizes(
    sizes: np.ndarray,
    sites: Sequence[FamilySite],
    labels: Sequence[str],
    family: str,
    categories: Sequence[str] | None = None,
) -> LayerHistogram:
    """`layer_histogram` from sizes [n, sites] that are already known."""
    names, codes = encode(labels, categories)
    member = one_hot(codes, len(names))
    count = np.maximum(member.sum(0), 1.0)[:, None]
    mean = member.T @ sizes / count
    variance = np.maximum(member.T @ np.square(sizes, dtype=np.float64) / count - mean**2, 0.0)
    error = np.sqrt(np.divide(variance, count - 1, out=np.full_like(mean, np.nan), where=count > 1))
    totals = mean.sum(1, keepdims=True)
    widths = np.array([site.width for site in sites], dtype=np.int64)
    return LayerHistogram(
        family,
        names,
        np.array([site.layer for site in sites], dtype=np.int32),
        tuple(site.kind for site in sites),
        widths,
        mean,
        mean - 1.96 * error,
        mean + 1.96 * error,
        np.divide(mean, totals, out=np.zeros_like(mean), where=totals > 0),
        widths / widths.sum(),
    )
