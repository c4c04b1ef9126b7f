"""SPARCOM: which neurons and experts of a language model work for which kind of instruction.

    >>> import sparcom
    >>> model = sparcom.Model("default")
    >>> counts = model.count(["What is 17 * 23?", "Summarise: ..."])  # in memory
    >>> sets = sparcom.select(counts, rule="top:0.01")
    >>> run = sparcom.Run("runs/first")  # what `sparcom run` has stored

`__all__` is the public API. Names are loaded when first used: `import sparcom` alone loads neither
torch nor ray.
"""

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    "AblationOptions": "sparcom.ablation.options",
    "AnalysisOptions": "sparcom.analysis.options",
    "Attribution": "sparcom.attribution.sums",
    "AttributionOptions": "sparcom.attribution.attribute",
    "ComponentSpace": "sparcom.components",
    "CountError": "sparcom.errors",
    "Counts": "sparcom.api.counts",
    "InputError": "sparcom.errors",
    "Instruction": "sparcom.corpus.schema",
    "Model": "sparcom.api.model",
    "Run": "sparcom.store.run",
    "RunConfig": "sparcom.config",
    "Sets": "sparcom.selection.sets",
    "Site": "sparcom.components",
    "SparcomError": "sparcom.errors",
    "Traces": "sparcom.tracing.traces",
    "ablate": "sparcom.ablation.ablate",
    "analyse": "sparcom.analysis.analyse",
    "attribute": "sparcom.attribution.attribute",
    "build_info": "sparcom.native",
    "compare": "sparcom.analysis.tuning.compare",
    "count": "sparcom.pipeline.run",
    "export": "sparcom.exporting",
    "identify": "sparcom.pipeline.identify",
    "lm_eval": "sparcom.api.lm_eval",
    "load_corpus": "sparcom.corpus.opening",
    "load_study": "sparcom.study.config",
    "noise_floor": "sparcom.analysis.tuning.noise_floor",
    "read_components": "sparcom.component_list",
    "run_study": "sparcom.study.run",
    "select": "sparcom.api.counts",
    "trace": "sparcom.tracing.of_run",
    "trajectory": "sparcom.analysis.tuning.trajectory",
    "write_components": "sparcom.component_list",
    "write_report": "sparcom.report.page",
}

if TYPE_CHECKING:
    from sparcom.ablation.ablate import ablate as ablate
    from sparcom.ablation.options import AblationOptions as AblationOptions
    from sparcom.analysis.analyse import analyse as analyse
    from sparcom.analysis.options import AnalysisOptions as AnalysisOptions
    from sparcom.analysis.tuning.compare import compare as compare
    from sparcom.analysis.tuning.noise_floor import noise_floor as noise_floor
    from sparcom.analysis.tuning.trajectory import trajectory as trajectory
    from sparcom.api.counts import Counts as Counts
    from sparcom.api.counts import select as select
    from sparcom.api.lm_eval import lm_eval as lm_eval
    from sparcom.api.model import Model as Model
    from sparcom.attribution.attribute import AttributionOptions as AttributionOptions
    from sparcom.attribution.attribute import attribute as attribute
    from sparcom.attribution.sums import Attribution as Attribution
    from sparcom.component_list import read_components as read_components
    from sparcom.component_list import write_components as write_components
    from sparcom.components import ComponentSpace as ComponentSpace
    from sparcom.components import Site as Site
    from sparcom.config import RunConfig as RunConfig
    from sparcom.corpus.opening import load_corpus as load_corpus
    from sparcom.corpus.schema import Instruction as Instruction
    from sparcom.errors import CountError as CountError
    from sparcom.errors import InputError as InputError
    from sparcom.errors import SparcomError as SparcomError
    from sparcom.exporting import export as export
    from sparcom.native import build_info as build_info
    from sparcom.pipeline.identify import identify as identify
    from sparcom.pipeline.run import count as count
    from sparcom.report.page import write_report as write_report
    from sparcom.selection.sets import Sets as Sets
    from sparcom.store.run import Run as Run
    from sparcom.study.config import load_study as load_study
    from sparcom.study.run import run_study as run_study
    from sparcom.tracing.of_run import trace as trace
    from sparcom.tracing.traces import Traces as Traces

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparcom' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
