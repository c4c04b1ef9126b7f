"""The files of a model's folder: which they are, and whether its config is one of a model."""

from pathlib import Path
from typing import Any

from sparcom.documents import Schema, check_schema, parse_json, read_document
from sparcom.errors import InputError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Of more layers a model would take minutes to build, and none is known.
_LAYERS = {"type": ["integer", "null"], "minimum": 1, "maximum": 2000}
# Some models have a list of one for each layer, or null for none.
_SIZE = {"type": ["integer", "null", "array"], "minimum": 1, "maximum": 1 << 32}
_EXPERTS = {"type": ["integer", "null", "array"], "minimum": 0, "maximum": 1 << 20}
CONFIG_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "model_type": {"type": ["string", "null"]},
        **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), _LAYERS),
        **dict.fromkeys(
            ("hidden_size", "n_embd", "d_model", "vocab_size", "num_attention_heads", "n_head"),
            _SIZE,
        ),
        **dict.fromkeys(("max_position_embeddings", "n_positions"), _SIZE),
        **dict.fromkeys(
            ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"),
            _EXPERTS,
        ),
        "quantization_config": {"type": ["object", "null"]},
        "text_config": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    },
    "patternProperties": {
        "_token_id$": {"type": ["integer", "null", "array"], "items": {"type": "integer"}}
    },
}
"""What `config.json` must be, that transformers does not check before it builds a model."""


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
    check_config(_json_of(path, "config.json"), f"model {path}: config.json")
    weight_files(path)


def check_config(config: dict[str, Any], where: str) -> None:
    """Raise InputError, naming `where` and the key, for a config that no model has."""
    check_schema(config, CONFIG_SCHEMA, where, "it is damaged; fetch the model again")


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
    whole, index = folder / WHOLE, folder / INDEX
    if not index.is_file():
        if whole.is_file():
            return [whole]
        raise InputError(f"model {folder}: no {WHOLE} or {INDEX} in the folder{_other(folder)}")
    if whole.is_file():
        raise InputError(
            f"model {folder}: {WHOLE} and {INDEX} are both there; remove the one that is not the "
            "model's"
        )
    names = _json_of(folder, INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise InputError(f"model {folder}: {INDEX} has no weight_map of names to files")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"model {folder}: {INDEX} names {name}; expected *.safetensors files in the folder"
            )
        if not (folder / name).is_file():
            raise InputError(f"model {folder}: {name}, which {INDEX} names, is not in the folder")
    return [folder / name for name in files]


def _json_of(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object that a file of a model's folder holds."""
    where = f"model {folder}: {name}"
    return parse_json(read_document(folder / name, where), where)


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
