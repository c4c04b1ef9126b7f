"""How much a model uses each component: what random sets are matched on."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.sites import Ffn

_ROWS = 256  # of the identity that one call of a down projection takes


@dataclass(frozen=True)
class Use:
    """How a model uses the components of one family on some prompts.

    frequency: [components] share of the counted tokens at which it fires (an expert: is chosen).
    contribution: [components] mean over the counted tokens of |h| times the norm of the neuron's
        row of the down projection: the length of what it adds to the residual stream. An expert's
        is the sum of its neurons'.
    """

    frequency: np.ndarray
    contribution: np.ndarray


def measure_use(
    engine: TransformersEngine, prompts: Sequence[Prompt], norms: np.ndarray, family: str
) -> Use:
    """The use of a family ("neurons" or "experts") on the counted tokens of prompts.

    norms: [neurons] of `output_norms`.
    """
    space, tokens = engine.space, 0
    fired, routed = np.zeros(space.neurons), np.zeros(space.experts)
    with engine.counting().summing(absolute=True) as sums:
        for counted in engine.count(prompts):
            tokens += int(counted.tokens.sum())
            fired += counted.neurons.sum(0)
            routed += counted.experts.sum(0)
        h = np.concatenate([total.cpu().numpy().reshape(-1) for total in sums])
    added = h * norms / tokens
    if family == "neurons":
        return Use(fired / tokens, added)
    inside = space.neuron_experts >= 0
    total = np.bincount(space.neuron_experts[inside], added[inside], minlength=space.experts)
    return Use(routed / tokens, total)


@torch.inference_mode()
def output_norms(ffns: Sequence[Ffn], space: ComponentSpace) -> np.ndarray:
    """[neurons] float64: norm of what one unit of each neuron's h adds, its row of down_proj."""
    parts = []
    for ffn in ffns:
        down: Any = attrgetter(ffn.parts[-1])(ffn.module)
        if isinstance(down, nn.Parameter):  # routed: [experts, hidden, width], or transposed
            across = 2 if ffn.form == "scaled" or ffn.module.is_transposed else 1
            parts.append(down.detach().float().norm(dim=across))
        elif type(down) is nn.Linear:
            parts.append(down.weight.float().norm(dim=0))
        else:  # of any other form, quantised or not: what it makes of each unit vector
            parts.append(_probed(down, ffn.site.width))
    norms: np.ndarray = torch.cat([part.reshape(-1).cpu() for part in parts]).double().numpy()
    return norms


def _probed(down: nn.Module, width: int) -> torch.Tensor:
    like = next(down.parameters())
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    zero = down(torch.zeros(1, width, dtype=dtype, device=like.device))
    found = []
    for start in range(0, width, _ROWS):
        stop = min(start + _ROWS, width)
        unit = torch.zeros(stop - start, width, dtype=dtype, device=like.device)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
        found.append((down(unit) - zero).float().norm(dim=1))
    return torch.cat(found)
