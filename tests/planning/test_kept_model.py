"""What planning keeps of a model: the prompts and facts that transformers gives, without torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus
from transformers import AutoTokenizer

from sparcom.config import RunConfig
from sparcom.corpus.opening import open_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.kept_tokenizer import KeptTokenizer, keep_tokenizer, kept_tokenizer
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.engines.transformers import loading
from sparcom.errors import InputError
from sparcom.models import default_model
from sparcom.planning import kept_model
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker

ROWS = records(12)
LONG_AGO = 1_600_000_000


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny model that was written long ago, and an empty cache."""
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path / "cache"))
    folder = save_tiny_llm(tmp_path / "model")
    age(folder)
    write_corpus(tmp_path / "corpus.jsonl", ROWS)
    return folder


def age(folder: Path) -> None:
    """Make files old: what was written a moment ago is not relied on."""
    for file in folder.iterdir():
        os.utime(file, (LONG_AGO, LONG_AGO))


def config_of(model: Path, **changes: object) -> RunConfig:
    return RunConfig(
        model=str(model), corpus=str(model.parent / "corpus.jsonl"), cpus=1,
        out=str(model.parent / "run"), **changes,
    )  # fmt: skip


def maker_of(config: RunConfig) -> PromptMaker:
    return PromptMaker(config, engine_options(config))


def prompts_of(maker: PromptMaker) -> list:
    return [prompt for _, prompts in maker.parts(8) for prompt in prompts]


def judged(config: RunConfig, **options: object) -> list:
    """The prompts of a corpus by the tokenizer as transformers loads it."""
    tokenizer = AutoTokenizer.from_pretrained(engine_options(config).model)
    items = list(open_corpus(config.corpus, config.reading()))
    template = make_template(config.template, tokenizer, system=config.system)
    return make_prompts(items, tokenizer, template=template, scope=config.scope, **options)


def test_the_second_planning_is_the_first_without_torch(model: Path, tmp_path: Path) -> None:
    plan = (
        "import sys\n"
        "from sparcom.config import RunConfig\n"
        "from sparcom.pipeline.plan import prepare\n"
        f"config = RunConfig(model={str(model)!r}, corpus={str(tmp_path / 'corpus.jsonl')!r},"
        " cpus=1, out=sys.argv[1], date='2026-01-01')\n"
        "prepare(config)\n"
        "print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))\n"
    )

    def planned(out: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", plan, str(tmp_path / out)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert planned("first") == "['sklearn', 'torch', 'transformers']"
    assert planned("second") == "[]"
    first, second = (
        json.loads((tmp_path / out / "run.json").read_text()) for out in ("first", "second")
    )
    for manifest in (first, second):
        for key in ("created", "checksum", "config"):  # the time, and the folder's name
            del manifest[key]
    assert first == second
    corpora = [(tmp_path / out / "corpus.parquet").read_bytes() for out in ("first", "second")]
    assert corpora[0] == corpora[1]


@pytest.mark.parametrize("scope", ["instruction", "prompt"])
@pytest.mark.parametrize("template", ["model", "plain", "raw"])
def test_kept_prompts_are_those_of_transformers(model: Path, scope: str, template: str) -> None:
    config = config_of(model, scope=scope, template=template)
    expected = judged(config)
    assert prompts_of(maker_of(config)) == expected
    kept = maker_of(config)
    assert isinstance(kept._tokenizer, KeptTokenizer)
    assert prompts_of(kept) == expected
    facts, context = kept_model.read_model(engine_options(config))
    real = loading.read_model(engine_options(config))
    assert facts == real
    assert context == loading.context_of(real.config)


def test_the_default_model_reads_the_bundled_corpus_as_transformers_does() -> None:
    config = RunConfig(limit=10)
    tokenizer = AutoTokenizer.from_pretrained(default_model())
    text = keep_tokenizer(tokenizer)
    assert text is not None
    items = list(open_corpus(config.corpus, config.reading()))
    assert len(items) == 60

    def made(one: object) -> list:
        return make_prompts(items, one, template=make_template("model", one), scope="prompt")

    assert made(kept_tokenizer(text)) == made(tokenizer)


def test_what_needs_the_whole_tokenizer_loads_it(model: Path) -> None:
    config = config_of(model)
    prompts_of(maker_of(config))
    kept, (item, *_) = maker_of(config), open_corpus(config.corpus, config.reading())
    (prompt,) = kept.prompts([item])
    tokens = kept.tokens(item, prompt)
    assert tuple(token.id for token in tokens) == prompt.token_ids
    whole = AutoTokenizer.from_pretrained(model)
    assert kept.decode(prompt.token_ids) == whole.decode(
        list(prompt.token_ids), skip_special_tokens=True
    )


def test_another_template_or_config_is_read_again(model: Path) -> None:
    config = config_of(model)
    before = prompts_of(maker_of(config))
    assert prompts_of(maker_of(config)) == before
    chat = model / "chat_template.jinja"
    chat.write_text(chat.read_text().replace("<|user|>", "").replace("<|end|>", "<|end|><|end|>"))
    age(model)
    after = prompts_of(maker_of(config))
    assert after == judged(config) != before
    settings = json.loads((model / "config.json").read_text())
    settings["max_position_embeddings"] = 8
    (model / "config.json").write_text(json.dumps(settings))
    age(model)
    with pytest.raises(InputError, match="the model reads at most 8"):
        prompts_of(maker_of(config))


@pytest.mark.parametrize(
    "changes", [{"trust_remote_code": True}, {"engine": "vllm", "context": 64}]
)
def test_what_files_alone_do_not_decide_is_not_kept(
    model: Path, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    config, read = config_of(model, **changes), []
    real = loading.read_model
    monkeypatch.setattr(loading, "read_model", lambda o: (read.append(1), real(o))[1])
    for _ in range(2):
        maker_of(config)
    assert read == [1, 1]


def test_a_refusal_is_not_kept(model: Path) -> None:
    config = config_of(model)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "vocab_size": 7}))
    age(model)
    for _ in range(2):
        with pytest.raises(InputError, match="embed_tokens"):
            maker_of(config)


def test_a_template_of_another_model_is_kept_too(model: Path, tmp_path: Path) -> None:
    donor = save_tiny_llm(tmp_path / "donor")
    (donor / "chat_template.jinja").write_text("[{{ messages[-1]['content'] }}]")
    age(donor)
    config = config_of(model, template=f"from:{donor}")
    first, second = (prompts_of(maker_of(config)) for _ in range(2))
    assert first == second
    assert first != prompts_of(maker_of(replace(config, template="model")))
