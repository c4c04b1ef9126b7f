"""The service: a corpus is planned into parts, Ray Data maps them over actors, parts are stored.

    plan     corpus -> prompts -> corpus.parquet, run.json          (the driver)
    count    part -> engine -> sets and counts -> part files        (actors, each with a model)
    finish   run.json says complete                                 (the driver)

Only part numbers and a line of figures per part cross the network: actors read prompts from, and
write results to, the run directory. What an actor does to a part is a plain function, `count_part`.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.corpus.hexainst import load_corpus
from sparcom.corpus.prompts import Prompt, make_frame, make_prompts
from sparcom.corpus.schema import Instruction
from sparcom.counting.recorder import Counted
from sparcom.engines.base import Engine, EngineOptions, PromptError
from sparcom.errors import InputError, SparcomError
from sparcom.identify import Selection, identify
from sparcom.models import resolve_model, weights_fingerprint
from sparcom.store import Failure, RunStore, concat_counted


@dataclass(frozen=True)
class Work:
    """What an actor needs to know: small, plain and picklable."""

    location: str
    engine: str
    options: EngineOptions
    selection: Selection
    retain: str


@dataclass(frozen=True)
class PartResult:
    """What an actor reports of a part.

    seconds: time spent counting it.
    """

    part: int
    instructions: int
    tokens: int
    failed: int
    seconds: float
    engine: dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """What a run did. tokens: counted ones; prompt_tokens: all that the model read."""

    location: str
    instructions: int
    failed: int
    tokens: int
    prompt_tokens: int
    seconds: float
    complete: bool


# -- plan -----------------------------------------------------------------------------------------


def load_engine(name: str, options: EngineOptions) -> Engine:
    """The engine of a name, loaded."""
    if name == "transformers":
        from sparcom.engines.transformers.engine import TransformersEngine

        return TransformersEngine(options)
    raise InputError(f"engine: expected transformers, got {name!r}")


def engine_options(config: RunConfig) -> EngineOptions:
    """How actors load the model of a config."""
    return EngineOptions(
        model=resolve_model(config.model),
        dtype=config.dtype,
        batch_tokens=config.batch_tokens,
        slots=config.slots,
        threads=cpus_per_actor(config),
        threshold=config.threshold,
        signal=config.signal,
        verify=config.verify,
        trust_remote_code=config.trust_remote_code,
    )


def cpus_per_actor(config: RunConfig) -> int:
    """CPU threads of each actor: as asked, or this machine's cores shared out."""
    return config.cpus or max(1, len(os.sched_getaffinity(0)) // config.actors)


def plan_prompts(
    config: RunConfig, options: EngineOptions, instructions: Sequence[Instruction]
) -> tuple[ComponentSpace, list[Prompt]]:
    """The model's component space and the prompts, without reading a weight."""
    from sparcom.engines.transformers.engine import context_of, describe_model, load_config
    from transformers import AutoTokenizer

    model_config = load_config(options)
    space = describe_model(model_config)

    def tokenizer_of(model: str) -> Any:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=config.trust_remote_code)

    tokenizer = tokenizer_of(options.model)
    _, _, other = config.template.partition("from:")
    donor = tokenizer_of(resolve_model(other)) if other else None
    frame = make_frame(config.template, tokenizer, config.system, donor)
    prompts = make_prompts(
        instructions,
        tokenizer,
        frame=frame,
        scope=config.scope,
        max_tokens=config.count_tokens,
        context=context_of(model_config),
        truncate=config.truncate,
    )
    return space, prompts


def corpus_hash(prompts: Sequence[Prompt]) -> str:
    """sha256 over ids, token ids and counted ranges: equal ones are the same measurement."""
    digest = hashlib.sha256()
    for p in prompts:
        digest.update(f"{p.id}\0{p.token_ids}\0{p.counted}\n".encode())
    return digest.hexdigest()


def prepare(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> "Plan":
    """Check everything that can be checked before counting, and lay the run directory out.

    Raises InputError where the directory exists and neither `resume` nor `overwrite` is given, or
    where a resumed run differs from the stored one.
    """
    store = RunStore(config.run_dir())
    if store.exists() and not (resume or overwrite):
        raise InputError(
            f"{store.location}: exists already; finish it with --resume, replace it with "
            "--overwrite, or give another --out"
        )
    instructions = load_corpus(config.corpus, limit=config.limit)
    options = engine_options(config)
    space, prompts = plan_prompts(config, options, instructions)
    _demand_space(config, store, space, len(prompts))
    manifest = {
        "status": "running",
        "config": config.to_json(),
        "model": {"path": options.model, "weights": weights_fingerprint(options.model)},
        "corpus": {"instructions": len(prompts), "hash": corpus_hash(prompts)},
        "sites": space.to_json(),
        "selection": asdict(config.selection()),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    parts = -(-len(prompts) // config.part_size)
    if resume and store.is_run():
        _check_same(store, manifest)
    else:
        if overwrite:
            store.delete()
        store.write_corpus(instructions, prompts, config.part_size)
        store.write_manifest(manifest)
    work = Work(store.location, config.engine, options, config.selection(), config.retain)
    todo = sorted(set(range(parts)) - store.done_parts())
    return Plan(config, store, manifest, work, todo, len(prompts))


def _demand_space(
    config: RunConfig, store: RunStore, space: ComponentSpace, instructions: int
) -> None:
    """Raise InputError where the disk of a local run directory cannot hold the run.

    Sets take one bit a component, counts about one byte once compressed (docs/storage.md).
    """
    components = space.neurons + space.experts
    per_instruction = components // 8 + (components if config.retain == "counts" else 0) + 4096
    needed, free = instructions * per_instruction, store.free_bytes()
    if free is not None and free < needed:
        raise InputError(
            f"{store.location}: the run needs about {needed >> 20} MB, {free >> 20} MB are free; "
            "free some, give another --out, or keep less with --retain sets"
        )


@dataclass(frozen=True)
class Plan:
    """A run that is laid out and ready to count. todo: the parts that are not done."""

    config: RunConfig
    store: RunStore
    manifest: dict[str, Any]
    work: Work
    todo: list[int]
    instructions: int


# Keys of a config that change nothing that is stored.
_FREE_KEYS = {"actors", "cpus", "gpus", "ray_address", "out", "slots", "verify", "model", "corpus"}


def _check_same(store: RunStore, new: dict[str, Any]) -> None:
    """Raise InputError, naming what differs, where a resumed run is not the stored one."""
    old = store.manifest()
    changed = [
        f"{key} ({old['config'].get(key)!r} -> {value!r})"
        for key, value in new["config"].items()
        if key not in _FREE_KEYS and old["config"].get(key) != value
    ]
    if old["model"]["weights"] != new["model"]["weights"]:
        changed.append("the model's weights")
    if old["corpus"] != new["corpus"]:
        changed.append("the corpus or its tokens")
    if changed:
        raise InputError(
            f"{store.location}: cannot be resumed, since this has changed: {'; '.join(changed)}; "
            "give the old values, or start anew with --overwrite or another --out"
        )


# -- count ----------------------------------------------------------------------------------------


def count_part(engine: Engine, prompts: Sequence[Prompt]) -> tuple[Counted | None, list[Failure]]:
    """Counts of one part, in its order, and the instructions that the model fails on.

    A group that fails is bisected until the instruction is named, tried once more alone, and set
    aside. Counts do not depend on the grouping (engines/packing.py), so the others lose nothing.
    """
    done: dict[str, tuple[Counted, int]] = {}
    failures: list[Failure] = []
    groups: list[list[Prompt]] = [list(prompts)]
    tried: set[str] = set()
    while groups:
        group = groups.pop()
        try:
            for counted in engine.count(group):
                done.update({name: (counted, row) for row, name in enumerate(counted.ids)})
        except PromptError as error:
            suspects = [p for p in group if p.id in error.ids]
            others = [p for p in group if p.id not in error.ids and p.id not in done]
            if others:
                groups.append(others)
            if len(suspects) > 1:
                middle = len(suspects) // 2
                groups += [suspects[:middle], suspects[middle:]]
            elif suspects[0].id in tried:
                failures.append(Failure(suspects[0].id, error.reason))
            else:
                tried.add(suspects[0].id)
                groups.append(suspects)
    kept = [done[p.id] for p in prompts if p.id in done]
    if not kept:
        return None, failures
    one_row = [
        Counted(
            (c.ids[row],),
            c.tokens[row : row + 1],
            c.neurons[row : row + 1],
            c.experts[row : row + 1],
        )
        for c, row in kept
    ]
    return concat_counted(one_row), failures


class CountActor:
    """A Ray Data actor: holds one engine, turns part numbers into stored parts."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._store = RunStore(work.location)
        self._engine = load_engine(work.engine, work.options)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(self.run(int(row["part"])))

    def run(self, part: int) -> PartResult:
        """Count, identify and store one part."""
        started = time.perf_counter()
        prompts = self._store.read_prompts(part)
        counted, failures = count_part(self._engine, prompts)
        if counted is None:
            raise SparcomError(
                f"part {part}: the model failed on all {len(prompts)} instructions; the first: "
                f"{failures[0].id}: {failures[0].reason}"
            )
        sets = identify(counted, self._engine.space, self._work.selection)
        kept = counted if self._work.retain == "counts" else None
        self._store.write_part(part, kept, sets, failures)
        return PartResult(
            part=part,
            instructions=len(counted.ids),
            tokens=sum(len(p.token_ids) for p in prompts),
            failed=len(failures),
            seconds=time.perf_counter() - started,
            engine=asdict(self._engine.info),
        )


# -- run ------------------------------------------------------------------------------------------


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """A Ray to run on: the cluster that the config names, or a local one that ends with the block.

    The local one listens on loopback only and has no dashboard.
    """
    _quiet_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if config.ray_address:
        options["address"] = config.ray_address
    else:
        options |= {
            # One logical CPU more than the actors take: Ray Data has small tasks of its own.
            "num_cpus": config.actors * cpus_per_actor(config) + 1,
            "include_dashboard": False,
            "object_store_memory": 256 << 20,
            "_node_ip_address": "127.0.0.1",
        }
    with _hushed_stderr():
        ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def _quiet_ray() -> None:
    """Keep Ray's own remarks out of our output; its errors still come as exceptions."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


@contextmanager
def _hushed_stderr() -> Iterator[None]:
    """Send file descriptor 2 nowhere: Ray's C++ part announces its own log level there."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def count_parts(plan: Plan) -> Iterator[PartResult]:
    """Map the parts that are not done over a pool of actors; yields as they finish."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    config = plan.config
    dataset = ray.data.from_items(
        [{"part": part} for part in plan.todo], override_num_blocks=len(plan.todo)
    ).map(
        CountActor,
        fn_constructor_args=(plan.work,),
        compute=ray.data.ActorPoolStrategy(size=min(config.actors, len(plan.todo))),
        num_cpus=cpus_per_actor(config),
        num_gpus=config.gpus or None,
    )
    for row in dataset.iter_rows():
        yield PartResult(**row)


def run_count(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, progress: bool = False
) -> RunSummary:
    """Count a corpus on a model and store the run.

    >>> summary = run_count(RunConfig(corpus="hexainst", out="runs/first"))
    """
    from tqdm import tqdm

    started = time.perf_counter()
    plan = prepare(config, resume=resume, overwrite=overwrite)
    total = _prompt_tokens(plan)
    results: list[PartResult] = []
    with tqdm(total=total, unit="tok", desc="count", disable=not progress) as bar:
        if plan.todo:
            with ray_session(config):
                for result in count_parts(plan):
                    results.append(result)
                    bar.update(result.tokens)
    return finish(plan, results, time.perf_counter() - started)


def _prompt_tokens(plan: Plan) -> int:
    tokens = plan.store.corpus(["n_tokens"])["n_tokens"].to_numpy()
    size = plan.config.part_size
    return int(sum(tokens[part * size : (part + 1) * size].sum() for part in plan.todo))


def finish(plan: Plan, results: Sequence[PartResult], seconds: float) -> RunSummary:
    """Mark a run as complete and say what it did."""
    corpus = plan.store.corpus(["n_tokens", "n_counted"])
    failed = plan.store.failures()
    summary = RunSummary(
        location=plan.store.location,
        instructions=plan.instructions - len(failed),
        failed=len(failed),
        tokens=int(corpus["n_counted"].to_numpy().sum()),
        prompt_tokens=sum(r.tokens for r in results),
        seconds=seconds,
        complete=True,
    )
    engine = results[0].engine if results else plan.store.manifest().get("engine", {})
    plan.store.write_manifest(
        {
            **plan.manifest,
            "status": "complete",
            "engine": engine,
            "failed": len(failed),
            "seconds": round(seconds, 3),
            "actor_seconds": round(sum(r.seconds for r in results), 3),
            "tokens": summary.tokens,
            "prompt_tokens": int(corpus["n_tokens"].to_numpy().sum()),
        }
    )
    return summary


def run_identify(
    location: str, changes: dict[str, Any], *, progress: bool = False
) -> dict[str, Any]:
    """Select the sets of a stored run anew from its counts.

    changes: fields of `Selection` that differ from the stored run's.
    Raises InputError where the run did not retain its counts.
    """
    from tqdm import tqdm

    store = RunStore(location)
    manifest = store.manifest()
    if not store.has_counts():
        raise InputError(
            f"{location}: this run retained no counts, so its sets cannot be selected anew; count "
            "again with --retain counts"
        )
    selection = Selection(**{**manifest["selection"], **changes})
    space = ComponentSpace.from_json(manifest["sites"])
    total = 0
    for part, counted in tqdm(store.count_parts(), unit="part", disable=not progress):
        store.write_sets(part, identify(counted, space, selection))
        total += len(counted.ids)
    store.write_manifest({**manifest, "selection": asdict(selection)})
    return {"instructions": total, **asdict(selection)}
