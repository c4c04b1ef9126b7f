"""Quantised weights: what a model's config says of them, and which are read by which engine.

vLLM multiplies them as they are. transformers turns some into plain weights while it loads them;
where a format rounds the inputs of its products too, they are rounded as the format says.
"""

import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparcom.errors import InputError

FILE = "hf_quant_config.json"
"""What NVIDIA's modelopt writes beside config.json."""
_KEYS = ("quantization_config", "quantization", "compression_config")
# What transformers turns into plain weights, and what it multiplies as it is -> the package that
# it needs for it.
_MADE_PLAIN = {"fp8": None, "mxfp4": None, "compressed-tensors": "compressed_tensors"}
_KEPT = {"bitsandbytes": "bitsandbytes", "torchao": "torchao"}
_BY_TRANSFORMERS: dict[str, str | None] = {**_MADE_PLAIN, **_KEPT}


@dataclass(frozen=True)
class Quantisation:
    """How a model's weights are quantised.

    method: the config's `quant_method`. settings: all that the config says of it.
    """

    method: str
    settings: dict[str, Any]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """compressed-tensors: one entry for each group of layers that are quantised alike."""
        return list((self.settings.get("config_groups") or {}).values())

    @property
    def rounds_inputs(self) -> bool:
        """True if the format rounds the inputs of its products too, or may do so."""
        if self.method == "compressed-tensors":
            return any(group.get("input_activations") for group in self.groups)
        return self.method not in ("gptq", "awq", "bitsandbytes", "mxfp4")

    @property
    def why_alone(self) -> str | None:
        """Why transformers must read each prompt in a pass of its own; None: it need not.

        Rows that are rounded by what the other rows of their pass hold depend on its prompts.
        """
        inputs = [group.get("input_activations") or {} for group in self.groups]
        shared = any(i.get("dynamic") and i.get("strategy") == "tensor" for i in inputs)
        eight = self.method == "bitsandbytes" and bool(self.settings.get("load_in_8bit"))
        if shared or eight:
            return f"its quantised products ({self.method}) round by all rows of a pass"
        return None

    @property
    def rounded_by_transformers(self) -> bool:
        """True if transformers rounds those inputs as vLLM does: to integers."""
        inputs = [group.get("input_activations") or {} for group in self.groups]
        return self.method == "compressed-tensors" and all(
            i.get("type", "int") == "int" for i in inputs
        )


def quantisation_of(config: Any) -> Quantisation | None:
    """What a model's config, or its text config, says of quantised weights; None: they are plain.

    config: of transformers. What was dequantised when it was written, as our GGUF conversion is,
    says nothing. modelopt may say it in `FILE` alone.
    """
    for part in (config, config.get_text_config()):
        for name in _KEYS:
            if found := getattr(part, name, None):
                settings = found if isinstance(found, dict) else found.to_dict()
                return Quantisation(str(settings.get("quant_method", "method unknown")), settings)
    if (Path(config.name_or_path or "/none") / FILE).is_file():
        return Quantisation("modelopt", {})
    return None


def without_quantisation(config: Any) -> Any:
    """A copy of a config of transformers that says nothing of quantised weights."""
    plain = copy.deepcopy(config)
    for part in (plain, plain.get_text_config()):
        for name in _KEYS:
            if hasattr(part, name):
                delattr(part, name)
    return plain


def check_readable(model: str, config: Any) -> Quantisation | None:
    """What `quantisation_of` says, if transformers can read such weights here.

    model: how messages call it. Raises InputError for a format that it does not read.
    """
    found = quantisation_of(config)
    if found is None:
        return None
    if found.method not in _BY_TRANSFORMERS:
        raise InputError(
            f"model {model}: its weights are quantised ({found.method}), which the transformers "
            "engine does not read; use --engine vllm, or give the model in bfloat16, float16 or "
            "float32, or as a .gguf file"
        )
    if any((group.get("weights") or {}).get("strategy") == "block" for group in found.groups):
        raise InputError(
            f"model {model}: its weights are quantised in blocks ({found.method}), which the "
            "transformers engine does not read; use --engine vllm"
        )
    package = _BY_TRANSFORMERS[found.method]
    if package is not None and find_spec(package) is None:
        raise InputError(
            f"model {model}: its weights are quantised ({found.method}), which transformers reads "
            f"with the package {package}; `pip install --no-deps {package.replace('_', '-')}`"
        )
    return found


def dequantise(model: str, config: Any) -> None:
    """Tell transformers to turn quantised weights into plain ones while it loads them, if it can.

    config: of transformers, which may be changed. Raises as `check_readable`.
    """
    found = check_readable(model, config)
    if found is not None and found.method in _MADE_PLAIN:
        config.quantization_config = {**found.settings, "dequantize": True}
