"""FP8 models: vLLM makes one kernel of an activation and of the rounding of its result; so do we.

A model calls `maybe_fused_act_quant(activation, x, linear)`, and vLLM looks up what it can fuse by
the type of the activation and the key that the linear shows (`input_quant_key`). A counting
activation has the entry for fp8 in groups of 128 columns, `kFp8Dynamic128Sym`; with other keys it
gives h, and the linear rounds that itself.
"""

from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.fusion import fused_act_quant
from vllm.model_executor.layers.fusion.quant_activation import QuantizedActivation
from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8Dynamic128Sym

from sparcom.engines.vllm.worker.counting_op import CountedActivation


def connect(counting: CountedActivation, linear: nn.Module) -> None:
    """Let a linear that takes fp8 in groups have it from the counting activation before it."""
    # As an attribute that is no submodule: vLLM gives only the linear to what it looks up.
    object.__setattr__(linear, "sparcom_counting", counting)
    key = (CountedActivation, kFp8Dynamic128Sym)
    fused_act_quant._FUSED_ACT_QUANT[key] = _count_and_quantise
    fused_act_quant._FUSED_ACT_QUANT_SUPPORT[key] = _supported


def _supported(counting: CountedActivation, x: torch.Tensor, linear: Any) -> bool:
    return linear.sparcom_counting is counting and counting.quantises(x)


def _count_and_quantise(x: torch.Tensor, linear: Any) -> QuantizedActivation:
    """As vLLM's own entry: rows of scales are dense."""
    counting = linear.sparcom_counting
    rows = x if x.dim() == 2 else x.flatten(0, -2)
    q, scales = torch.ops.sparcom.count_site_quant(rows, counting.site_index)
    shape = torch.Size((*x.shape[:-1], q.shape[-1]))
    return QuantizedActivation(
        data=q.view(shape),
        scale=scales.view(*x.shape[:-1], scales.shape[-1]),
        orig_dtype=x.dtype,
        orig_shape=shape,
        quant_key=kFp8Dynamic128Sym,
    )
