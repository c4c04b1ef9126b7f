"""Damaged and hostile corpora, recipes, templates and arguments, drawn from a seed.

Each kind is a function of a random generator and an empty folder that writes files and returns the
arguments of one command. Beside the folder lies `model`, which `save_whole_model` makes.
"""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from corpora import record
from corpus_shapes import SHAPES, write_shape
from tiny_runs import CHAT, save_tokenizer

Kind = Callable[[random.Random, Path], list[str]]
KINDS: dict[str, Kind] = {}
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".json.gz")
_PIECES = (
    b'"', b'""', b",", b"\t", b"\n", b"\r\n", b"\r", b"{", b"}", b"[", b"]", b":", b"\\", b"\\u",
    b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"NaN", b"1e999", b"id",
    b"category", b"QA", b"instruction", b"messages", b"x" * 70_000, b"7" * 5000, b"\x1b[31m",
    "\u202e".encode(), b"=", b"[[source]]\n", b"PAR1",
)  # fmt: skip
_NAMES = (
    "x" * 300, "a\0b", "\x1b[31mred", "\u202eevil", "new\nline", "", ".", "..", "/dev/null", "hub:",
    "hub:a@", "\udc80", "a" * 5000, "~nobody/x", "-", "hexainst ", "no such",
)  # fmt: skip
_VALUES = (
    None, True, 0, -1, 3, 1.5, 1e308, float("nan"), float("inf"), 10**400, "", " ", "\ud800",
    "\x00", "x", "QA", [], [[]], [1], {}, {"a": 1}, {"role": "user"}, "x" * 70_000, "\x1b[2J",
)  # fmt: skip


def kind(make: Kind) -> Kind:
    KINDS[make.__name__] = make
    return make


def save_whole_model(folder: Path, chat: str | None = CHAT) -> None:
    """A folder with a tokenizer, and with what stands for a model that is not loaded."""
    save_tokenizer(folder, chat)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"")


def _read(rng: random.Random, location: object, folder: Path) -> list[str]:
    """Arguments of a command that reads a corpus."""
    command = rng.choice(["check", "check", "stats", "show"])
    argv = ["corpus", command, *(["r-1", "--corpus"] if command == "show" else []), str(location)]
    if rng.random() < 0.4:
        argv += ["--on-error", "skip"]
    if rng.random() < 0.3:
        argv += ["--categories", "any"]
    return argv if command != "show" else [*argv, "--model", str(folder.parent / "model")]


def _rows(rng: random.Random) -> list[dict]:
    return [record(at, input=rng.choice(["", "a, b", 'say "x"\nno'])) for at in range(4)]


@kind
def bytes_of_a_good_file(rng: random.Random, folder: Path) -> list[str]:
    file = write_shape(folder, rng.choice(list(SHAPES)), _rows(rng))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 20])):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.5:
            data[at : at + rng.choice([0, 1, 1, 9])] = rng.choice(_PIECES)
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return _read(rng, file, folder)


@kind
def half_a_file(rng: random.Random, folder: Path) -> list[str]:
    file = write_shape(folder, rng.choice(list(SHAPES)), _rows(rng))
    os.truncate(file, rng.randrange(file.stat().st_size + 1))
    return _read(rng, file, folder)


@kind
def soup(rng: random.Random, folder: Path) -> list[str]:
    suffix = rng.choice(_SUFFIXES)
    data = b"".join(rng.choice(_PIECES) for _ in range(rng.randrange(60)))
    file = folder / f"a{suffix}"
    file.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return _read(rng, file, folder)


@kind
def quotes(rng: random.Random, folder: Path) -> list[str]:
    suffix, delimiter = rng.choice([(".csv", ","), (".tsv", "\t")])
    texts = ['"', '"Hi" said he', '5" pipe', 'a""b', '"x', 'x"', '""', "plain", '"a\nb"', '"""']
    lines = [delimiter.join(["id", "category", "instruction"])]
    lines += [
        delimiter.join([f"r-{at}", "QA", rng.choice(texts)]) for at in range(rng.randrange(9))
    ]
    (folder / f"a{suffix}").write_text("\n".join(lines))
    return _read(rng, folder / f"a{suffix}", folder)


@kind
def depth_and_size(rng: random.Random, folder: Path) -> list[str]:
    n = rng.choice([900, 3000, 20_000, 200_000])
    text = rng.choice([
        "[" * n, '{"a":' * n, "[" * n + "]" * n, "1" * n, '["' + "x" * n, '{"data": [' + "[" * n,
        "[" + "{}," * n + "{}]", "id," * n + "\n1\n", '"' * n, "a" + '""' * n, "-" * n,
        '{"id": ' + "1" * n + "}", "[1" + "0" * n + "e9]", "\n" * n,
        '{"a": "' + "\\u0000" * n + '"}',
        '"' + '""\n' * n, "{" + ",".join(f'"{at}": {{}}' for at in range(n // 50)) + "}",
        json.dumps([{"id": 1, "messages": [{"role": "user"}] * (n // 50)}]),
    ])  # fmt: skip
    file = folder / f"a{rng.choice(('.jsonl', '.json', '.csv', '.tsv'))}"
    file.write_text(text)
    return _read(rng, file, folder)


@kind
def values_of_wrong_types(rng: random.Random, folder: Path) -> list[str]:
    def value(depth: int) -> object:
        if depth and rng.random() < 0.6:
            if rng.random() < 0.5:
                return [value(depth - 1) for _ in range(rng.randrange(3))]
            names = ("id", "category", "instruction", "messages", "conversations", "role",
                     "content", "from", "value", "data", "columns", "train", "0")  # fmt: skip
            return {rng.choice(names): value(depth - 1) for _ in range(rng.randrange(4))}
        return rng.choice(_VALUES)

    suffix = rng.choice([".json", ".jsonl"])
    rows = [value(4) for _ in range(rng.randrange(1, 4))]
    end = "\n" if rng.random() < 0.9 else ""
    (folder / f"a{suffix}").write_text(end.join(json.dumps(row) for row in rows))
    return _read(rng, folder / f"a{suffix}", folder)


@kind
def names(rng: random.Random, folder: Path) -> list[str]:
    name = rng.choice(_NAMES)
    location = name if rng.random() < 0.5 else f"{folder}/{name}{rng.choice(_SUFFIXES)}"
    return _read(rng, location, folder)


@kind
def folders(rng: random.Random, folder: Path) -> list[str]:
    for at in range(rng.randrange(4)):
        suffix = rng.choice(_SUFFIXES)
        target = folder / f"{at}{rng.choice(['', chr(27), chr(10)])}{suffix}"
        how = rng.randrange(6)
        if how == 0:
            target.symlink_to(folder / "gone")
        elif how == 1:
            target.mkdir()
        elif how == 2:
            os.mkfifo(target)
        elif how == 3:
            target.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        elif how == 4:
            target.write_bytes(b"")
        else:
            target.symlink_to(target)
    if rng.random() < 0.2:
        (folder / "dataset_dict.json").write_text("{}")
    write_shape(folder, rng.choice(list(SHAPES)), _rows(rng))
    return _read(rng, folder, folder)


@kind
def flags(rng: random.Random, folder: Path) -> list[str]:
    file = write_shape(folder, rng.choice(list(SHAPES)), _rows(rng))
    argv = ["corpus", rng.choice(["check", "stats"]), str(file)]
    words = ("instruction=input", "id=", "=x", "id={row}{file}", "x=y", "messages=input",
             "\x1b=\x1b", "input=instruction.0.a", "a" * 600, "reference={", *_NAMES)  # fmt: skip
    for _ in range(rng.randrange(1, 4)):
        flag = rng.choice(["--map", "--fill", "--records", "--categories", "--max-problems",
                           "--near", "--rejects", "--no-such"])  # fmt: skip
        values = {
            "--max-problems": ["-1", "0", "x", "9" * 5000],
            "--near": ["nan", "-1", "1e999", "x"],
            "--rejects": [str(file), str(folder), "/dev/full", "/no/such/x", "x" * 300, "a\0b"],
        }.get(flag, words)
        argv += [f"{flag}={rng.choice(values)}"]
    return argv


@kind
def recipes(rng: random.Random, folder: Path) -> list[str]:
    whole = (
        'seed = 1\nper_category = 2\n[[source]]\nname = "a"\ncategory = "QA"\ntake = 2\n'
        'license = "MIT"\ndataset = "owner/a"\nkey = "{id}"\ninstruction = ["{q}"]\nfiles = ["*"]\n'
    )
    values = ("-1", "0", "1.5", "true", '""', '"x"', "[]", "[1]", '["{q"]', "{}", "{a=1}", "inf",
              "1979-05-27", "7" * 5000, "[" * 3000, '"\\u0000"', '"\\u001b"', "'/etc'")  # fmt: skip
    lines = whole.splitlines()
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(len(lines))
        name = lines[at].partition(" ")[0]
        lines[at] = rng.choice([f"{name} = {rng.choice(values)}", "", f"{name} = ", "x = 1", "[a]"])
    (folder / "r.toml").write_text("\n".join(lines))
    out = rng.choice([str(folder / "out"), "a\0b", "x" * 300, "/dev/null/x", str(folder)])
    mirror = rng.choice([str(folder), "x" * 300, "a\0b", "/no/such"])
    return ["corpus", "build", str(folder / "r.toml"), "--out", out, "--mirror", mirror]


_TEMPLATES = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10000000000 }}", "{% if %}", "{{ messages[0].content }}", "{{ 1 / 0 }}", "",
    "{{ messages[9].content }}", "{{ raise_exception('\x1b[31m' * 999) }}", "{{ namespace }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages[0].content | upper }}",
    "{{ ''.__class__ }}", "{{ messages }}", "{{ messages[0]['content'] ~ strftime_now('%Y') }}",
    "{{ [" + "[" * 900 + "]" * 900 + "] }}", "{% include 'x' %}", "{{ messages | tojson }}", CHAT,
    "{{ messages[0].content | center(3000000000) }}", "{{ strftime_now('%' * 99) }}",
)  # fmt: skip


@kind
def templates(rng: random.Random, folder: Path) -> list[str]:
    save_whole_model(folder / "model", rng.choice(_TEMPLATES))
    file = write_shape(folder, "jsonl", _rows(rng))
    argv = ["corpus", "show", "r-1", "--corpus", str(file), "--model", str(folder / "model")]
    if rng.random() < 0.3:
        argv += ["--system", rng.choice(["Be brief.", "\x1b", ""])]
    return argv


@kind
def models(rng: random.Random, folder: Path) -> list[str]:
    """Paths that are none; a hub id is left out, since nothing may be looked for in a network."""
    name = rng.choice(
        [f"./{name}" for name in _NAMES] + ["~nobody/x", "x" * 300, "/" + "y/" * 3000]
    )
    flag, value = rng.choice([("--model", name), ("--template", f"from:{name}")])
    argv = ["corpus", "show", "QA-ai-001", "--model", str(folder.parent / "model"), flag, value]
    for name, values in (
        ("--scope", ["x", "all", ""]),
        ("--bos", ["always", "x"]),
        ("--max-tokens", ["0", "-1", "9" * 5000, "3"]),
        ("--date", ["2024-02-30", "x", "2024-02-29"]),
    ):
        if rng.random() < 0.3:
            argv += [name, rng.choice(values)]
    return argv


@kind
def tokenizers(rng: random.Random, folder: Path) -> list[str]:
    model = folder / "model"
    save_whole_model(model)
    target = model / rng.choice(["tokenizer.json", "tokenizer_config.json"])
    if rng.random() < 0.5:
        target.write_text(rng.choice(["[]", "null", "3", "", "{", "[" * 9999, '{"model": null}']))
    else:
        data = bytearray(target.read_bytes())
        for _ in range(rng.choice([1, 5])):
            at = rng.randrange(len(data))
            data[at : at + 1] = rng.choice([b"", b'"', b"9", b"{", b"\xff", b"null"])
        target.write_bytes(data)
    file = write_shape(folder, "jsonl", _rows(rng))
    return ["corpus", "show", "r-1", "--corpus", str(file), "--model", str(model)]


def draw(seed: int, folder: Path) -> tuple[str, list[str]]:
    """(name of the kind, arguments) of one case; the folder gets its files."""
    rng = random.Random(seed)
    name = list(KINDS)[seed % len(KINDS)]
    return name, KINDS[name](rng, folder)
