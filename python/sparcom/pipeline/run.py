"""One run from a config to a finished run directory."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from sparcom.config import RunConfig
from sparcom.engines.count_part import Failure
from sparcom.errors import InputError, SparcomError
from sparcom.pipeline.actor import PartResult
from sparcom.pipeline.batch_choice import AUTO, KEY, read_choice, with_choice
from sparcom.pipeline.checking import check_by_tasks
from sparcom.pipeline.merging import Merger
from sparcom.pipeline.plan import MakePrompts, Plan, check_location, prepare
from sparcom.pipeline.progress import Progress
from sparcom.pipeline.ray.logs import log_to_stderr
from sparcom.pipeline.ray.pool import count_parts
from sparcom.pipeline.ray.resources import resources_of
from sparcom.pipeline.ray.session import check_resources, ray_runs, ray_session
from sparcom.pipeline.ray.stall_detector import StallDetector
from sparcom.pipeline.signals import stop_on_sigterm
from sparcom.pipeline.stages import Stages
from sparcom.planning.options import cluster_address
from sparcom.planning.prompts import PromptMaker
from sparcom.store import RunLock, RunStore
from sparcom.store.check import check_here
from sparcom.store.profiles.spans import part_name
from sparcom.store.run_store import RESULT_FOLDERS

_logger = logging.getLogger("sparcom.pipeline")


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    tokens: counted ones, written ones among them; prompt_tokens: all that the model read.
    proof: whether and how the model was proved (`EngineInfo.proof`), and the `seconds` of the
        longest proof of this session.
    parts: how many were counted in this session; 0: nothing was left to do.
    chosen: with `batch_tokens = "auto"`, the number and what was measured (`BatchSize`); else {}.
    """

    location: str
    instructions: int
    failed: int
    tokens: int
    prompt_tokens: int
    seconds: float
    proof: dict[str, Any] = field(default_factory=dict)
    parts: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass
class Session:
    """One start of a driver on a run: what it did and what it cost."""

    started: float = field(default_factory=time.perf_counter)
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    results: list[PartResult] = field(default_factory=list)

    def cost(self, plan: Plan, ended: str) -> dict[str, Any]:
        """The entry of `sessions` in run.json."""
        return {
            "since": self.since,
            "ended": ended,
            "seconds": round(time.perf_counter() - self.started, 3),
            "actors": resources_of(plan.config, max(1, len(plan.todo))).actors,
            "actor_seconds": round(sum(r.seconds for r in self.results), 3),
            "parts": len(self.results),
            "prompt_tokens": sum(r.tokens for r in self.results),
        }


def count(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    progress: bool = False,
    structured_log: bool = False,
) -> RunSummary:
    """Count a corpus on a model and store the run.

    check: of a run that is resumed, read every stored file to its end, and not its footer alone.
    progress: show a bar. structured_log: write JSON lines to stderr (what jobs do).

    >>> summary = count(RunConfig(corpus="hexainst", out="runs/first"))

    Raises SparcomError where the run had to stop; what is stored then, `resume` finishes.
    """
    session = Session()
    store = RunStore(config.run_dir())
    check_location(store, resume=resume, overwrite=overwrite)
    check_resources(config)
    fresh = not store.is_run()
    with ExitStack() as stack:
        stack.enter_context(stop_on_sigterm())
        lock = stack.enter_context(RunLock(store.files))
        reader = check_here
        if resume and check and cluster_address(config):
            stack.enter_context(ray_session(config))
            reader = check_by_tasks
        begin = Stages(shown=progress)

        def beside_ray(make: MakePrompts) -> PromptMaker:
            if cluster_address(config) is not None or ray_runs():
                begin("planning: the model's shapes")
                return make()
            begin("starting Ray, and planning beside it")
            made: list[PromptMaker] = []

            def meanwhile() -> None:
                made.append(make())

            stack.enter_context(ray_session(config, meanwhile=meanwhile))
            return made[0]

        plan = prepare(
            config,
            store,
            resume=resume,
            overwrite=overwrite,
            whole=check,
            check=reader,
            begin=begin,
            beside=beside_ray,
        )
        log_to_stderr(plan.work.run_id, structured=structured_log)
        for problem in plan.bad:
            _logger.warning(problem)
        try:
            if plan.todo:
                _count(plan, session, lock, progress, begin)
            else:
                with Merger(plan, remote=False) as merger:
                    merger.finish()
            failures, tokens = _check_complete(plan)
        except InputError:
            if fresh and not session.results:  # nothing was counted: leave nothing in the way
                store.delete()
            else:
                _leave(plan, session, "failed")
            raise
        except BaseException as error:
            ended = "failed" if isinstance(error, Exception) else "interrupted"
            _leave(plan, session, ended)
            raise
        return finish(plan, session, failures, tokens)


def _count(plan: Plan, session: Session, lock: RunLock, progress: bool, begin: Stages) -> None:
    """Count the parts that are not done, and merge their profiles."""
    failed = len(plan.store.results.failures(without=set(plan.todo)))
    resources = resources_of(plan.config, len(plan.todo))
    remote = cluster_address(plan.config) is not None
    _logger.info("run begins", extra={"parts": len(plan.todo), "actors": resources.actors})
    if not ray_runs():
        begin("starting Ray")
    with ray_session(plan.config, len(plan.todo)), Merger(plan, remote=remote) as merger:
        begin("loading the model")
        with (
            Progress(plan.prompt_tokens, plan.left, bar=progress) as shown,
            StallDetector(resources) as detector,
            closing(count_parts(plan)) as results,
        ):
            for result in results:
                lock.check()
                detector.alive()
                _check_one_engine(plan, session, result)
                session.results.append(result)
                shown.add(result)
                merger.add(result.part)
                failed += result.failed
                _check_max_failed(plan, failed)
        begin("merging")
        merger.finish()


def _check_one_engine(plan: Plan, session: Session, result: PartResult) -> None:
    """Raise SparcomError where a part was counted otherwise than those before it, in this session
    or an earlier one (on a GPU where they had none, for example); its files are then gone."""
    first = session.results[0].engine if session.results else plan.store.manifest().get("engine")
    if not first or first == result.engine:
        return
    for folder in RESULT_FOLDERS:
        plan.store.files.delete(f"{folder}/{part_name(result.part)}")
    pairs = ((key, value, first.get(key)) for key, value in result.engine.items())
    differ = ", ".join(f"{key} {new!r} after {old!r}" for key, new, old in pairs if new != old)
    raise SparcomError(
        f"part {result.part} came from an actor with {differ}; all parts of a run must be counted "
        "alike: give each actor the same by --gpus and --cpus (CUDA_VISIBLE_DEVICES= hides GPUs), "
        "then --resume"
    )


def _check_max_failed(plan: Plan, failed: int) -> None:
    if failed > plan.config.max_failed:
        last = plan.store.results.failures()[-1]
        raise SparcomError(
            f"{failed} instructions were set aside, more than --max-failed "
            f"{plan.config.max_failed}; the last: {last.id}: {last.reason}; all of them are in "
            f"{plan.store.location}/failed"
        )


def _check_complete(plan: Plan) -> tuple[list[Failure], int]:
    """(what was set aside, counted tokens of the rest, written ones among them).

    Raises SparcomError where the profile does not hold every instruction that was not set aside, or
    where that is none.
    """
    failures = plan.store.results.failures()
    cells, _ = plan.store.profiles.read(("category",), ())
    counted = sum(cells["instructions"].to_pylist())
    if counted + len(failures) != plan.instructions:
        raise SparcomError(
            f"{plan.store.location}/profiles: expected {plan.instructions} instructions, got "
            f"{counted} and {len(failures)} that were set aside; delete this folder and count its "
            "parts again with --resume"
        )
    if not counted:
        raise SparcomError(
            f"the model failed on all {plan.instructions} instructions; the first: "
            f"{failures[0].id}: {failures[0].reason}; correct that and start again with --overwrite"
        )
    return failures, sum(cells["tokens"].to_pylist())


def _leave(plan: Plan, session: Session, ended: str) -> None:
    """Note what a session that did not finish has cost; the error that ended it is what counts."""
    try:
        write_facts(plan, session, ended, {"status": "stopped"})
    except Exception as error:
        _logger.warning(str(error))


def finish(plan: Plan, session: Session, failures: Sequence[Failure], tokens: int) -> RunSummary:
    """Mark a run as complete and say what it did."""
    plan.store.files.sweep(RESULT_FOLDERS)  # what killed actors were writing
    summary = RunSummary(
        location=plan.store.location,
        instructions=plan.instructions - len(failures),
        failed=len(failures),
        tokens=tokens,
        prompt_tokens=sum(r.tokens for r in session.results),
        seconds=time.perf_counter() - session.started,
        proof=_proof(plan, session),
        parts=len(session.results),
        chosen=_manifest(plan).get(KEY, {}),
    )
    if plan.store.manifest()["status"] == "complete" and not session.results:
        return summary  # a run resumed that had nothing left to do: its times stay
    facts = {
        "status": "complete",
        "failed": len(failures),
        "tokens": summary.tokens,
        "prompt_tokens": plan.manifest["corpus"]["prompt_tokens"],
    }
    write_facts(plan, session, "complete", facts)
    return summary


def _proof(plan: Plan, session: Session) -> dict[str, Any]:
    """Whether and how the model was proved, and what that took in this session."""
    results = session.results
    engine = results[0].engine if results else plan.store.manifest().get("engine", {})
    seconds = max((r.proof_seconds for r in results), default=0.0)
    return {**engine.get("proof", {}), "seconds": round(seconds, 2)}


def _manifest(plan: Plan) -> dict[str, Any]:
    """The manifest of a plan, with the rows of a pass that its actors have chosen."""
    if plan.config.batch_tokens != AUTO:
        return plan.manifest
    return with_choice(plan.manifest, read_choice(plan.store))


def write_facts(plan: Plan, session: Session, ended: str, facts: dict[str, Any]) -> None:
    """Write run.json with a session added and the sums over all of them."""
    stored = plan.store.manifest()
    sessions = [*stored.get("sessions", []), session.cost(plan, ended)]
    engine = session.results[0].engine if session.results else stored.get("engine", {})
    plan.store.write_manifest(
        {
            **_manifest(plan),
            "engine": engine,
            "sessions": sessions,
            "seconds": round(sum(s["seconds"] for s in sessions), 3),
            "actor_seconds": round(sum(s["actor_seconds"] for s in sessions), 3),
            # Less than all parts where a driver was killed before it could note its own.
            "parts_of_known_cost": sum(s["parts"] for s in sessions),
            **facts,
        }
    )
