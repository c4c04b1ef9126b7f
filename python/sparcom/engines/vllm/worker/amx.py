"""Permission for AMX, which Linux gives to a process that asks for it.

vLLM's products of quantised weights on CPU use AMX and do not ask (seen in 0.32.0): a worker in
which nothing else has asked before ends with an illegal instruction.
"""

import torch


def permit_amx() -> bool:
    """Ask Linux for AMX in this process; False if the processor has none, or Linux says no."""
    return torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()
