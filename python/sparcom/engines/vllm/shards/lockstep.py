"""What the ranks of an outside launcher agree on, over the process group that vLLM has made.

Called by the thread that steps the engine, hence never between two collectives of one pass.
"""

from typing import Any

import torch
import torch.distributed as dist


def agree(seen: int) -> int:
    """The first rank's number of jobs: every rank admits these and no more before its next step."""
    group = _world().cpu_group
    number = torch.tensor([seen], dtype=torch.int64)
    dist.broadcast(number, src=_world().ranks[0], group=group)
    return int(number)


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in rank order."""
    values: list[Any] = [None] * _world().world_size
    dist.all_gather_object(values, value, group=_world().cpu_group)
    return values


def rank() -> int:
    """This rank."""
    return _world().rank


def _world() -> Any:
    from vllm.distributed.parallel_state import get_world_group

    return get_world_group()
