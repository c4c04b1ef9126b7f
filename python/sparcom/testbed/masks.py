"""Which weights belong to a list of neurons, and training those alone.

A neuron's weights are what makes it fire and what it adds: its row of gate_proj and of up_proj, and
its column of down_proj. An entry outside the mask gets a gradient of zero, so that an optimiser
without weight decay never changes it, to the last bit.
"""

from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from sparcom.component_list import Components
from sparcom.components import ComponentSpace
from sparcom.engines.transformers.sites import Ffn, find_ffns, space_of
from sparcom.errors import InputError

Masks = dict[nn.Parameter, torch.Tensor]


def weights_of_units(model: nn.Module, units: Components) -> Masks:
    """Parameter -> [as the parameter] bool: the entries of these neurons' weights and biases.

    model: of transformers, unmodified. units: flat indices in the model's own space; an expert
    stands for all its neurons. Parameters without such an entry are left out.
    Raises InputError for an FFN whose weights are laid out in another way.
    """
    ffns = find_ffns(model)
    space = space_of(ffns)
    chosen = np.zeros(space.neurons, bool)
    chosen[units.neurons] = True
    chosen |= np.isin(space.neuron_experts, units.experts) & (space.neuron_experts >= 0)
    masks: Masks = {}
    for ffn, start in zip(ffns, space.neuron_offsets, strict=False):
        of = chosen[start : start + ffn.site.neurons]
        if of.any():
            _mark(masks, ffn, torch.from_numpy(of))
    return masks


def train_only(model: nn.Module, masks: Masks) -> list[nn.Parameter]:
    """Freeze a model but for the entries of its masks; returns the parameters to optimise.

    >>> trained = train_only(model, weights_of_units(model, units))
    >>> optimiser = torch.optim.AdamW(trained, weight_decay=0.0)
    """
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in masks)
    for parameter, mask in masks.items():
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
    return list(masks)


def every_unit(space: ComponentSpace) -> Components:
    """All neurons of a model."""
    return Components(np.arange(space.neurons), np.zeros(0, np.int64))


def _mark(masks: Masks, ffn: Ffn, chosen: torch.Tensor) -> None:
    """Mark the entries of some neurons of one FFN; chosen: [neurons of the site] bool."""
    if ffn.form == "routed":
        _mark_experts(masks, ffn, chosen.view(ffn.site.experts, -1))
        return
    if ffn.form not in ("gated", "merged", "ungated"):
        raise InputError(f"fine_tune: {ffn.name}: weights of the form {ffn.form!r} are not known")
    *firsts, down = (attrgetter(part)(ffn.module) for part in ffn.parts)
    rows = chosen.repeat(2) if ffn.form == "merged" else chosen
    for linear in firsts:
        _rows(masks, linear.weight, across=_is_transposed(linear))[rows] = True
        if linear.bias is not None:
            _rows(masks, linear.bias)[rows] = True
    _rows(masks, down.weight, across=not _is_transposed(down))[chosen] = True


def _mark_experts(masks: Masks, ffn: Ffn, chosen: torch.Tensor) -> None:
    """The same of fused experts; chosen: [experts, width] bool."""
    module: Any = ffn.module
    first = chosen
    if module.has_gate:  # gate and up lie one behind the other, or take turns
        both = torch.cat if module.is_concatenated else torch.stack
        first = both([chosen, chosen], -1).reshape(len(chosen), -1)
    weights = [getattr(module, name) for name in ffn.parts]
    for weight, rows in zip(weights[:2], (first, chosen), strict=True):
        down = weight is weights[1]
        view = _mask_of(masks, weight)
        if down != module.is_transposed:
            view = view.transpose(1, 2)
        view[rows] = True
    if len(weights) > 2:  # of the biases, down's belongs to no neuron
        _mask_of(masks, weights[2])[first] = True


def _mask_of(masks: Masks, parameter: nn.Parameter) -> torch.Tensor:
    return masks.setdefault(parameter, torch.zeros(parameter.shape, dtype=torch.bool))


def _rows(masks: Masks, parameter: nn.Parameter, *, across: bool = False) -> torch.Tensor:
    """The mask of a parameter, its neurons first; across: they are its columns."""
    mask = _mask_of(masks, parameter)
    return mask.T if across else mask


def _is_transposed(linear: nn.Module) -> bool:
    """True for a weight [inputs, outputs], as GPT-2's."""
    return type(linear).__name__ == "Conv1D"
