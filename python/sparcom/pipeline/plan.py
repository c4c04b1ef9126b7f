"""From a config to a run that is laid out: prompts in corpus.parquet, facts in run.json.

The corpus streams through, a part at a time. What the driver holds of it: while it is read, a
digest of each id, by which one that comes twice is found (scaling.md has the bytes), and the
number of tokens of each part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.corpus.prompts.date import today
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.planning.changes import check_same
from sparcom.planning.manifest import Tally, make_manifest, require_stamps
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker
from sparcom.planning.sizes import stored_bytes
from sparcom.selection.rules import LIFT_HINT, Selection
from sparcom.store import CellRule, RunStore, writing_corpus
from sparcom.store.check import Bad, Check, bad_files, check_here, drop_bad_files
from sparcom.store.profiles.spans import covered
from sparcom.store.run_store import RESULT_FOLDERS


@dataclass(frozen=True)
class Work:
    """What an actor needs to know: small, plain and picklable.

    stamps: what result files are stamped with (`RunStore`).
    covered: parts to be counted whose profile is stored already, inside a merged one.
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


@dataclass(frozen=True)
class Plan:
    """A run that is laid out and ready to count.

    todo: the parts that are not done, of `parts`; prompt_tokens: theirs; bad: what was wrong with
    stored files.
    """

    config: RunConfig
    store: RunStore
    manifest: dict[str, Any]
    work: Work
    todo: list[int]
    parts: int
    prompt_tokens: int
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
    check: Check = check_here,
) -> Plan:
    """Check everything that can be checked before counting, and lay the run directory out.

    store: of the run directory, if it is open already. check: reads the files of a run that is
    resumed.
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
        config = _as_stored(config, before)
    options = engine_options(config)
    maker = PromptMaker(config, options)
    if before is None:
        manifest, tokens = _lay_out(config, store, options, maker, overwrite=overwrite)
    else:
        manifest, tokens = _read_again(config, store, options, maker, before)
    store.bind(manifest["stamps"])
    return _plan(config, store, options, manifest, tokens, None if before is None else check)


def _lay_out(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    maker: PromptMaker,
    *,
    overwrite: bool,
) -> tuple[dict[str, Any], list[int]]:
    """Write corpus.parquet and run.json; returns the manifest and the tokens of each part."""
    if store.is_abandoned():
        store.files.sweep(())
    tally = Tally()
    with writing_corpus(store.files) as writer:
        for instructions, prompts in maker.parts():
            writer.add(instructions, prompts)
            tally.add(instructions, prompts)
        _check_space(config, store, maker.space, tally.instructions)
        manifest = make_manifest(config, options, maker.space, tally)
        writer.stamp(manifest["stamps"]["corpus"])
        manifest["skipped_rows"] = {
            "count": maker.skipped.count,
            "first": [str(problem) for problem in maker.skipped.kept],
        }
        if overwrite and store.is_run():
            store.delete()
    store.write_manifest(manifest)
    return manifest, tally.tokens_of_part


def _read_again(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    maker: PromptMaker,
    before: dict[str, Any],
) -> tuple[dict[str, Any], list[int]]:
    """Check that the corpus and the config of a stored run are the same; as `_lay_out` returns."""
    tally = Tally()
    for part in maker.parts():
        tally.add(*part)
    manifest = make_manifest(config, options, maker.space, tally)
    check_same(store.location, before, manifest)
    return {**before, **manifest, "created": before["created"]}, tally.tokens_of_part


def _as_stored(config: RunConfig, manifest: dict[str, Any]) -> RunConfig:
    """The config with what a resumed run fixed when it was created, unless it is given now."""
    # Other threads would round differently, and another day is another prompt in some templates.
    date = manifest["config"].get("date")
    return replace(config, cpus=config.cpus or manifest["threads"], date=config.date or date)


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


def _plan(
    config: RunConfig,
    store: RunStore,
    options: EngineOptions,
    manifest: dict[str, Any],
    tokens_of_part: Sequence[int],
    check: Check | None,
) -> Plan:
    planned = set(range(len(tokens_of_part)))
    bad: list[Bad] = []
    if check:
        store.files.sweep(RESULT_FOLDERS)
        bad = bad_files(store, check)
        if bad or planned - store.done_parts(config.retain):
            # Before anything goes: a driver that is killed must not leave a complete run.
            store.write_manifest({**store.manifest(), "status": "running"})
        drop_bad_files(store, bad)
    todo = sorted(planned - store.done_parts(config.retain))
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
    )
    tokens = sum(tokens_of_part[part] for part in todo)
    said = tuple(problem for _, problem in bad)
    return Plan(config, store, manifest, work, todo, len(planned), tokens, said)


def _check_space(
    config: RunConfig, store: RunStore, space: ComponentSpace, instructions: int
) -> None:
    """Raise InputError where the disk of a local run directory cannot hold the run."""
    needed = instructions * stored_bytes(space, config.retain)
    free = store.files.free_bytes()
    if free is not None and free < needed:
        raise InputError(
            f"{store.location}: the run needs about {needed >> 20} MB, {free >> 20} MB are free; "
            "free some, give another --out, or keep less with --retain sets or profile"
        )
