"""What planning asks of a model, kept in the user's cache until a file changes.

Building the empty model and the tokenizer imports torch and transformers, which takes most of a
small run's start. What comes of it follows from the model's files, the packages and this code; it
is used again only if all of those have the size, times and inode that they had (`kept_digest`).
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.kept_tokenizer import keep_tokenizer, kept_tokenizer
from sparcom.corpus.prompts.tokenizer import load_tokenizer
from sparcom.engines.base import EngineOptions
from sparcom.engines.model_facts import ModelFacts
from sparcom.imports import uncollected
from sparcom.kept_digest import kept_digest
from sparcom.model_files import weight_files
from sparcom.models import cache_dir, model_folder
from sparcom.planning.corpus_digest import tokenizer_files
from sparcom.planning.options import context_of
from sparcom.quantisation import FILE as QUANTISED

_PACKAGES = ("sparcom", "torch", "transformers", "tokenizers")
_OWN = ("engines/transformers", "corpus/prompts", "planning")  # where the code lies that reads them


def read_model(options: EngineOptions) -> tuple[ModelFacts, int | None]:
    """(the facts of a model, its longest sequence in tokens), read or as they were kept.

    Raises InputError for a model that its engine does not run, or whose weights do not fill it.
    """
    folder = model_folder(options.model)
    if not _is_plain(options, folder):
        return _read(options)

    def compute() -> str:
        facts, context = _read(options)
        kept = {"vocabulary": facts.vocabulary, "layers": facts.layers, "head": facts.head}
        return json.dumps({**kept, "space": facts.space.to_json(), "context": context})

    files = [*weight_files(folder), *tokenizer_files(folder), *_code()]
    found = json.loads(kept_digest(files, compute, cache_dir() / "models"))
    context, space = found.pop("context"), ComponentSpace.from_json(found.pop("space"))
    return ModelFacts(options.model, space, **found), context


def read_tokenizer(model: str, *, trust_remote_code: bool) -> Any:
    """The tokenizer of a model, as far as prompts are made with it, loaded or as it was kept.

    model: what `resolve_model` returned. Raises InputError if it cannot be loaded.
    """
    loaded = []

    def compute() -> str:
        loaded.append(load_tokenizer(model, trust_remote_code=trust_remote_code))
        return keep_tokenizer(loaded[0]) or ""

    if trust_remote_code:  # what such code does is not known from its files
        compute()
        return loaded[0]
    files = [*tokenizer_files(model_folder(model)), *_code()]
    text = kept_digest(files, compute, cache_dir() / "tokenizers")
    if loaded:
        return loaded[0]
    return kept_tokenizer(text) if text else load_tokenizer(model)


def _read(options: EngineOptions) -> tuple[ModelFacts, int | None]:
    with uncollected():
        from sparcom.engines.transformers import loading

        facts = loading.read_model(options)
        return facts, context_of(options, facts.config)


def _is_plain(options: EngineOptions, folder: Path) -> bool:
    """True if only files decide what is known of the model: no code of its own, no package that
    reads quantised weights, no memory of this machine (which vLLM's facts depend on)."""
    config = (folder / "config.json").read_text("utf-8", "replace")
    quantised = "quantization" in config or "compression_config" in config
    plain = type(options) is EngineOptions and not options.trust_remote_code
    return plain and not quantised and not (folder / QUANTISED).is_file()


def _code() -> list[Path]:
    """The files that change with what reads a model: one of each package, and our own code."""
    found = (find_spec(name) for name in _PACKAGES)
    packages = [Path(spec.origin) for spec in found if spec and spec.origin]
    own = packages[0].parent
    read = [file for name in _OWN for file in sorted((own / name).rglob("*.py"))]
    return [*packages, own / "components.py", *read]
