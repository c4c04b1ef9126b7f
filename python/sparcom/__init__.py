"""SPARCOM: which neurons and experts of a language model work for which kind of instruction.

    >>> import sparcom
    >>> sparcom.run_count(sparcom.RunConfig(corpus="hexainst", limit=5, out="runs/small"))
    >>> run = sparcom.Run("runs/small")

Names are loaded when first used: `import sparcom` alone pulls in neither torch nor ray.
"""

import importlib

_HOMES = {
    "AblationOptions": "sparcom.ablation.ablate",
    "InputError": "sparcom.errors",
    "Run": "sparcom.store",
    "RunConfig": "sparcom.config",
    "SparcomError": "sparcom.errors",
    "ablate": "sparcom.ablation.ablate",
    "analyse": "sparcom.analysis.analyse",
    "build_info": "sparcom.native",
    "compare": "sparcom.analysis.tuning.compare",
    "noise_floor": "sparcom.analysis.tuning.noise_floor",
    "run_count": "sparcom.pipeline",
    "run_identify": "sparcom.pipeline",
    "trajectory": "sparcom.analysis.tuning.trajectory",
    "write_report": "sparcom.report.page",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparcom' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
