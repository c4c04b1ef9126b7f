"""The driver's merging of profiles, beside the counting: a tree whose leaves are parts."""

from concurrent.futures import Future, ThreadPoolExecutor

from sparcom.errors import SparcomError
from sparcom.pipeline.plan import Plan
from sparcom.store import MergeTree, RunStore, Span
from sparcom.store.profiles.spans import FAN, outermost

LEAST_REMOTE = 8
"""Merges at a time on a cluster, where it has no more actors than this; else as many as actors."""


class Merger:
    """Merges the profiles of parts as they get done.

    remote: as Ray tasks, several at a time, so that the driver of a large cluster only submits
        them; else in a thread of this process, one at a time. The tasks ask for no CPU: actors hold
        all of them until the run is over, and merging mostly waits for files.
    """

    def __init__(self, plan: Plan, *, remote: bool) -> None:
        self._store, self._parts = plan.store, plan.parts
        self._tree = MergeTree(plan.parts, plan.store.profiles.spans())
        self._covered = plan.work.covered
        self._remote = remote
        threads = max(LEAST_REMOTE, plan.config.max_actors or plan.config.actors) if remote else 1
        self._pool = ThreadPoolExecutor(threads, "sparcom-merge")
        self._under_way: dict[Span, Future] = {}

    def __enter__(self) -> "Merger":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, part: int) -> None:
        """Take a part that is done. Raises what a merge has raised."""
        for span in list(self._under_way):
            if self._under_way[span].done():
                self._under_way.pop(span).result()
        if part in self._covered:
            return
        for span in self._tree.add(part):
            self._submit(span)

    def finish(self) -> None:
        """Merge everything into the profile of the whole run."""
        for future in list(self._under_way.values()):
            future.result()
        self._under_way.clear()
        whole = Span(0, self._parts)
        while len(left := outermost(self._store.profiles.spans())) > 2 * FAN:
            for at in range(0, len(left) - 1, FAN):  # what a stopped session left unmerged
                group = left[at : at + FAN]
                self._merge(Span(group[0].first, group[-1].stop), [])
        self._merge(whole, [])

    def _submit(self, span: Span) -> None:
        """Queue a merge; those of its children were queued before it, so that it may wait."""
        children = [f for s, f in self._under_way.items() if span.holds(s)]
        self._under_way[span] = self._pool.submit(self._merge, span, children)

    def _merge(self, span: Span, children: list[Future]) -> None:
        for child in children:
            child.result()
        if not self._remote:
            self._store.profiles.merge(span)
            return
        import ray

        task = ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")(merge_task)
        try:
            ray.get(task.remote(self._store.location, span))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, SparcomError) else error) from None


def merge_task(location: str, span: tuple[int, int]) -> None:
    """A Ray task: one merge, where its files are read and written."""
    RunStore(location).profiles.merge(Span(*span))
