"""From a config to a run that is laid out: prompts in corpus.parquet, facts in run.json.

The corpus streams through, a part at a time. What the driver holds of it: while it is read, a
digest of each id, by which one that comes twice is found (scaling.md has the bytes), and the
number of tokens of each part.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import DEFAULT_BATCH_TOKENS, RunConfig, keys, stored
from sparcom.corpus.prompts.date import today
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.pipeline.batch_choice import (
    AUTO,
    Measuring,
    chosen_before,
    with_choice,
    with_number,
    with_stored_choice,
)
from sparcom.planning.changes import check_same
from sparcom.planning.corpus_digest import inputs_of, judge_corpus
from sparcom.planning.manifest import (
    Tally,
    make_manifest,
    measuring_facts,
    require_stamps,
    stamped,
)
from sparcom.planning.options import engine_options
from sparcom.planning.part_size import default_part_size
from sparcom.planning.prompts import PromptMaker
from sparcom.planning.sizes import stored_bytes
from sparcom.selection.rules import LIFT_HINT, Selection
from sparcom.store import CellRule, RunStore, writing_corpus
from sparcom.store.check import Bad, Check, bad_files, check_here, drop_bad_files
from sparcom.store.profiles.spans import covered
from sparcom.store.run_store import RESULT_FOLDERS

Begin = Callable[[str], object]
"""What is told the name of each stage as it begins."""
MakePrompts = Callable[[], PromptMaker]


def _nothing(*_: str) -> None:
    pass


def _alone(make: MakePrompts) -> PromptMaker:
    return make()


@dataclass(frozen=True)
class Work:
    """What an actor needs to know: small, plain and picklable.

    stamps: what result files are stamped with (`RunStore`).
    covered: parts to be counted whose profile is stored already, inside a merged one.
    measuring: how the rows of a pass are chosen; None: they are those of the options.
    """

    location: str
    engine: str
    options: EngineOptions
    selection: Selection
    retain: str
    cells: CellRule
    stamps: dict[str, str]
    covered: frozenset[int] = frozenset()
    run_id: str = ""
    gpus: float = 0.0
    measuring: Measuring | None = None


@dataclass(frozen=True)
class Plan:
    """A run that is laid out and ready to count.

    todo: the parts that are not done, of `parts`; prompt_tokens and left: their tokens and
    instructions; bad: what was wrong with stored files.
    """

    config: RunConfig
    store: RunStore
    manifest: dict[str, Any]
    work: Work
    todo: list[int]
    parts: int
    prompt_tokens: int
    left: int
    bad: tuple[str, ...] = ()

    @property
    def instructions(self) -> int:
        return self.manifest["corpus"]["instructions"]


def prepare(
    config: RunConfig,
    store: RunStore | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    whole: bool = False,
    check: Check = check_here,
    begin: Begin = _nothing,
    beside: Callable[[MakePrompts], PromptMaker] = _alone,
) -> Plan:
    """Check everything that can be checked before counting, and lay the run directory out.

    The corpus is read and judged first, before torch is imported.
    store: of the run directory, if it is open already. whole: read the stored files of a run that
    is resumed to their end, and not their footers alone; check: does that. begin: is told which
    stage begins. beside: calls what looks at the model and the tokenizer, beside other work, once
    what can be refused without them has passed.
    Raises InputError if the directory exists and neither `resume` nor `overwrite` is given, if a
    resumed run differs from the stored one, or if the rule is lift.
    """
    if config.selection().lifts:
        raise InputError(
            f"rule {config.rule} ranks neurons over a baseline, which is known once all "
            f"instructions are counted; {LIFT_HINT}"
        )
    store = store or RunStore(config.run_dir())
    check_location(store, resume=resume, overwrite=overwrite)
    before = store.manifest() if resume and store.is_run() else None
    if before is None:
        config = _dated(config)
    else:
        require_stamps(store.location, before)
        before = with_stored_choice(store, before)
        config = with_number(_as_stored(config, before), before)
    begin("reading the corpus")
    texts, instructions = judge_corpus(config)
    options = _options(config)
    if before is None:
        maker = beside(partial(PromptMaker, config, options))
        config = _with_part_size(config, maker.space, instructions)
        begin("planning: the prompts' tokens")
        _check_signs(config, maker.space)
        manifest, tokens = _lay_out(config, store, options, maker, texts, overwrite=overwrite)
        store.bind(manifest["stamps"])
        return _plan(with_number(config, manifest), store, options, manifest, tokens)
    inputs = inputs_of(config, options.model, texts)
    begin("comparing with what is stored")
    if _same_tokens(config, before, inputs):
        manifest = _recognised(config, store, options, before)
    else:
        manifest = _read_again(config, store, options, before, inputs)
    store.bind(manifest["stamps"])
    planned = set(range(store.corpus.parts()))
    bad = _drop_bad(config, store, planned, whole=whole, check=check)
    todo = planned - store.done_parts(config.retain)
    tokens = store.corpus.tokens_of_parts(todo)
    said = tuple(problem for _, problem in bad)
    return replace(_plan(config, store, options, manifest, tokens), bad=said)


def _lay_out(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    maker: PromptMaker,
    texts: str,
    *,
    overwrite: bool,
) -> tuple[dict[str, Any], dict[int, int]]:
    """Write corpus.parquet and run.json; returns the manifest and the tokens of each part."""
    if store.is_abandoned():
        store.files.sweep(())
    tally = Tally()
    with writing_corpus(store.files) as writer:
        for instructions, prompts in maker.parts(config.part_size):
            writer.add(instructions, prompts)
            tally.add(instructions, prompts)
        _check_space(config, store, maker.space, tally.instructions)
        manifest = make_manifest(config, options, maker.space, maker.layers, tally)
        if config.batch_tokens == AUTO:
            chosen = chosen_before(sum(tally.tokens_of_part), config.actors)
            manifest = with_choice(manifest, chosen)
        manifest["inputs"] = inputs_of(config, options.model, texts)
        writer.stamp(manifest["stamps"]["corpus"])
        manifest["skipped_rows"] = {
            "count": maker.skipped.count,
            "first": [str(problem) for problem in maker.skipped.kept],
        }
        if overwrite and store.is_run():
            store.delete()
    store.write_manifest(manifest)
    return manifest, dict(enumerate(tally.tokens_of_part))


def _same_tokens(config: RunConfig, before: dict[str, Any], inputs: dict[str, str]) -> bool:
    """True if the tokens of a stored run are known to be those that the config would make now."""
    # What code of a model's own does is not known from its files.
    if before.get("inputs") != inputs or config.trust_remote_code:
        return False
    old, new = stored(before["config"]), config.to_json()
    return all(key in old and old[key] == new[key] for key in keys(affects="prompts"))


def _recognised(
    config: RunConfig, store: RunStore, options: EngineOptions, before: dict[str, Any]
) -> dict[str, Any]:
    """The manifest of a stored run whose texts and tokenizer are the same; no token is made.

    Raises InputError, naming what differs, if the config, the weights or a version is another one.
    """
    now = {**before, **measuring_facts(config, options)}
    check_same(store.location, before, now)
    return {**now, **stamped(now)}


def _read_again(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    before: dict[str, Any],
    inputs: dict[str, str],
) -> dict[str, Any]:
    """The manifest of a stored run whose corpus is tokenized again; raises as `_recognised`."""
    tally, maker = Tally(), PromptMaker(config, options)
    for part in maker.parts(config.part_size):
        tally.add(*part)
    manifest = make_manifest(config, options, maker.space, maker.layers, tally)
    check_same(store.location, before, manifest)
    now = {**before, **manifest, "created": before["created"], "inputs": inputs}
    return {**now, **stamped(now)}


def _options(config: RunConfig) -> EngineOptions:
    """How actors load the model; measuring begins at the default size."""
    measured = config.batch_tokens == AUTO
    return engine_options(
        replace(config, batch_tokens=DEFAULT_BATCH_TOKENS) if measured else config
    )


def _as_stored(config: RunConfig, manifest: dict[str, Any]) -> RunConfig:
    """The config with what a resumed run fixed when it was created, unless it is given now."""
    # Other threads would round differently, and another day is another prompt in some templates.
    fixed = manifest["config"]
    return replace(
        config,
        cpus=config.cpus or manifest["threads"],
        date=config.date or fixed.get("date"),
        part_size=config.part_size or fixed["part_size"],
    )


def _with_part_size(config: RunConfig, space: ComponentSpace, instructions: int) -> RunConfig:
    """The config with the size of its parts, unless it names one."""
    default = default_part_size(instructions, space, config.actors, signs=config.signs)
    return replace(config, part_size=config.part_size or default)


def _dated(config: RunConfig) -> RunConfig:
    """The config with the day on which its run is created, unless it names one."""
    return replace(config, date=config.date or today())


def check_location(store: RunStore, *, resume: bool, overwrite: bool) -> None:
    """Raise InputError where something lies in the run directory that must not be touched."""
    if not store.exists():
        return
    if not (resume or overwrite):
        raise InputError(
            f"{store.location}: exists already; finish it with --resume, replace it with "
            "--overwrite, or give another --out"
        )
    if not (store.is_run() or store.is_abandoned()):
        raise InputError(
            f"{store.location}: not a run (no run.json), so it is neither resumed nor overwritten; "
            "give another --out, or remove it yourself"
        )


def _drop_bad(
    config: RunConfig, store: RunStore, planned: set[int], *, whole: bool, check: Check
) -> list[Bad]:
    """Delete the stored files of a run that cannot be used; returns which, and why."""
    store.files.sweep(RESULT_FOLDERS)
    bad = bad_files(store, whole=whole, check=check)
    if bad or planned - store.done_parts(config.retain):
        # Before anything goes: a driver that is killed must not leave a complete run.
        store.write_manifest({**store.manifest(), "status": "running"})
    drop_bad_files(store, bad)
    return bad


def _plan(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    manifest: dict[str, Any],
    tokens_of_part: Mapping[int, int],
) -> Plan:
    """tokens_of_part: of the parts that are to be counted."""
    todo = sorted(tokens_of_part)
    work = Work(
        location=store.location,
        engine=config.engine,
        options=options,
        selection=config.selection(),
        retain=config.retain,
        cells=CellRule.from_json(manifest["cells"]),
        stamps=manifest["stamps"],
        covered=frozenset(todo) & covered(store.profiles.spans()),
        run_id=manifest["run"],
        gpus=config.gpus,
        measuring=_measuring(config, manifest, todo),
    )
    rows = store.corpus.rows_of_parts()
    tokens, left = sum(tokens_of_part.values()), sum(rows[part] for part in todo)
    return Plan(config, store, manifest, work, todo, len(rows), tokens, left)


def _measuring(config: RunConfig, manifest: dict[str, Any], todo: list[int]) -> Measuring | None:
    if config.batch_tokens != AUTO or not todo:
        return None
    tokens = manifest["corpus"]["prompt_tokens"] // config.actors
    return Measuring(tokens, key=f"sparcom-{manifest['run']}-{uuid.uuid4().hex}")


def _check_signs(config: RunConfig, space: ComponentSpace) -> None:
    """Raise InputError if signs are wanted of an FFN that has no up projection."""
    ungated = [site.name for site in space.sites if not site.gated]
    if config.signs and ungated:
        raise InputError(
            f"--signs: {ungated[0]} has no up projection, so that only its gate has a sign; leave "
            "--signs out"
        )


def _check_space(
    config: RunConfig, store: RunStore, space: ComponentSpace, instructions: int
) -> None:
    """Raise InputError where the disk of a local run directory cannot hold the run."""
    needed = instructions * stored_bytes(space, config.retain, config.signs)
    free = store.files.free_bytes()
    if free is not None and free < needed:
        raise InputError(
            f"{store.location}: the run needs about {needed >> 20} MB, {free >> 20} MB are free; "
            "free some, give another --out, or keep less with --retain sets or profile"
        )
