"""A digest of what a corpus says, from reading it alone: no token is made, torch is not needed.

Equal texts, equal keys of the config and equal files of the tokenizer make equal tokens. So a run
that is resumed needs no tokenizer to know that its corpus is the same.
"""

import hashlib
import json
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path

from sparcom.config import RunConfig
from sparcom.corpus.opening import open_corpus
from sparcom.models import model_folder, resolve_model

_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_PACKAGES = ("sparcom", "transformers", "tokenizers", "jinja2")


def judge_corpus(config: RunConfig) -> tuple[str, int]:
    """Read the corpus of a config once; returns the sha256 of its instructions, in order, and how
    many they are.

    Raises InputError if it cannot be read, or has bad rows that the config does not skip.
    """
    digest, instructions = hashlib.sha256(), 0
    for item in open_corpus(config.corpus, config.reading()):
        digest.update(json.dumps(astuple(item)).encode())
        instructions += 1
    return digest.hexdigest(), instructions


def inputs_of(config: RunConfig, model: str, texts: str) -> dict[str, str]:
    """What decides the tokens of a run beside the keys of its config, as run.json has it.

    model: what `resolve_model` returned. texts: the digest of `judge_corpus`.
    """
    return {"texts": texts, "tokenizer": _tokenizer_digest(config, model)}


def tokenizer_files(folder: Path) -> list[Path]:
    """The files beside the weights of a model: its tokenizer is made of some of them."""
    found = (*folder.iterdir(), *folder.glob("additional_chat_templates/*"))
    return sorted(f for f in found if f.suffix in _SUFFIXES and f.is_file())


def _tokenizer_digest(config: RunConfig, model: str) -> str:
    """sha256 over whatever turns text into tokens: files beside the weights, and versions."""
    digest = hashlib.sha256()
    for name in _PACKAGES:
        digest.update(f"{name} {version(name)}\n".encode())
    _, _, donor = config.template.partition("from:")
    for path in (model, resolve_model(donor)) if donor else (model,):
        folder = model_folder(path)
        for file in tokenizer_files(folder):
            data = file.read_bytes()
            digest.update(f"{file.relative_to(folder)}:{len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()
