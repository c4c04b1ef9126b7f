"""Named ranges for Nsight Systems and Compute: in which step, and at which site, a kernel ran.

    with nvtx.step(12):                       # one pass of the model
        with nvtx.site("layer3.dense"):       # one call of act_mul_count
            ...

shows as `step 12` > `layer3.dense`. If the process does not use CUDA, no range is opened.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

_NOTHING: AbstractContextManager[None] = nullcontext()


def step(number: int) -> AbstractContextManager[None]:
    """A range named `step <number>`: one pass of the model."""
    return _range(f"step {number}")


def site(name: str) -> AbstractContextManager[None]:
    """A range with the name of a site, `components.Site.name`: its layer and kind."""
    return _range(name)


def _range(name: str) -> AbstractContextManager[None]:
    return torch.cuda.nvtx.range(name) if torch.cuda.is_initialized() else _NOTHING
