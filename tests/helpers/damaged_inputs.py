"""Damaged and hostile configs, flags, models and runs, drawn from a seed.

Each kind is a function of a random generator and an empty folder that writes files and returns the
arguments of one command. Beside the folder lies what `save_whole` makes.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from planted import write_run
from store_helpers import DENSE, MOE
from tiny_gguf import save_tiny_gguf
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.config import RunConfig, flag

Kind = Callable[[random.Random, Path], list[str]]
KINDS: dict[str, Kind] = {}
_SMALL = ["--permutations", "2", "--bootstraps", "2"]
_VALUES = (
    None, True, 0, -1, 3, 7, 2.5, 1e308, float("nan"), float("inf"), 10**9, 10**30, 10**400, "",
    " ", "x", "llama", "../x", "\x00", "\ud800", "\x1b[2J", "\u202e", "x" * 70_000, [], [1], ["x"],
    {}, {"a": 1}, [[]],
)  # fmt: skip
_WORDS = (
    "x", "", "-1", "0", "9" * 30, "9" * 5000, "1e999", "nan", "inf", "1e-99999999",
    "top:1e-99999999",
    "top:0", "lift:x", "fixed:2", "a\0b", "x" * 300, "\x1b[31m", "\u202e", "\udc80", "/dev/null/x",
    "..", "A=1", "A=B,C", "2024-02-30", "true", "[" * 3000, "::::", "127.0.0.1:99999", "ray://x",
    "from:", "model", "plain", "from:/no/such",
)  # fmt: skip


def kind(make: Kind) -> Kind:
    KINDS[make.__name__] = make
    return make


def save_whole(folder: Path) -> None:
    """Two models, a GGUF file, a corpus and two runs, none of them damaged."""
    for family in ("llama", "qwen2_moe"):
        save_tiny_llm(folder / family, family)
    save_tiny_gguf(folder / "whole.gguf")
    write_corpus(folder / "corpus.jsonl", records(6))
    rng, labels = np.random.default_rng(0), [("QA", "SUM")[k % 2] for k in range(8)]
    for name, space in (("dense", DENSE), ("moe", MOE), ("tuned", DENSE)):
        members, experts = (
            rng.random((len(labels), width)) < 0.4 for width in (space.neurons, space.experts)
        )
        write_run(folder / name, members, labels, space, experts=experts, retain="counts",
                  part_size=3)  # fmt: skip


def _count(folder: Path, *more: str) -> list[str]:
    """Arguments of `sparcom count` on what is whole; later ones take the place of earlier ones."""
    whole = folder.parent
    return [
        "count", "--model", str(whole / "llama"), "--corpus", str(whole / "corpus.jsonl"),
        "--out", str(folder / "run"), "--cpus", "1", *more,
    ]  # fmt: skip


def _toml(value: object) -> str:
    """A value as TOML, or as what looks like it."""
    if isinstance(value, (bool, str, list, float, type(None))):
        return json.dumps(value)
    return str(value)


@kind
def configs(rng: random.Random, folder: Path) -> list[str]:
    keys = list(RunConfig().to_json())
    lines = []
    for _ in range(rng.randrange(1, 4)):
        key = rng.choice([rng.choice(keys), "x", "part-size", "part_size", "[a]", "a.b", "ray"])
        lines.append(f"{key} = {_toml(rng.choice(_VALUES))}")
    text = "\n".join(lines)
    if rng.random() < 0.2:
        text = rng.choice(["map = " + "[" * 3000, "[a" + ".a" * 3000 + "]", "\x00", "= 1", '"'])
    (folder / "run.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    return _count(folder, "--config", str(folder / "run.toml"))


@kind
def flags(rng: random.Random, folder: Path) -> list[str]:
    keys = [name for name, value in RunConfig().to_json().items() if not isinstance(value, bool)]
    pairs = [f"{flag(rng.choice(keys))}={rng.choice(_WORDS)}" for _ in range(rng.randrange(1, 3))]
    return _count(folder, *pairs)


def mutated(rng: random.Random, value: Any, *, whole: bool = True) -> Any:
    """A JSON value with one key gone, or one value of another kind."""
    if isinstance(value, dict) and value and (whole or rng.random() < 0.6):
        key = rng.choice(list(value))
        if rng.random() < 0.25:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: mutated(rng, value[key], whole=False)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], mutated(rng, value[at], whole=False), *value[at + 1 :]]
    return rng.choice(_VALUES)


def _other_text(rng: random.Random) -> str:
    return rng.choice(["null", "[]", "3", "", "{", "{}", "[" * 9999, '{"a":' * 9999, "NaN",
                       '{"a": 1, "a": 2}', '{"a": ' + "7" * 5000 + "}", "\x00"])  # fmt: skip


def _damaged_json(rng: random.Random, file: Path) -> None:
    if rng.random() < 0.2:
        file.write_text(_other_text(rng))
        return
    value = json.loads(file.read_text())
    for _ in range(rng.choice([1, 1, 1, 3])):
        value = mutated(rng, value)
    file.write_text(json.dumps(value))


@kind
def models(rng: random.Random, folder: Path) -> list[str]:
    model = folder / "model"
    shutil.copytree(folder.parent / rng.choice(["llama", "qwen2_moe"]), model)
    target = rng.choice(["config.json"] * 5 + [
        "tokenizer.json", "tokenizer_config.json", "generation_config.json", "index", "weights",
        "chat_template.jinja",
    ])  # fmt: skip
    if target == "weights":
        data = bytearray((model / "model.safetensors").read_bytes())
        header = int.from_bytes(data[:8], "little")
        for _ in range(rng.choice([1, 3])):
            data[rng.randrange(8 + header)] = rng.randrange(256)
        (model / "model.safetensors").write_bytes(data[: rng.choice([len(data), 4, 100])])
    elif target == "index":
        (model / "model.safetensors").rename(model / "a.safetensors")
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "a.safetensors"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(mutated(rng, index)))
    elif target == "chat_template.jinja":
        (model / target).write_text(rng.choice(["{% for", "{{ 1/0 }}", "", "x", "{{ messages }}"]))
    else:
        _damaged_json(rng, model / target)
    return _count(folder, "--model", str(model))


@kind
def gguf(rng: random.Random, folder: Path) -> list[str]:
    data = bytearray((folder.parent / "whole.gguf").read_bytes())
    header = data.index(b"blk.1.ffn_down.weight") + 60
    at = rng.randrange(header)
    how = rng.randrange(4)
    if how == 0:
        for _ in range(rng.choice([1, 4])):
            data[rng.randrange(header)] = rng.randrange(256)
    elif how == 1:
        data[at : at + 8] = rng.choice([b"\xff" * 8, (1 << 40).to_bytes(8, "little")])
    elif how == 2:
        data = data[: rng.choice([at, 0, 8, 24])]
    else:
        data[at : at + rng.randrange(1, 40)] = bytes(rng.randrange(1, 40))
    (folder / "a.gguf").write_bytes(data)
    return _count(folder, "--model", str(folder / "a.gguf"))


def _damage_run(rng: random.Random, run: Path, other: Path) -> None:
    files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "run.json")
    how = rng.randrange(7)
    target = rng.choice(files)
    if how <= 2:
        manifest = json.loads((run / "run.json").read_text())
        for _ in range(rng.choice([1, 1, 2])):
            manifest = mutated(rng, manifest)
        if isinstance(manifest, dict) and rng.random() < 0.7:  # so that the schema must tell
            manifest.pop("checksum", None)
            text = json.dumps(manifest, sort_keys=True)
            manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
        (run / "run.json").write_text(json.dumps(manifest))
        if rng.random() < 0.1:
            (run / "run.json").write_text(_other_text(rng))
    elif how == 3:
        target.unlink()
    elif how == 4:
        target.write_bytes(rng.choice(files).read_bytes())
    elif how == 5 and (foreign := other / target.relative_to(run)).is_file():
        shutil.copy(foreign, target)
    else:
        data = bytearray(target.read_bytes())
        for _ in range(rng.choice([1, 20])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        target.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])


@kind
def runs(rng: random.Random, folder: Path) -> list[str]:
    name = rng.choice(["dense", "moe"])
    shutil.copytree(folder.parent / name, folder / "run")
    _damage_run(rng, folder / "run", folder.parent / ("tuned" if name == "dense" else "dense"))
    run, tuned = str(folder / "run"), str(folder.parent / "tuned")
    return rng.choice([
        ["identify", run, "--rule", "top:0.2"],
        ["report", run, *_SMALL],
        ["compare", run, tuned, *_SMALL],
        ["compare", tuned, run, *_SMALL],
        _count(folder, "--resume"),
    ])  # fmt: skip


@kind
def places(rng: random.Random, folder: Path) -> list[str]:
    """Run directories that are none."""
    (folder / "link").symlink_to(folder / "gone")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "file").write_text("x")
    (folder / "other").mkdir()
    (folder / "other" / "x").write_text("x")
    os.mkfifo(folder / "pipe")
    name = rng.choice([
        "link", "loop", "file", "other", "pipe", "file/x", "x" * 300, "a\0b", "\x1b[31m", "\udc80",
        "y/" * 3000,
    ])  # fmt: skip
    place = rng.choice([str(folder / name), f"s3:/{name}", f"no-such://{name}", "s3://a:b@c/d"])
    command = rng.choice(["count", "resume", "identify", "report", "compare"])
    if command in ("count", "resume"):
        return _count(folder, "--out", place, *(["--resume"] if command == "resume" else []))
    return [command, place, *([place] if command == "compare" else [])]


@kind
def analysis_flags(rng: random.Random, folder: Path) -> list[str]:
    shutil.copytree(folder.parent / "dense", folder / "run")
    names = ("alpha", "high", "low", "min-prevalence", "permutations", "bootstraps", "seed")
    words = ("x", "-1", "0", "nan", "inf", "2", "9" * 5000, "", "1e999")
    return ["report", str(folder / "run"), *_SMALL,
            f"--{rng.choice(names)}={rng.choice(words)}"]  # fmt: skip


def draw(seed: int, folder: Path) -> tuple[str, list[str]]:
    """(name of the kind, arguments) of one case; the folder gets its files."""
    rng = random.Random(seed)
    name = list(KINDS)[seed % len(KINDS)]
    return name, KINDS[name](rng, folder)
