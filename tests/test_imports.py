"""Imports in less time: nothing is collected meanwhile, and scikit-learn stays out."""

import gc
import subprocess
import sys

import pytest

from sparcom.imports import uncollected

LOADED = """
import sys
from sparcom.imports import import_without_sklearn
import_without_sklearn()
import sparcom.engines.transformers.engine, transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM
assert transformers.utils.is_sklearn_available()
print("sklearn" in sys.modules)
"""


def fail_uncollected() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()  # the outer block has not ended
        raise ZeroDivisionError


def test_collecting_goes_on_after_the_block_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        fail_uncollected()
    assert gc.isenabled()


def test_an_actor_loads_its_engine_without_sklearn() -> None:
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
