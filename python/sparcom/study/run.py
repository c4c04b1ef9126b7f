"""A study from its config to its page: steps that are done already are left as they are."""

import json
import logging
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from sparcom.documents import check_schema, parse_json
from sparcom.errors import InputError, RayDiedError
from sparcom.formatting import shorten
from sparcom.pipeline.ray.logs import log_to_stderr
from sparcom.pipeline.signals import stop_on_sigterm
from sparcom.store import RunLock
from sparcom.store.files import Files
from sparcom.study.config import StudyConfig
from sparcom.study.page import write_study_page
from sparcom.study.steps import Done, Show, Step, check_kept, steps_of

NOTES = "study.json"
_logger = logging.getLogger("sparcom.pipeline.study")
_NOTE = {
    "type": "object",
    "required": ["kind", "key", "identity", "seconds", "failed"],
    "properties": {
        "kind": {"type": "string"}, "key": {"type": "string"}, "identity": {"type": "string"},
        "seconds": {"type": "number", "minimum": 0}, "failed": {"type": "integer", "minimum": 0},
    },
}  # fmt: skip
_SCHEMA = {
    "type": "object",
    "required": ["schema_version", "steps"],
    "properties": {
        "schema_version": {"const": 1},
        "steps": {"type": "object", "additionalProperties": _NOTE},
        "problems": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@dataclass(frozen=True)
class Note:
    """What is kept of a step that was done.

    kind, key: of it. identity: of its result. seconds: what it took. failed: instructions that were
    set aside.
    """

    kind: str
    key: str
    identity: str
    seconds: float
    failed: int


@dataclass(frozen=True)
class StudySummary:
    """What a study did.

    page: None if no model has a result. done, there: names of the steps that were done now, and
    that were there already. problems: step -> why it failed or was left out. set_aside:
    instructions that a model failed on, over all runs.
    """

    location: str
    page: str | None
    done: tuple[str, ...]
    there: tuple[str, ...]
    problems: Mapping[str, str]
    set_aside: int
    seconds: float


@dataclass
class _Session:
    """One start of a study."""

    files: Files
    notes: dict[str, Note]
    show: Show
    said: bool
    done: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        seconds = time.perf_counter() - self.started
        _logger.info("study", extra={"stage": text, "after_s": round(seconds, 2)})
        if self.said:
            print(f"{seconds:7.1f} s  {text}", file=sys.stderr, flush=True)

    def keep(self) -> None:
        """Write the notes."""
        notes = {name: asdict(note) for name, note in self.notes.items()}
        whole = {"schema_version": 1, "steps": notes, "problems": self.problems}
        self.files.write_bytes(NOTES, (json.dumps(whole, indent=1) + "\n").encode())


def run_study(
    study: StudyConfig, *, bars: bool = False, said: bool = False, structured_log: bool = False
) -> StudySummary:
    """Do what is missing of a study, and write its page.

    A step that fails does not stop the others: what rests on it is left out, and `problems` says
    why. bars: show progress bars; said: a line on stderr for each step; structured_log: JSON lines
    (what jobs do). The same call again finishes a study that was stopped.

    >>> run_study(load_study("configs/small.toml")).page

    Raises InputError if another driver works on the study, or its directory holds something else.
    """
    files = Files(study.out)
    with ExitStack() as stack:
        stack.enter_context(stop_on_sigterm())
        log_to_stderr("study", structured=structured_log)
        notes = read_notes(files)
        stack.enter_context(RunLock(files))
        session = _Session(files, notes, Show(bars, structured_log), said)
        steps = steps_of(study)
        for number, step in enumerate(steps):
            _advance(session, steps, number, step)
        session.say("writing the page")
        page = write_study_page(study, files, session.problems)
        session.keep()
    return StudySummary(
        location=files.location,
        page=page,
        done=tuple(session.done),
        there=tuple(session.there),
        problems=session.problems,
        set_aside=sum(notes[step.name].failed for step in steps if step.name in session.made),
        seconds=time.perf_counter() - session.started,
    )


def _advance(session: _Session, steps: Sequence[Step], number: int, step: Step) -> None:
    """Do one step, or leave it as it is, and note what came of it."""
    if missing := [name for name in step.needs if name in session.problems]:
        session.problems[step.name] = f"left out: it needs {missing[0]}"
        return
    key = step.key(session.made)
    note = session.notes.get(step.name)
    if note and note.key == key and not step.recognises and _are_there(step):
        session.made[step.name] = note.identity
        session.there.append(step.name)
        return
    place = f"[{number + 1}/{len(steps)}] {step.name}"
    session.say(f"{place}{_left(session, steps[number:])}")
    started = time.perf_counter()
    try:
        if note is not None:
            check_kept(step, note.key, key)
        result = step.do(session.show)
    except RayDiedError:
        raise  # this process cannot go on with another Ray
    except Exception as error:
        _fail(session, step, error)
        return
    seconds = time.perf_counter() - started
    if not result.again and note is not None:
        seconds = note.seconds
    _note(session, step, key, result, seconds)


def _note(session: _Session, step: Step, key: str, result: Done, seconds: float) -> None:
    identity = result.identity or key
    session.made[step.name] = identity
    (session.done if result.again else session.there).append(step.name)
    session.notes[step.name] = Note(step.kind, key, identity, round(seconds, 3), result.failed)
    if result.failed:
        session.say(f"{step.name}: {result.failed} instructions were set aside")
    session.keep()


def _fail(session: _Session, step: Step, error: Exception) -> None:
    """Note a failure; one that is not ours is a defect, whose traceback is logged."""
    ours = type(error).__module__.startswith("sparcom.")
    text = str(error) if ours else f"{type(error).__name__}: {error}"
    if not ours:
        _logger.error("study: %s failed", step.name, exc_info=error)
    session.problems[step.name] = shorten(text, 480)
    session.say(f"{step.name} failed: {shorten(text, 480)}")
    session.keep()


def _are_there(step: Step) -> bool:
    return all(Files(folder).is_file(name) for folder, name in step.files)


def _left(session: _Session, steps: Sequence[Step]) -> str:
    """How long the steps may take that are left, if that is known."""
    taken: dict[str, list[float]] = {}
    for note in session.notes.values():
        taken.setdefault(note.kind, []).append(note.seconds)
    # What is noted is most likely there still, and costs nothing.
    kinds = [step.kind for step in steps if step is steps[0] or step.name not in session.notes]
    left = time_left(kinds, taken)
    if left is None:
        return ""
    return f" (about {left / 60:.0f} min left)" if left >= 60 else " (less than a minute left)"


def time_left(kinds: Sequence[str], taken: Mapping[str, Sequence[float]]) -> float | None:
    """Seconds that steps of some kinds take, by the median of those of the same kind.

    taken: kind -> seconds of each that was done. None if a kind was never done.

    >>> time_left(["count", "count"], {"count": [10.0, 20.0, 90.0]})
    40.0
    """
    if not all(taken.get(kind) for kind in kinds):
        return None
    return sum(statistics.median(taken[kind]) for kind in kinds)


def read_notes(files: Files) -> dict[str, Note]:
    """What is noted of a study's steps; {} of one that has not begun.

    Raises InputError if the folder holds something else, or its notes are damaged.
    """
    if not files.is_file(NOTES):
        others = sorted(set(files.names()) - {"lock"})
        if others and not set(others) <= {"runs", "models"}:
            raise InputError(
                f"{files.location}: holds {shorten(others[0], 60)} and no {NOTES}, so it is no "
                "study; give another out"
            )
        return {}
    where = f"{files.location}/{NOTES}"
    found: dict[str, Any] = parse_json(files.read_bytes(NOTES), where)
    hint = (
        "it was changed by hand or is damaged; delete it, and every step but the counts is redone"
    )
    check_schema(found, _SCHEMA, where, hint)
    names = Note.__dataclass_fields__
    return {
        name: Note(**{key: note[key] for key in names}) for name, note in found["steps"].items()
    }
