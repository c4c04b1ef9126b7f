"""The operator that act_mul_count replaces, from the installed vLLM."""

from collections.abc import Callable
from functools import cache

import torch


@cache
def find(device: str) -> tuple[Callable[[torch.Tensor, torch.Tensor], None] | None, str]:
    """(vLLM's silu_and_mul(out [rows, width], x [rows, 2 * width]), "") or (None, why not).

    device: where it must run; a vLLM for GPUs has no CPU operator, and vice versa.
    """
    try:
        import vllm
        from vllm.platforms import current_platform

        current_platform.import_kernels()
        operator = torch.ops._C.silu_and_mul
        x = torch.ones(1, 16, dtype=torch.bfloat16, device=device)
        operator(torch.empty_like(x[:, :8]), x)
    # No vLLM, one without this operator, one built for another device: the table says which.
    except (ImportError, AttributeError, NotImplementedError) as error:
        return None, f"no silu_and_mul for {device}: {str(error).splitlines()[0]}"
    return operator, f"vllm {vllm.__version__}"
