"""Every weight matrix of a decoder layer is accounted for: attention, norm, router, or a known FFN.

An FFN that is not recognised would be left out of the counts in silence if its layer has another
one that is. So the model is refused if anything is left over once all known parts are taken away.
"""

import re
from collections.abc import Sequence

from torch import nn

from sparcom.engines.transformers.sites import TOKEN_MIXERS, Ffn, decoder_layers
from sparcom.errors import InputError

# Class names of modules that are no FFN.
_KNOWN_CLASSES = re.compile(
    TOKEN_MIXERS.pattern + "|Norm|Embedding"
    "|Router|MoE\\w*Gate"  # choose experts
    "|HyperConnection"  # DeepSeek-V4: mixes the streams of the residual, token by token
    "|Laurel|AltUp"  # Gemma 3n: linear maps of the residual, without an activation
)
# Gemma 3n and 4: a gate on an embedding of the token. It has an activation, but no neurons that
# the layer's own up projection feeds.
# Nemotron-H: linear maps around its experts.
_KNOWN_NAMES = {
    "per_layer_input_gate", "per_layer_projection", "fc1_latent_proj", "fc2_latent_proj",
}  # fmt: skip


def check_accounted(model: nn.Module, ffns: Sequence[Ffn]) -> None:
    """Raise InputError naming the first weight matrices that belong to no known part, or a second
    list of decoder layers."""
    _check_one_list(model)
    for layer, (name, block) in enumerate(decoder_layers(model)):
        known = {id(p) for f in ffns if f.site.layer == layer for p in f.weights()}
        left = [
            f"{name}.{path}"
            for path, parameter in block.named_parameters()
            if parameter.dim() > 1 and id(parameter) not in known and not _is_known(block, path)
        ]
        if left:
            shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
            raise InputError(
                f"model {type(model).__name__}: {shown}: weights of no attention, norm, router or "
                "FFN that is known; an FFN might be left out of the counts, so the model is not "
                "supported"
            )


def _check_one_list(model: nn.Module) -> None:
    layers = decoder_layers(model)
    inside = {id(m) for _, layer in layers for m in layer.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside and type(module) is type(layers[0][1]):
            raise InputError(
                f"model {type(model).__name__}: {name} is a decoder layer as {layers[0][0]} is, in "
                "another list; a model of several lists of layers is not supported"
            )


def _is_known(block: nn.Module, path: str) -> bool:
    """True for a parameter of a decoder layer that lies in a module that is no FFN."""
    parts = path.split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        module = block.get_submodule(".".join(parts[:depth]))
        if _KNOWN_CLASSES.search(type(module).__name__) or parts[depth - 1] in _KNOWN_NAMES:
            return True
        if isinstance(module, nn.Linear) and (
            module.out_features == 1 or parts[depth - 1] == "router"
        ):  # scales a shared expert; chooses experts (Jamba)
            return True
    return False
