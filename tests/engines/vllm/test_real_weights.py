"""A trained model on both engines: equal counts in fp32."""

import pytest
from vllm_tools import by_id, share_of_differing_cells

from sparcom.config import RunConfig
from sparcom.corpus.opening import load_corpus
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.models import resolve_model
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prompts():
    """Instructions from all over the corpus, all of their prompts counted."""
    config = RunConfig(model="default", corpus="hexainst", scope="prompt")
    maker = PromptMaker(config, engine_options(config))
    planned = maker.prompts(load_corpus(config.corpus))
    return [p for p in planned if len(p.token_ids) <= 200][::37]


def count(kind: type, dtype: str, prompts) -> dict:
    options = EngineOptions(resolve_model("default"), dtype=dtype, device="cpu", slots=32)
    engine = kind(VllmOptions.of(options) if kind is VllmEngine else options)
    try:
        return by_id(engine.count(prompts))
    finally:
        engine.close()


def test_counts_in_fp32_equal_the_transformers_engine(prompts, record_property):
    """Equal, or off by one where a gate is within rounding of zero."""
    ours, theirs = (count(kind, "float32", prompts) for kind in (VllmEngine, TransformersEngine))
    share = share_of_differing_cells(ours, theirs)
    record_property("share_of_cells_off_by_one", share)
    assert share <= 1e-4
