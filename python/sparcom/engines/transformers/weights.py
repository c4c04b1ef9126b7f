"""The weights of a model fill it: nothing missing, nothing unexpected, every shape as the model's.

transformers gives what a checkpoint lacks random values, and says so in a report that nobody reads.
`check_files` asks for that report from the headers of the safetensors files alone, on the meta
device, so that a wrong file is refused while a run is planned, whatever engine will read it;
`load` asks for it again for the weights that are really loaded.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from sparcom.engines.transformers.packed import plain_headers
from sparcom.errors import InputError
from sparcom.quantisation import quantisation_of, without_quantisation

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_SHOWN = 3  # names in a message
_WRAPPERS = {
    "_orig_mod.": "saved from a compiled model: save `model._orig_mod` instead",
    "base_model.model.": "saved from a PEFT model: merge its adapter (`merge_and_unload`) and save "
    "the result",
    "module.": "saved from a wrapped model: save `model.module` instead",
}
_ADAPTER = re.compile(r"\.(lora_\w+|base_layer|modules_to_save|ia3_l|hada_w\w*)(\.|$)")


@dataclass(frozen=True)
class Report:
    """What loading found. mismatched: (name, shape in the file, shape in the model) each."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Report":
        """The report of `from_pretrained(..., output_loading_info=True)`."""
        return cls(
            tuple(sorted(found["missing_keys"], key=_natural)),
            tuple(sorted(found["unexpected_keys"], key=_natural)),
            tuple(sorted((n, tuple(a), tuple(b)) for n, a, b in found["mismatched_keys"])),
        )


def check_files(model: str, files: Sequence[Path], empty: PreTrainedModel) -> bool:
    """Compare the files of a model with the model that its config describes; no weight is read.

    model: how messages call it; empty: the model on the meta device.
    Returns False if only the language model head is missing (`check_report`).
    Raises InputError for files that cannot be read or do not fill the model.
    """
    headers, config = read_headers(model, files), empty.config
    if quantisation := quantisation_of(config):
        plain = plain_headers(model, quantisation, headers)
        if plain is None:  # loading compares what it can
            return True
        headers, config = plain, without_quantisation(config)
    transformers_logging.disable_progress_bar()
    try:
        _, found = type(empty).from_pretrained(
            None,
            config=config,
            state_dict=headers,
            device_map={"": "meta"},
            dtype=empty.dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # conversions fail each in its own way
        raise InputError(
            f"model {model}: its weights do not fill it: {conversion_error(error)}"
        ) from error
    return check_report(model, Report.of(found), empty)


def read_headers(model: str, files: Iterable[Path]) -> dict[str, torch.Tensor]:
    """name -> a tensor on the meta device, of all tensors of safetensors files.

    Raises InputError naming the file that is damaged, and for a tensor that lies in two files.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as data:
                names = data.keys()
                for name in names:
                    if name in tensors:
                        raise InputError(
                            f"model {model}: {name} lies in {file.name} and in another file; keep "
                            "the files of one model in a folder"
                        )
                    part = data.get_slice(name)
                    dtype = _DTYPES.get(part.get_dtype(), torch.uint8)
                    tensors[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"model {model}: {file.name} cannot be read as safetensors: {_first_line(error)}; "
                "fetch it again"
            ) from error
    return tensors


def check_report(model: str, report: Report, loaded: PreTrainedModel) -> bool:
    """True if the weights fill the model; False if only its language model head is missing,
    which no count needs.

    Raises InputError naming the first tensors that are missing, unexpected or of another shape, and
    the likely cause.
    """
    head = _head_names(loaded)
    missing = [name for name in report.missing if name not in head]
    headless = len(missing) < len(report.missing)
    if not (missing or report.unexpected or report.mismatched):
        return not headless
    parts = []
    shapes = [f"{n} {list(a)}, expected {list(b)}" for n, a, b in report.mismatched]
    for names, one, many in (
        (missing, "is missing", "are missing"),
        (report.unexpected, "is not the model's", "are not the model's"),
        (shapes, "has another shape", "have another shape"),
    ):
        if names:
            what = f"1 tensor {one}" if len(names) == 1 else f"{len(names)} tensors {many}"
            parts.append(f"{what} ({_shown(names)})")
    raise InputError(
        f"model {model}: its weights do not fill it: {'; '.join(parts)}; likely cause: "
        f"{_likely_cause(missing, report, loaded.config)}"
    )


def conversion_error(error: Exception) -> str:
    """What to say of an error that transformers raises while it converts tensors."""
    if "conversion of the weights" in str(error):
        return (
            "tensors that the model fuses, such as those of its experts, are not all there or not "
            "of one shape; fetch the model again"
        )
    return f"{type(error).__name__}: {_first_line(error)}"


def _head_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of the language model head."""
    head = model.get_output_embeddings()
    if head is None:
        return set()
    name = next(name for name, module in model.named_modules() if module is head)
    return {f"{name}.{part}" for part, _ in head.named_parameters()}


def _likely_cause(missing: Sequence[str], report: Report, config: Any) -> str:
    """What probably happened, and what to do."""
    unexpected = report.unexpected
    if any(_ADAPTER.search(name) for name in unexpected):
        return (
            "these are the weights of an adapter; merge it into its base model "
            "(`merge_and_unload`) and save the result"
        )
    for prefix, cause in _WRAPPERS.items():
        if any(name.startswith(prefix) or f".{prefix}" in name for name in unexpected):
            return f"the prefix {prefix!r}, {cause}"
    layers = _layers(missing), _layers(unexpected)
    text = config.get_text_config()
    if all(m is not None for m in map(_layer, missing)) and missing and not unexpected:
        if max(layers[0]) == text.num_hidden_layers - 1:
            return (
                f"config.json says {text.num_hidden_layers} layers, and the files end before layer "
                f"{min(layers[0])}, or a file is incomplete"
            )
        return "a file that is incomplete; fetch the model again"
    if unexpected and layers[1] and min(layers[1]) >= text.num_hidden_layers and not missing:
        return (
            f"config.json says {text.num_hidden_layers} layers, and the files hold "
            f"{max(layers[1]) + 1}"
        )
    if report.mismatched and not missing and not unexpected:
        (name, in_file, in_model), *_ = report.mismatched
        if in_file[1:] == in_model[1:] and ".experts." in name:
            return f"config.json says {in_model[0]} experts, and the files hold {in_file[0]}"
        if in_file[1:] == in_model[1:] and text.vocab_size == in_model[0]:
            return (
                f"config.json says vocab_size {in_model[0]}, and the files hold {in_file[0]} rows"
            )
    return "config.json is another model's"


def _layer(name: str) -> int | None:
    numbers = re.findall(r"\.(\d+)\.", name)
    return int(numbers[0]) if numbers else None


def _layers(names: Iterable[str]) -> set[int]:
    return {layer for layer in map(_layer, names) if layer is not None}


def _shown(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which layer 2 comes before layer 10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
