"""Runs that are counted in this process: all of `count`, but for Ray and its actors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sparcom.pipeline import run as module
from sparcom.pipeline.actor import CountActor, PartResult
from sparcom.pipeline.plan import Plan


@contextmanager
def counted_here() -> Iterator[None]:
    """Within the block, `count` starts no process: an actor's own code counts part by part."""

    def count_parts(plan: Plan) -> Iterator[PartResult]:
        actor = CountActor(plan.work)
        for part in plan.todo:
            yield actor.run(part)

    @contextmanager
    def no_session(*_: object, meanwhile: Callable[[], None] | None = None) -> Iterator[None]:
        if meanwhile:
            meanwhile()
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ray_session", no_session)
        patch.setattr(module, "count_parts", count_parts)
        yield
