"""From a config to a run that is laid out: prompts in corpus.parquet, facts in run.json.

The corpus streams through, a part at a time. What the driver holds of it: while it is read, a
digest of each id, by which one that comes twice is found (docs/scaling.md has the bytes), and the
number of tokens of each part.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.corpus.opening import iter_corpus
from sparcom.corpus.prompts.prompts import Prompt, make_prompts, make_template
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import Instruction
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.models import versions, weights_fingerprint
from sparcom.planning.changes import check_same
from sparcom.planning.engines import context_of, engine_options
from sparcom.selection.rules import Selection
from sparcom.store import CellRule, RunStore, length_edges, writing_corpus
from sparcom.store.check import Bad, Check, bad_files, check_here, drop_bad_files
from sparcom.store.profiles.spans import covered
from sparcom.store.run_store import RESULT_FOLDERS

Part = tuple[list[Instruction], list[Prompt]]


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


class PromptMaker:
    """Makes the prompts of a config, and knows the model's components, without reading a weight."""

    def __init__(self, config: RunConfig, options: EngineOptions) -> None:
        from transformers import AutoTokenizer

        from sparcom.engines.transformers.engine import describe_model, load_config
        from sparcom.models import resolve_model

        def tokenizer_of(model: str) -> Any:
            try:
                return AutoTokenizer.from_pretrained(
                    model, trust_remote_code=config.trust_remote_code
                )
            except (OSError, ValueError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise InputError(
                    f"model {model}: its tokenizer cannot be read: {reason}"
                ) from error

        model_config = load_config(options)
        self.space: ComponentSpace = describe_model(model_config)
        self._config, self._context = config, context_of(options, model_config)
        self._tokenizer = tokenizer_of(options.model)
        _, _, other = config.template.partition("from:")
        donor = tokenizer_of(resolve_model(other)) if other else None
        self._template = make_template(
            config.template, self._tokenizer, config.system, donor, config.bos
        )
        self.skipped = ProblemLog()

    def prompts(self, instructions: Sequence[Instruction]) -> list[Prompt]:
        return make_prompts(
            instructions,
            self._tokenizer,
            template=self._template,
            scope=self._config.scope,
            max_tokens=self._config.max_tokens,
            context=self._context,
            truncate=self._config.truncate,
            generate=self._config.generate,
        )

    def parts(self) -> Iterator[Part]:
        """The corpus of the config, a part at a time."""
        config, part = self._config, []
        self.skipped = log = ProblemLog()
        options = config.reading()
        for item in iter_corpus(config.corpus, None, config.limit, options=options, log=log):
            part.append(item)
            if len(part) == config.part_size:
                yield part, self.prompts(part)
                part = []
        if part:
            yield part, self.prompts(part)


def plan_prompts(
    config: RunConfig, options: EngineOptions, instructions: Sequence[Instruction]
) -> tuple[ComponentSpace, list[Prompt]]:
    """The model's component space and the prompts of instructions, without reading a weight."""
    maker = PromptMaker(config, options)
    return maker.space, maker.prompts(instructions)


class Tally:
    """What a run says of its corpus, gathered while it streams past.

    hash: over ids, token ids and counted ranges: equal ones are the same measurement; labels: over
    ids, categories and sources, by which the profile sums.
    """

    def __init__(self) -> None:
        self.instructions = self._counted = 0
        self.tokens_of_part: list[int] = []
        self._digest, self._labels = hashlib.sha256(), hashlib.sha256()
        self._lengths = np.zeros(1, np.int64)

    def add(self, instructions: Sequence[Instruction], prompts: Sequence[Prompt]) -> None:
        for item in instructions:
            self._labels.update(f"{item.id}\0{item.category}\0{item.source}\n".encode())
        for p in prompts:
            generated = f"\0{p.generate}" if p.generate else ""
            self._digest.update(f"{p.id}\0{p.token_ids}\0{p.counted}{generated}\n".encode())
        lengths = np.array([p.n_counted for p in prompts], np.int64)
        size = max(len(self._lengths), int(lengths.max(initial=0)) + 1)
        self._lengths = np.bincount(lengths, minlength=size) + np.pad(
            self._lengths, (0, size - len(self._lengths))
        )
        self.tokens_of_part.append(sum(len(p.token_ids) for p in prompts))
        self._counted += int(lengths.sum())
        self.instructions += len(prompts)

    def facts(self) -> dict[str, Any]:
        return {
            "instructions": self.instructions,
            "hash": self._digest.hexdigest(),
            "labels": self._labels.hexdigest(),
            "prompt_tokens": sum(self.tokens_of_part),
            "counted_tokens": self._counted,
        }

    def cells(self) -> CellRule:
        return CellRule(length_edges(self._lengths))


def prepare(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, check: Check = check_here
) -> Plan:
    """Check everything that can be checked before counting, and lay the run directory out.

    check: reads the files of a run that is resumed.
    Raises InputError where the directory exists and neither `resume` nor `overwrite` is given, or
    where a resumed run differs from the stored one.
    """
    store = RunStore(config.run_dir())
    check_location(store, resume=resume, overwrite=overwrite)
    resumed = resume and store.is_run()
    if resumed and config.cpus is None:  # other threads would round differently
        config = replace(config, cpus=store.manifest().get("threads"))
    options = engine_options(config)
    maker = PromptMaker(config, options)
    tally = Tally()
    if resumed:
        for part in maker.parts():
            tally.add(*part)
        manifest = _manifest(config, options, maker.space, tally)
        check_same(store.location, store.manifest(), manifest)
        manifest = {**store.manifest(), **manifest, "created": store.manifest()["created"]}
    else:
        if store.is_abandoned():
            store.files.sweep(())
        with writing_corpus(store.files) as writer:
            for instructions, prompts in maker.parts():
                writer.add(instructions, prompts)
                tally.add(instructions, prompts)
            _check_space(config, store, maker.space, tally.instructions)
            manifest = _manifest(config, options, maker.space, tally)
            manifest["skipped_rows"] = {
                "count": maker.skipped.count,
                "first": [str(problem) for problem in maker.skipped.kept],
            }
            if overwrite and store.is_run():
                store.delete()
        store.write_manifest(manifest)
    return _plan(config, options, manifest, tally.tokens_of_part, check if resumed else None)


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
    options: EngineOptions,
    manifest: dict[str, Any],
    tokens_of_part: Sequence[int],
    check: Check | None,
) -> Plan:
    stamps = stamps_of(manifest)
    store = RunStore(config.run_dir(), stamps)
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
        stamps=stamps,
        covered=frozenset(todo) & covered(store.spans()),
        run_id=manifest["run"],
        gpus=config.gpus,
    )
    tokens = sum(tokens_of_part[part] for part in todo)
    said = tuple(problem for _, problem in bad)
    return Plan(config, store, manifest, work, todo, len(planned), tokens, said)


def _manifest(
    config: RunConfig, options: EngineOptions, space: ComponentSpace, tally: Tally
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "status": "running",
        "config": config.to_json(),
        "model": {"path": options.model, "weights": weights_fingerprint(options.model)},
        "corpus": tally.facts(),
        "cells": tally.cells().to_json(),
        "sites": space.to_json(),
        "selection": asdict(config.selection()),
        "threads": options.threads,
        "versions": {n: v for n, v in versions().items() if n in ("torch", "transformers")},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {**facts, "run": stamps_of(facts)["sets"][:12]}


def stamps_of(manifest: dict[str, Any]) -> dict[str, str]:
    """folder -> fingerprint of what decides the bits of its files."""
    measured = [
        manifest["model"]["weights"], manifest["corpus"], manifest["cells"], manifest["sites"],
        {k: manifest["config"].get(k)
         for k in ("dtype", "threshold", "signal", "engine", "batch_tokens", "part_size",
                   "temperature", "seed")},
    ]  # fmt: skip
    counts = _sha256(measured)
    sets = _sha256([counts, manifest["selection"]])
    return {"counts": counts, "failed": counts, "sets": sets, "profiles": sets}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check_space(
    config: RunConfig, store: RunStore, space: ComponentSpace, instructions: int
) -> None:
    """Raise InputError where the disk of a local run directory cannot hold the run.

    Sets take one bit a component, counts about one byte once compressed (docs/storage.md).
    """
    components = space.neurons + space.experts
    each = {"counts": components // 8 + components, "sets": components // 8, "profile": 0}
    needed, free = instructions * (each[config.retain] + 4096), store.files.free_bytes()
    if free is not None and free < needed:
        raise InputError(
            f"{store.location}: the run needs about {needed >> 20} MB, {free >> 20} MB are free; "
            "free some, give another --out, or keep less with --retain sets or profile"
        )
