"""vLLM's scheduler, which takes no counted token from the prefix cache.

vLLM looks up how much of a waiting request its cache has from earlier ones, in whole blocks, and
computes the rest. A token that is not computed cannot be counted. So each request is looked up only
as far as its first counted token: what precedes it (a system prompt, few-shot examples) is computed
once and shared, and two equal instructions are both counted. The engine's process finds the class
by its name. The conservation of every instruction's rows proves that it works.
"""

from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from sparcom.engines.vllm.worker.rows import first_counted


class CountingScheduler(Scheduler):
    """vLLM's scheduler; a request takes from the cache at most what precedes its counted tokens."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _bound(self.kv_cache_manager)


class AsyncCountingScheduler(AsyncScheduler):
    """The same of vLLM's scheduler that plans a pass while the one before still runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _bound(self.kv_cache_manager)


def _bound(manager: Any) -> None:
    manager.get_computed_blocks = up_to_counted(manager.get_computed_blocks)


def up_to_counted(look_up: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM's `KVCacheManager.get_computed_blocks`, for no more than a request does not count.

    vLLM 0.33 may give the most tokens to look for as a second argument; 0.32 has none.
    """

    def bounded(request: Any, *most: int | None) -> Any:
        seen = Uncounted(request)
        last = seen.num_tokens - 1
        return look_up(seen, *(last if one is None else min(one, last) for one in most))

    return bounded


class Uncounted:
    """A vLLM request that seems to end after its first counted token, and else is as it is.

    vLLM always computes the last token of a request, whatever the cache has.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        note = request.sampling_params.extra_args or {}
        self.num_tokens = min(request.num_tokens, first_counted(note) + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)
