"""Configs: TOML, overrides, and errors that name the key."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from sparcom.config import RunConfig, flag
from sparcom.config_file import load_config
from sparcom.errors import InputError
from sparcom.selection.rules import Selection

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").rglob("*.toml"))
    if "[[pair]]" not in path.read_text("utf-8")  # of a study: tests/study
]


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None, {}) == RunConfig()


def test_a_file_sets_values_and_flags_override_it(tmp_path: Path) -> None:
    path = written(tmp_path, 'model = "some/model"\nbatch_tokens = 64\nrule = "top:0.05"\n')
    config = load_config(path, {"batch_tokens": 32})
    assert (config.model, config.batch_tokens, config.rule) == ("some/model", 32, "top:0.05")
    assert config.slots == RunConfig().slots


def test_keys_may_be_written_as_flags_are(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "batch-tokens = 64\n"), {}).batch_tokens == 64
    assert load_config(written(tmp_path, "batch_tokens = 'auto'\n"), {}).batch_tokens == "auto"


def test_an_int_may_stand_for_a_float(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "threshold = 1\nmemory = 8\n"), {})
    assert (config.threshold, type(config.threshold)) == (1.0, float)
    assert (config.memory, type(config.memory)) == (8.0, float)


def test_every_key_can_be_written_and_read_back(tmp_path: Path) -> None:
    config = RunConfig(limit=3, system="be brief", max_tokens=8, cpus=1, ray_address="auto",
                       out="x", verify=True, gpus=0.5, ties="exact")  # fmt: skip
    values = {f.name: getattr(config, f.name) for f in fields(RunConfig)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None]
    assert load_config(written(tmp_path, "\n".join(lines)), {}) == config


@pytest.mark.parametrize(
    ("key", "near"), [("batch_token", "batch_tokens"), ("modle", "model"), ("Rule", "rule"),
                      ("zzz", ""), ("", "")],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, near: str) -> None:
    path = written(tmp_path, f'"{key}" = 1\n')
    with pytest.raises(InputError, match=f"run.toml: unknown key '{key}'; did you mean '{near}"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch_tokens = '64'", "batch_tokens: expected int or auto, got str '64'"),
        ("batch_tokens = 64.0", "batch_tokens: expected int or auto, got float 64.0"),
        ("batch_tokens = true", "batch_tokens: expected int or auto, got bool True"),
        ("verify = 1", "verify: expected bool, got int 1"),
        ("limit = 'all'", "limit: expected int, got str 'all'"),
        ("threshold = 'x'", "threshold: expected float, got str 'x'"),
        ("threshold = true", "threshold: expected float, got bool True"),
        ("model = ['a']", "model: expected str, got list"),
        ("[model]\nname = 'a'", "model: expected str, got dict"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, line), {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "int8"}, "--dtype: expected bfloat16, float16, float32, auto, got 'int8'"),
        ({"scope": "none"}, "--scope: expected .*instruction.*, got 'none'"),
        ({"signal": "up"}, "--signal: expected gate, product, got 'up'"),
        ({"ties": "some"}, "--ties: expected inclusive, exclusive, exact, got 'some'"),
        ({"retain": "all"}, "--retain: expected .*counts.*, got 'all'"),
        ({"engine": "onnx"}, "--engine: expected .*transformers.*, got 'onnx'"),
        ({"limit": 0}, "--limit: must be at least 1, got 0"),
        ({"max_tokens": -1}, "--max-tokens: must be at least 1, got -1"),
        ({"batch_tokens": 0}, "--batch-tokens: must be at least 1, got 0"),
        ({"batch_tokens": "most"}, "--batch-tokens: expected int or auto, got str 'most'"),
        ({"batch_tokens": "auto", "engine": "vllm"}, "auto: only the transformers engine measures"),
        ({"slots": 0}, "--slots: must be at least 1, got 0"),
        ({"actors": 0}, "--actors: must be at least 1, got 0"),
        ({"cpus": 0}, "--cpus: must be at least 1, got 0"),
        ({"context": 0, "engine": "vllm"}, "--context: must be at least 1, got 0"),
        ({"context": 64}, "--context: only --engine vllm has it"),
        ({"part_size": 0}, "--part-size: must be at least 1, got 0"),
        ({"gpus": -1.0}, "--gpus: must be at least 0, got -1.0"),
        ({"gpus": float("nan")}, "--gpus: must be at least 0, got nan"),
        ({"threshold": float("nan")}, "--threshold: must be a number, got nan"),
        ({"threshold": float("inf")}, "--threshold: must be a number, got inf"),
        ({"signs": True, "threshold": 0.5}, "--signs: needs --threshold 0 .*, got 0.5 and gate"),
        ({"signs": True, "signal": "product"}, "--signs: needs .*, got 0 and product"),
        ({"rule": "top:2"}, "rule: expected top:NUMBER .* got 'top:2'"),
        ({"expert_rule": "high"}, "rule: expected .*lift:NUMBER.* got 'high'"),
    ],
)
def test_a_bad_value_is_refused_wherever_it_comes_from(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig(**values)
    with pytest.raises(InputError, match=message):
        load_config(None, values)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"model = ", "not TOML: Invalid value"), (b"x = '\xff'", "not TOML: .*utf-8")],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"config .*run.toml: {message}"):
        load_config(path, {})


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.toml: cannot be read: No such file"):
        load_config(tmp_path / "none.toml", {})
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})


def test_the_selection_is_that_of_the_config() -> None:
    config = RunConfig(rule="fixed:0.5", expert_rule="lift:2", ties="exact", pool=True)
    assert config.selection() == Selection("fixed:0.5", "lift:2", "exact", True)


@pytest.mark.parametrize(
    ("model", "corpus", "expected"),
    [
        ("default", "hexainst", "runs/default-hexainst"),
        ("owner/Some-7B", "data/my set.jsonl", "runs/Some-7B-my-set.jsonl"),
        ("/models/x/", "../", "runs/x-.."),
    ],
)
def test_a_run_is_named_after_model_and_corpus(model: str, corpus: str, expected: str) -> None:
    assert RunConfig(model=model, corpus=corpus).run_dir() == expected
    assert RunConfig(model=model, corpus=corpus, out="here").run_dir() == "here"


def test_flags_are_written_with_dashes() -> None:
    assert flag("max_tokens") == "--max-tokens"


def test_the_paper_s_pairs_come_along() -> None:
    pairs = {p.stem.rpartition("-")[0] for p in CONFIGS if p.stem.endswith(("-base", "-tuned"))}
    assert pairs == {"llama2-7b", "llama2-13b", "mistral-7b", "qwen1.5-moe"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_configs_that_come_along_are_valid(path: Path) -> None:
    config = load_config(path, {})
    for key, value in tomllib.loads(path.read_text("utf-8")).items():
        assert getattr(config, key.replace("-", "_")) == value


def test_a_list_in_toml_is_a_repeated_flag(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('map = ["instruction=prompt"]\nfill = ["category=QA"]\ncategories = "QA,SUM"\n')
    config = load_config(file, {})
    assert config.map == ("instruction=prompt",)
    assert config.reading().categories == ("QA", "SUM")
    assert config.to_json()["map"] == ["instruction=prompt"]
    assert RunConfig.from_json(config.to_json()) == config
    file.write_text('map = ["instruction=prompt", 3]\n')
    with pytest.raises(InputError, match="map: expected str, got int 3"):
        load_config(file, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map": ("nonsense",)}, "map"),
        ({"categories": "A,,B"}, "categories: expected distinct names"),
        ({"generate": 4}, "only --engine vllm writes answers"),
        ({"date": "2024-02-30"}, "--date: expected YYYY-MM-DD, got '2024-02-30'"),
        ({"date": "20240229"}, "--date: expected YYYY-MM-DD, got '20240229'"),
        ({"date": ""}, "--date: expected YYYY-MM-DD, got ''"),
        ({"temperature": -1.0}, "--temperature: must be at least 0, got -1.0"),
    ],
)
def test_bad_corpus_keys(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("part-size = 4\npart_size = 5\n", "'part_size' comes twice, with - and with _"),
        ("slots = 4\nslots = 5\n", "not TOML: Cannot overwrite a value"),
        ("map = 3\n", "map: expected list, got int 3"),
        ("fill = {a = 1}\n", "fill: expected list, got dict"),
        ("map = [[1]]\n", "map: expected str, got list"),
        ("map = " + "[" * 3000, "not TOML: it is nested too deeply"),
        ("[a" + ".a" * 3000 + "]\n", "unknown key 'a'"),
        ('out = "a\\u0000b"\n', "--out: expected text, got"),
        ("seed = -1\n", "--seed: must be at least 0, got -1"),
        (f"slots = 1{'0' * 30}\n", "--slots: must be at most 2147483647, got 1000"),
        (f"gpus = 1{'0' * 400}\n", "gpus: expected float, got int 1000"),
        (f"seed = 1{'0' * 5000}\n", "not TOML: Exceeds the limit"),
        ("threshold = 1e999\n", "--threshold: must be a number, got inf"),
        (f"{'x' * 100_000} = 1\n", "unknown key 'x"),
        ("resources = 'A=1,A=2'\n", "--resources: expected NAME=AMOUNT,..., got 'A=1,A=2'"),
        ("resources = 'A=inf'\n", "--resources: expected NAME=AMOUNT"),
        ("resources = 'GPU=1'\n", "--resources: GPU has a flag of its own: --cpus, --gpus"),
    ],
)
def test_a_file_that_is_not_a_config(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(written(tmp_path, text), {})
    assert message in str(caught.value)
    assert len(str(caught.value)) < 450


def test_a_date_may_be_one_of_toml(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "date = 2026-11-30\n"), {}).date == "2026-11-30"


@pytest.mark.parametrize("value", ["3", 3.0, True, [3]])
def test_a_value_of_the_wrong_type_is_refused_in_python_too(value: object) -> None:
    with pytest.raises(InputError, match="--slots: expected int, got"):
        RunConfig(slots=value)
    with pytest.raises(InputError, match=r"run.json: config: slots: expected int, got"):
        RunConfig.from_json({"slots": value})


def test_an_unknown_key_of_a_stored_config_is_named() -> None:
    with pytest.raises(InputError, match="unknown key 'slotz'; did you mean 'slots'"):
        RunConfig.from_json({"slotz": 3})


@pytest.mark.parametrize(("old", "new"), [("set", "fill"), ("count_tokens", "max_tokens")])
def test_a_key_of_an_older_version_names_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"{old} = 1\n")
    with pytest.raises(InputError, match=f"'{old}' is now called '{new}'"):
        load_config(file, {})
