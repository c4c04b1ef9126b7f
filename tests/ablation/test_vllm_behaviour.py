"""In vLLM, eager and compiled, the answers of one category hang on the neurons planted for it."""

import numpy as np
import pytest
from planted_model import PLANTED, corpus_rows, plant
from tiny_runs import save_tiny_llm
from transformers import AutoTokenizer

from sparcom.ablation.behaviour import BehaviourScorer
from sparcom.ablation.how import parse_how
from sparcom.ablation.target import Target
from sparcom.ablation.vllm_ablator import VllmAblator
from sparcom.behaviour.tasks import task_of
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("math_verify", reason="math-verify is not installed")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_score_of_that_category_alone_falls(tmp_path, compiled) -> None:
    # vLLM serves such heads on every processor.
    folder = save_tiny_llm(tmp_path / "model", head_dim=32)
    plant(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = [Instruction(**row) for row in corpus_rows() if row["category"] != "SUM"][:12]
    tasks = {item.id: task_of(item, {}, run_code=False) for item in items}
    prompts = [
        Prompt(item.id, tuple(tokenizer.encode(item.text, add_special_tokens=False)), ())
        for item in items
    ]
    math = np.array([item.category == "MATH" for item in items])
    options = VllmOptions(str(folder), slots=4, threads=1, ablation=True, compile=compiled)
    engine = VllmEngine(options)
    try:
        ablator = VllmAblator(engine)
        half = np.arange(len(items)) // 2 % 2
        scorer = BehaviourScorer(ablator, prompts, half, tasks, tokenizer.decode, 1)
        assert not scorer.loss[math].any()  # the whole model is right
        target = Target("planted", "neurons", np.array(PLANTED))
        lost = []
        for how in parse_how("scale:1,0.5,0"):
            effects = scorer.effects((target, target), how=how)
            assert not effects.loss[~math].any()
            assert not effects.changed[~math].any()
            lost.append(effects.loss[math].mean())
        assert lost[0] == 0
        assert lost == sorted(lost)
        assert lost[2] == 1
    finally:
        engine.close()
