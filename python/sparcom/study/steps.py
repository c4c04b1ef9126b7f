"""The steps of a study: what each needs, what it writes, and how its result is recognised.

    make, tune -> count base, floor, tuned -> compare -> ablate -> report      of each pair
    page                                                                      of all pairs

A step's key is a digest of its settings and of what it was made from; the key is noted when the
step is done. A step whose key is the noted one, and whose files are there, is not done again. Runs
recognise themselves: `count` is always asked, and counts what is missing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparcom.ablation.options import AblationOptions
from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.models import TINY_MOE, tiny_moe_folder, versions, weights_fingerprint
from sparcom.store import Run
from sparcom.study.config import BASE, TUNED, Pair, StudyConfig, other_dtype
from sparcom.testbed.fine_tune import fine_tune


@dataclass(frozen=True)
class Done:
    """What a step has made.

    identity: changes if the result does; empty: the step's key is. failed: instructions that were
    set aside. again: False if all of it was there already.
    """

    identity: str = ""
    failed: int = 0
    again: bool = True


@dataclass(frozen=True, kw_only=True)
class Step:
    """One unit of work.

    name: "PAIR/what". kind: the first word of it, which steps that cost alike share.
    needs: steps whose results it takes. shows: steps whose results it shows if they are there.
    settings: what decides its result besides these, as JSON.
    do: makes the result; raises SparcomError. files: (folder, file) of what must be there.
    recognises: True if `do` knows by itself what is there already, and is always called.
    kept: True if a result of other settings must not be replaced, since runs rest on it.
    """

    name: str
    kind: str
    do: Callable[["Show"], Done]
    needs: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    recognises: bool = False
    kept: bool = False

    def key(self, made_from: Mapping[str, str]) -> str:
        """Digest of the settings and of the identities of what it needs and shows."""
        used = [made_from.get(name) for name in (*self.needs, *self.shows)]
        parts = [self.kind, self.settings, used]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Show:
    """How a step shows what it does. bars: progress bars; structured_log: JSON lines (jobs)."""

    bars: bool = False
    structured_log: bool = False


def steps_of(study: StudyConfig) -> list[Step]:
    """All steps but the page, in the order in which they are done."""
    named: dict[str, Step] = {}  # pairs may share a model that is made
    for pair in study.pairs:
        for step in _steps_of_pair(study, pair):
            named.setdefault(step.name, step)
    return list(named.values())


def _steps_of_pair(study: StudyConfig, pair: Pair) -> list[Step]:
    made = [_make()] if TINY_MOE in (pair.base.model, pair.tuned.model) else []
    ready = tuple(step.name for step in made)
    tune = [_tune(pair, ready)] if pair.tune else []
    base = _count(pair, BASE, pair.base, ready)
    tuned = _count(pair, TUNED, pair.tuned, tuple(step.name for step in (*made, *tune)))
    floor = []
    if study.noise_floor is not None:
        floor = [_count(pair, "floor", other_dtype(pair, study.noise_floor), ready)]
    compared = _compare(study, pair, [base, tuned, *floor])
    out = [*made, *tune, base, *floor, tuned, compared]
    for side, run in ((BASE, base), (TUNED, tuned)):
        ablated = []
        if study.ablate is not None:
            ablated = [_ablate(study.ablate, pair, side, run.name)]
        shown = [*((compared,) if side == TUNED else ()), *ablated]
        out += [*ablated, _report(study, pair, side, run.name, shown)]
    return out


def _make() -> Step:
    """The test bed `tiny-moe`, trained once on this machine."""

    def do(show: Show) -> Done:
        from sparcom.corpus.hexainst.bundled import BUNDLED
        from sparcom.corpus.opening import load_corpus
        from sparcom.testbed.train_moe import train

        folder = tiny_moe_folder()
        if again := not (folder / "config.json").is_file():
            train(load_corpus(BUNDLED), folder, steps=600, seed=0)
        return Done(weights_fingerprint(str(folder)), again=again)

    return Step(name=f"make/{TINY_MOE}", kind="make", do=do, recognises=True)


def _tune(pair: Pair, needs: tuple[str, ...]) -> Step:
    folder, tune = pair.tuned.model, pair.tune
    settings = {**asdict(tune), "model": pair.base.model} if tune else {}

    def do(show: Show) -> Done:
        given = {**asdict(tune), "corpus": tune.corpus or pair.base.corpus} if tune else {}
        fine_tune(pair.base.model, out=folder, **given)
        return Done(weights_fingerprint(folder))

    return Step(
        name=f"{pair.name}/tune", kind="tune", do=do, needs=needs, settings=settings,
        files=((folder, "config.json"),), kept=True,
    )  # fmt: skip


def _count(pair: Pair, what: str, config: RunConfig, needs: tuple[str, ...]) -> Step:
    def do(show: Show) -> Done:
        from sparcom.pipeline.run import count

        summary = count(config, resume=True, progress=show.bars, structured_log=show.structured_log)
        manifest = Run(summary.location).manifest
        return Done(manifest["stamps"]["profiles"], summary.failed, bool(summary.parts))

    return Step(name=f"{pair.name}/count {what}", kind="count", do=do, needs=needs, recognises=True)


def _compare(study: StudyConfig, pair: Pair, runs: Sequence[Step]) -> Step:
    def do(show: Show) -> Done:
        from sparcom.analysis.tuning.compare import compare
        from sparcom.analysis.tuning.noise_floor import noise_floor

        base, tuned = Run(pair.base.run_dir()), Run(pair.tuned.run_dir())
        floor = None
        if study.noise_floor is not None:
            floor = noise_floor(base, Run(other_dtype(pair, study.noise_floor).run_dir()))
        compare(base, tuned, study.analysis, noise_floor=floor)
        return Done()

    return Step(
        name=f"{pair.name}/compare", kind="compare", do=do,
        needs=tuple(run.name for run in runs),
        settings=_settings(study.analysis),
        files=((pair.tuned.run_dir(), "analysis/alteration_summary.parquet"),),
    )  # fmt: skip


def _ablate(options: AblationOptions, pair: Pair, side: str, run: str) -> Step:
    location = pair.sides[side].run_dir()

    def do(show: Show) -> Done:
        from tqdm import tqdm

        from sparcom.ablation.ablate import ablate

        with tqdm(unit="set", disable=not show.bars) as bar:

            def progress(done: int, planned: int) -> None:
                bar.total = planned
                bar.update(done - bar.n)

            ablate(Run(location), options, progress)
        return Done()

    table = "behaviour" if options.behaviour else "ablation"
    return Step(
        name=f"{pair.name}/ablate {side}", kind="ablate", do=do, needs=(run,),
        settings=_settings(options), files=((location, f"analysis/{table}.parquet"),),
    )  # fmt: skip


def _report(study: StudyConfig, pair: Pair, side: str, run: str, shown: Sequence[Step]) -> Step:
    location = pair.sides[side].run_dir()

    def do(show: Show) -> Done:
        from sparcom.report.of_run import write_page

        write_page(location, study.analysis)
        return Done()

    return Step(
        name=f"{pair.name}/report {side}", kind="report", do=do, needs=(run,),
        shows=tuple(step.name for step in shown),
        settings=_settings(study.analysis) | {"examples": pair.sides[side].examples},
        files=((location, "analysis/categories.parquet"), (location, "report.html")),
    )  # fmt: skip


def _settings(options: Any) -> dict[str, Any]:
    """The options of what writes tables, and the version whose tables they are."""
    return {"options": asdict(options), "sparcom": versions()["sparcom"]}


def check_kept(step: Step, noted: str, key: str) -> None:
    """Raise InputError where a result that runs rest on was made with other settings."""
    if step.kept and noted != key:
        folder = Path(step.files[0][0])
        raise InputError(
            f"{folder} was made with other settings (tune) or from another base; give the study "
            "another out, or delete this folder and the runs of its pair"
        )
