"""`--batch-tokens auto`: one number for a whole run, whoever counts which part of it.

An actor measures when it loads its engine, unless the run directory has the number. What the first
of them finds is taken by all: Ray's store of keys and values takes one value for a key, once. It is
written into the run directory before anything is counted, for actors and sessions that come later;
the driver copies it into run.json, beside what was measured.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparcom.config import DEFAULT_BATCH_TOKENS, RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.batch_size import (
    BatchSize,
    Resizable,
    choose_batch_tokens,
    least_tokens,
    too_few,
)
from sparcom.errors import InputError, SparcomError
from sparcom.pipeline.ray.session import ray_runs
from sparcom.store import RunStore

AUTO = "auto"
KEY = "chosen"
"""In run.json: what was chosen by measuring, and from what."""
_FILE = "batch_tokens.json"


@dataclass(frozen=True)
class Measuring:
    """tokens: that an actor reads in the run, about. key: of this session, for `first_of_all`."""

    tokens: int
    key: str


def chosen_before(tokens: int, actors: int) -> dict[str, Any] | None:
    """What is known without measuring, as `BatchSize.to_json`: the default, if there is too little
    to read; None: it must be measured. tokens: prompt tokens of the whole run."""
    each = tokens // actors
    if each >= least_tokens(DEFAULT_BATCH_TOKENS):
        return None
    why = too_few(DEFAULT_BATCH_TOKENS, each)
    return BatchSize(DEFAULT_BATCH_TOKENS, why=why).to_json()


def with_choice(manifest: dict[str, Any], choice: Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest of a run that was asked to choose, with what it chose; None: it has not yet."""
    if choice is None:
        return manifest
    config = {**manifest["config"], "batch_tokens": choice["batch_tokens"]}
    return {**manifest, "config": config, KEY: dict(choice)}


def with_stored_choice(store: RunStore, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a stored run, with the number that an actor wrote but no driver copied.

    Raises InputError if parts were counted with a number that is gone.
    """
    if manifest["config"].get("batch_tokens") != AUTO:
        return manifest
    choice = read_choice(store)
    if choice is None and store.profiles.spans():
        raise InputError(
            f"{store.location}/{_FILE} is gone: it says how many rows a pass had when the stored "
            "parts were counted; start again with --overwrite"
        )
    return with_choice(manifest, choice)


def with_number(config: RunConfig, manifest: Mapping[str, Any]) -> RunConfig:
    """The config of a resumed run, with the stored run's number in place of "auto"."""
    if config.batch_tokens != AUTO:
        return config
    return RunConfig.from_json(
        {**config.to_json(), "batch_tokens": manifest["config"]["batch_tokens"]}
    )


def read_choice(store: RunStore) -> dict[str, Any] | None:
    """What an actor chose, as `BatchSize.to_json`; None: nothing yet.

    Raises SparcomError if the file is damaged.
    """
    if not store.files.is_file(_FILE):
        return None
    try:
        found: dict[str, Any] = json.loads(store.files.read_bytes(_FILE))
        if type(found["batch_tokens"]) is not int:
            raise TypeError(found["batch_tokens"])
    except (ValueError, KeyError, TypeError) as error:
        raise SparcomError(
            f"{store.location}/{_FILE}: expected a number of batch_tokens, got "
            f"{type(error).__name__}: {error}; start again with --overwrite"
        ) from error
    return found


def chooser(
    store: RunStore, measuring: Measuring | None, prompts: Sequence[Prompt], options: EngineOptions
) -> Callable[[Resizable], int] | None:
    """What `load_engine` takes to choose the rows of a pass; None: they are those of the options.

    measuring: of the run; prompts: of the part with which the engine is loaded.
    """
    if measuring is None:
        return None

    def choose(engine: Resizable) -> int:
        found = read_choice(store)
        if found is None:
            size = choose_batch_tokens(engine, prompts, options.batch_tokens, measuring.tokens)
            found = first_of_all(measuring.key, size.to_json())
            store.files.write_bytes(_FILE, json.dumps(found).encode())
        rows: int = found["batch_tokens"]
        return rows

    return choose


def first_of_all(key: str, proposal: dict[str, Any]) -> dict[str, Any]:
    """What any process of this Ray proposed first under a key; without Ray, the proposal."""
    if not ray_runs():
        return proposal
    # Ray 2.60 has no other way to write what is not there yet, and only that.
    kv: Any = importlib.import_module("ray.experimental.internal_kv")
    kv._internal_kv_put(key, json.dumps(proposal), overwrite=False)
    first: dict[str, Any] = json.loads(kv._internal_kv_get(key))
    return first
