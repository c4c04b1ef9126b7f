"""run.json before counting: the facts of a run, and the stamps of its files."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig, keys
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.models import versions, weights_fingerprint
from sparcom.store import CellRule, length_edges


class Tally:
    """What a run says of its corpus, gathered while it streams past.

    hash: over ids, token ids and counted ranges: equal ones are the same measurement; labels: over
    ids, categories and sources, by which the profile sums.
    """

    def __init__(self) -> None:
        self.instructions = self._counted = 0
        self.tokens_of_part: list[int] = []
        self._digest, self._labels = hashlib.sha256(), hashlib.sha256()
        self._lengths = np.zeros(1, np.int64)

    def add(self, instructions: Sequence[Instruction], prompts: Sequence[Prompt]) -> None:
        for item in instructions:
            self._labels.update(f"{item.id}\0{item.category}\0{item.source}\n".encode())
        for p in prompts:
            generated = f"\0{p.generate}" if p.generate else ""
            self._digest.update(f"{p.id}\0{p.token_ids}\0{p.counted}{generated}\n".encode())
        lengths = np.array([p.n_counted for p in prompts], np.int64)
        size = max(len(self._lengths), int(lengths.max(initial=0)) + 1)
        self._lengths = np.bincount(lengths, minlength=size) + np.pad(
            self._lengths, (0, size - len(self._lengths))
        )
        self.tokens_of_part.append(sum(len(p.token_ids) for p in prompts))
        self._counted += int(lengths.sum())
        self.instructions += len(prompts)

    def facts(self) -> dict[str, Any]:
        return {
            "instructions": self.instructions,
            "hash": self._digest.hexdigest(),
            "labels": self._labels.hexdigest(),
            "prompt_tokens": sum(self.tokens_of_part),
            "counted_tokens": self._counted,
        }

    def cells(self, generated: int) -> CellRule:
        """The cells of the profile; generated: the most tokens that are written for each."""
        return CellRule(length_edges(self._lengths, generated=generated))


def make_manifest(
    config: RunConfig, options: EngineOptions, space: ComponentSpace, layers: int, tally: Tally
) -> dict[str, Any]:
    """run.json of a run that is laid out, before anything is counted.

    layers: decoder layers of the model, with an FFN or without one.
    """
    facts: dict[str, Any] = {
        "status": "running",
        **measuring_facts(config, options),
        "corpus": tally.facts(),
        "cells": tally.cells(config.generate).to_json(),
        "sites": space.to_json(),
        "layers": layers,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {**facts, **stamped(facts)}


def measuring_facts(config: RunConfig, options: EngineOptions) -> dict[str, Any]:
    """What a run.json says of its config, model and versions; no token and no layer is needed."""
    return {
        "config": config.to_json(),
        "model": {"path": options.model, "weights": weights_fingerprint(options.model)},
        "selection": asdict(config.selection()),
        "threads": options.threads,
        "versions": {n: v for n, v in versions().items() if n in ("torch", "transformers")},
    }


def stamped(manifest: dict[str, Any]) -> dict[str, Any]:
    """The stamps of a run's files, and the run's name."""
    stamps = stamps_of(manifest)
    return {"stamps": stamps, "run": stamps["sets"][:12]}


def stamps_of(manifest: dict[str, Any]) -> dict[str, str]:
    """folder -> fingerprint of what decides the bits of its files."""
    config = {name: manifest["config"][name] for name in keys(affects="counts")}
    if "chosen" in manifest:  # known after the stamps; a run chooses once, so they tell it apart
        config["batch_tokens"] = "auto"
    measured = [
        manifest["model"]["weights"], manifest["corpus"], manifest["cells"], manifest["sites"],
        config,
    ]  # fmt: skip
    counts = _sha256(measured)
    sets = _sha256([counts, manifest["selection"]])
    corpus = _sha256(manifest["corpus"])
    stamps = {"corpus": corpus, "counts": counts, "sets": sets}
    # Of their own, so that no file of one folder passes in another.
    return {**stamps, "failed": _sha256([counts, "failed"]), "profiles": _sha256([sets, "sums"])}


def require_stamps(location: str, manifest: dict[str, Any]) -> dict[str, str]:
    """The stamps of a stored run's files; raises InputError for a run of a version without them."""
    if "stamps" not in manifest:
        raise InputError(
            f"{location}: counted by an older version of sparcom, which can be read, analysed and "
            "compared, but not changed; count it again with --overwrite or another --out"
        )
    return manifest["stamps"]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
