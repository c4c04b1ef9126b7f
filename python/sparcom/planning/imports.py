"""What planning imports: seconds of work, which other work can lie beside."""

import importlib
import sys

_NEEDED = ("sparcom.engines.transformers.loading", "sparcom.planning.prompts")


def not_imported() -> bool:
    """True if this process has not imported what planning needs."""
    return "transformers" not in sys.modules


def import_planning() -> None:
    """Import what planning needs, so that a planner finds it imported."""
    for name in _NEEDED:
        importlib.import_module(name)
    transformers = importlib.import_module("transformers")
    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        getattr(transformers, name)  # its modules are lazy: asking for a class imports it
