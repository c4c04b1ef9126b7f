"""Every causal language model class of transformers is counted right or refused by name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import models
import outcomes
from tiny_configs import LAYERS, VOCABULARY, tiny_config

ROOT = Path(models.__file__).parents[1]


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_the_sweep_says(tmp_path: Path) -> None:
    """In a process of its own: each class is tried in a fork, which threads do not survive."""
    page = models.DOCS.read_text("utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "models.py"), "--page", str(tmp_path / "page")],
        capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    swept = (tmp_path / "page").read_text("utf-8")
    assert "| different |" not in swept
    stale = [new for old, new in zip(rows(page), rows(swept), strict=True) if old != new]
    assert not stale, f"run `python benchmarks/models.py --write`: {stale[:5]}"
    assert swept in page


def rows(page: str, engine: str = "transformers") -> list[str]:
    """The rows of an engine's table, its head first."""
    section = page.split(models.HEADINGS[engine])[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")]


def test_the_table_of_the_docs_names_every_class() -> None:
    page = models.DOCS.read_text("utf-8")
    named = [row.split(" | ")[0].removeprefix("| ") for row in rows(page)[1:]]
    assert named == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert "| different |" not in page


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3", "qwen3_next", "gpt2"])
def test_a_tiny_config_is_tiny(family: str) -> None:
    config = tiny_config(family)
    assert config.vocab_size == VOCABULARY
    assert config.num_hidden_layers == LAYERS
    assert config.hidden_size == 64
    assert len(getattr(config, "layer_types", None) or [0] * LAYERS) == LAYERS


@pytest.mark.parametrize(
    ("family", "result"),
    [("llama", outcomes.PACKED), ("falcon", outcomes.ALONE), ("mamba", outcomes.REFUSED),
     ("musicgen", outcomes.UNBUILT)],
)  # fmt: skip
def test_each_outcome_has_a_name(family: str, result: str) -> None:
    assert outcomes.try_family(family).result == result


def test_a_difference_is_seen(monkeypatch, tmp_path: Path) -> None:
    """With counts that are off by one the sweep says so: it does not believe the proof."""
    outcomes.save_tiny("llama", tmp_path)
    real = outcomes.TransformersEngine.count

    def off(self, prompts):
        for counted in real(self, prompts):
            counted.neurons[:, ::50] += 1
            yield counted

    monkeypatch.setattr(outcomes.TransformersEngine, "count", off)
    outcome = outcomes.compare("llama", "", tmp_path)
    assert outcome.result == outcomes.DIFFERENT
    assert outcome.differ == pytest.approx(0.02, rel=0.1)


def test_a_class_that_crashes_is_an_outcome_of_its_own() -> None:
    code = (
        "import os, models\n"
        "models.try_family = lambda family, engine: os._exit(3)\n"
        "print(models.sweep(['llama'])[0].why)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "the process ended" in done.stdout


def test_the_models_in_use_are_named_with_what_the_tables_say() -> None:
    """The page's third table repeats the other two, class by class."""
    page = models.DOCS.read_text("utf-8")
    of = [
        {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1] for row in rows(page, engine)}
        for engine in models.HEADINGS
    ]
    section = page.split(models.USED_HEADING)[1].split("\n## ")[0]
    table = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in table] == [used.name for used in models.USED]
    for row, used in zip(table, models.USED, strict=True):
        assert row[1] == f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[used.model_type]}`"
        assert (row[2], row[3]) == tuple(results[used.model_type] for results in of)
    assert len(models.USED) == 20
    counted = [sum(row[at] in outcomes.COUNTED for row in table) for at in (2, 3)]
    assert re.findall(r"counts (\d+), and vLLM on a CPU (\d+)\.", section) == [
        (str(counted[0]), str(counted[1]))
    ]
