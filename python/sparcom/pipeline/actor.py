"""A replica: the Ray actor that holds one engine and turns part numbers into stored parts."""

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import Engine
from sparcom.engines.count_part import Failure, count_part
from sparcom.engines.load import check_sites, load_engine
from sparcom.errors import CountError, InputError, SparcomError
from sparcom.imports import import_without_sklearn, uncollected
from sparcom.pipeline.batch_choice import chooser
from sparcom.pipeline.plan import Work
from sparcom.pipeline.ray.logs import log_to_stderr
from sparcom.pipeline.ray.metrics import Metrics
from sparcom.selection.rules import identify
from sparcom.store import RunStore, part_profile

ERRORS = {error.__name__: error for error in (InputError, CountError, SparcomError)}
_logger = logging.getLogger("sparcom.pipeline")


@dataclass(frozen=True)
class PartResult:
    """What an actor reports of a part.

    tokens: that the model read; seconds: time spent on the part; failed: instructions set aside.
    proof_seconds: what the proof of the engine took, if it was loaded with this part.
    """

    part: int
    instructions: int
    tokens: int
    failed: int
    seconds: float
    engine: dict[str, Any]
    proof_seconds: float = 0.0


@dataclass(frozen=True)
class PartError:
    """An error of ours that stopped a part. kind: one of `ERRORS`."""

    kind: str
    text: str


class CountActor:
    """A Ray actor: holds one engine, turns part numbers into stored parts.

    Our own errors are returned: raised, Ray would wrap them into its own kinds with their text
    lost in a traceback. The engine is loaded with the first part, so that its errors are too.
    `run` may be called from several threads: one counts while another reads or writes.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._store = RunStore(work.location, work.stamps)
        self._metrics = Metrics(work.run_id)
        self._engine: Engine | None = None
        self._turn = threading.Lock()

    def ready(self) -> None:
        """Returns once the actor has its place."""

    def count(self, part: int) -> PartResult | PartError:
        """`run`, with an error of ours returned."""
        log_to_stderr(self._work.run_id)
        try:
            return self.run(part)
        except SparcomError as error:
            _logger.error("part failed", extra={"part": part, "error": str(error)})
            self._metrics.failed(error)
            kind = next(k.__name__ for k in type(error).__mro__ if k.__name__ in ERRORS)
            return PartError(kind, str(error))

    def run(self, part: int) -> PartResult:
        """Count, identify and store one part."""
        started = time.perf_counter()
        _logger.info("part begins", extra={"part": part})
        prompts, labels = self._store.corpus.prompts(part)
        with self._turn:
            loaded_here = self._engine is None
            if self._engine is None:
                self._engine = self._load(prompts)
            engine = self._engine
            counted, failures = count_part(engine, prompts, self._metrics.under_way)
        self._write(part, counted, failures, labels, engine.space)
        result = PartResult(
            part=part,
            instructions=len(counted.ids),
            tokens=sum(len(p.token_ids) for p in prompts),
            failed=len(failures),
            seconds=time.perf_counter() - started,
            engine=asdict(engine.info),
            proof_seconds=engine.proof.seconds if engine.proof and loaded_here else 0.0,
        )
        self._metrics.counted(int(counted.tokens.sum()), len(counted.ids), len(failures))
        _logger.info("part done", extra={k: v for k, v in asdict(result).items() if k != "engine"})
        return result

    def _load(self, prompts: list[Prompt]) -> Engine:
        """The engine, once it is known to count what the run was laid out for."""
        work = self._work
        choose = chooser(self._store, work.measuring, prompts, work.options)
        with uncollected():
            if work.engine == "transformers":
                import_without_sklearn()
            engine = load_engine(work.engine, work.options, work.gpus, choose=choose)
        try:
            check_sites(engine, ComponentSpace.from_json(self._store.manifest()["sites"]))
        except SparcomError:
            engine.close()
            raise
        return engine

    def _write(
        self,
        part: int,
        counted: Counted,
        failures: list[Failure],
        labels: pa.Table,
        space: ComponentSpace,
    ) -> None:
        work = self._work
        sets = identify(counted, space, work.selection)
        profile = None
        if part not in work.covered:
            if failures:
                failed = {f.id for f in failures}
                labels = labels.filter([i not in failed for i in labels["id"].to_pylist()])
            profile = part_profile(counted, sets, work.cells.keys(labels, counted.tokens))
        self._store.results.write(
            part,
            counted if work.retain == "counts" else None,
            None if work.retain == "profile" else sets,
            failures,
        )
        if profile is not None:
            self._store.profiles.write(part, profile)  # last: it ends the part
