"""Named ranges for Nsight Systems and Compute: which step, and which site of it, a kernel ran in.

    with nvtx.step(12):                       # one pass of the model
        with nvtx.site("layer3.dense"):       # one call of act_mul_count
            ...

shows as `step 12` > `layer3.dense`. Where CUDA is not in use nothing is opened and nothing costs.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

_NOTHING: AbstractContextManager[None] = nullcontext()


def step(number: int) -> AbstractContextManager[None]:
    """A range named `step <number>`: one pass of the model."""
    return _range(f"step {number}")


def site(name: str) -> AbstractContextManager[None]:
    """A range named after a site, `components.Site.name`, which says layer and kind."""
    return _range(name)


def _range(name: str) -> AbstractContextManager[None]:
    return torch.cuda.nvtx.range(name) if torch.cuda.is_initialized() else _NOTHING
