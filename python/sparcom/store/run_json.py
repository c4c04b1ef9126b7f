"""run.json: written with a checksum, read, and checked against its schema.

The schema names the key that is missing or of another type. The checksum tells every other change:
a site of another width, for example, would give the bits of all sets another meaning.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from sparcom.components import KINDS
from sparcom.documents import check_schema, parse_json
from sparcom.errors import InputError
from sparcom.store.files import Files

NAME = "run.json"
SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Schema versions that this version opens; 1 has no stamps."""
Status = Literal["running", "stopped", "complete"]
RETAIN = ("counts", "sets", "profile")
_HINT = "it was changed by hand or is damaged; restore it, or count the run again with --overwrite"

_COUNT = {"type": "integer", "minimum": 0}
_SOME = {"type": "integer", "minimum": 1}
_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_FLAG = {"type": "boolean"}
_SITE = {
    "type": "object",
    "required": ["kind", "layer", "width", "activation"],
    "properties": {
        "kind": {"enum": list(KINDS)},
        "layer": _COUNT,
        "width": _SOME,
        "activation": _TEXT,
        "gated": _FLAG,
        "experts": _COUNT,
        "top_k": _COUNT,
    },
    "additionalProperties": False,
}
_CONFIG = {
    "type": "object",
    "required": ["retain"],
    "properties": {
        "retain": {"enum": list(RETAIN)},
        "generate": _COUNT,
        "max_tokens": {"type": ["integer", "null"], "minimum": 1},
        "date": {"type": ["string", "null"]},
    },
    # `RunConfig.from_json` knows the type of each key.
    "additionalProperties": {
        "type": ["string", "number", "boolean", "null", "array"], "items": _TEXT,
    },
}  # fmt: skip
_SELECTION = {
    "type": "object",
    "required": ["rule", "expert_rule", "ties", "pool"],
    "properties": {"rule": _TEXT, "expert_rule": _TEXT, "ties": _TEXT, "pool": _FLAG},
    "additionalProperties": False,
}
_CORPUS = {
    "type": "object",
    "required": ["instructions", "hash", "labels", "prompt_tokens", "counted_tokens"],
    "properties": {
        "instructions": _SOME,
        "hash": _TEXT,
        "labels": _TEXT,
        "prompt_tokens": _COUNT,
        "counted_tokens": _COUNT,
    },
}
_SESSION = {
    "type": "object",
    "required": ["seconds", "actor_seconds", "parts"],
    "properties": {
        "seconds": {"type": "number"},
        "actor_seconds": {"type": "number"},
        "parts": _COUNT,
    },
}
_FACTS = ["status", "config", "model", "corpus", "cells", "sites", "selection"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["schema_version", *_FACTS],
    "properties": {
        "schema_version": {"enum": list(READABLE)},
        "status": {"enum": list(get_args(Status))},
        "config": _CONFIG,
        "model": {
            "type": "object",
            "required": ["path", "weights"],
            "properties": {"path": _TEXT, "weights": _TEXT},
        },
        "corpus": _CORPUS,
        "cells": {
            "type": "object",
            "required": ["edges", "folds"],
            "properties": {
                "edges": {"type": "array", "items": {"type": "number"}},
                "folds": _SOME,
                "fold_of": {"enum": ["cluster", "id"]},
            },
            "additionalProperties": False,
        },
        "sites": {"type": "array", "items": _SITE, "minItems": 1},
        "layers": _SOME,
        "selection": _SELECTION,
        "threads": {"type": ["integer", "null"], "minimum": 1},
        "versions": _TEXTS,
        "created": _TEXT,
        "stamps": {
            "type": "object",
            "required": ["corpus", "counts", "failed", "sets", "profiles"],
            "additionalProperties": _TEXT,
        },
        "run": _TEXT,
        "inputs": _TEXTS,
        "skipped_rows": {
            "type": "object",
            "required": ["count", "first"],
            "properties": {"count": _COUNT, "first": {"type": "array", "items": _TEXT}},
        },
        "engine": {"type": "object", "properties": {"proof": {"type": "object"}}},
        "sessions": {"type": "array", "items": _SESSION},
    },
    "if": {"properties": {"schema_version": {"const": 2}}},
    "then": {"required": ["threads", "versions", "created", "stamps", "run", "checksum"]},
}


def read_run_json(files: Files) -> dict[str, Any]:
    """The manifest of a run.

    Raises InputError if it is no JSON, of a schema version that is not known, if a key is missing
    or of another type, or if it is not what was written.
    """
    where = f"{files.location}/{NAME}"
    manifest = parse_json(files.read_bytes(NAME), where)
    version = manifest.get("schema_version")
    if version not in READABLE or isinstance(version, bool):
        raise InputError(
            f"{where}: schema version {version!r:.40}, but this sparcom reads versions "
            f"{READABLE[0]} to {READABLE[-1]}; open it with the version that wrote it"
        )
    check_schema(manifest, SCHEMA, where, _HINT)
    checksum = manifest.pop("checksum", None)  # version 1 has none
    if version > 1 and checksum != _checksum(manifest):
        raise InputError(f"{where}: its checksum is another one; {_HINT}")
    return manifest


def write_run_json(files: Files, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a run."""
    whole = {**manifest, "schema_version": SCHEMA_VERSION}
    text = json.dumps({**whole, "checksum": _checksum(whole)}, indent=1) + "\n"
    files.write_bytes(NAME, text.encode())


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
