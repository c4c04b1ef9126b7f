"""Where the FFN activations of a transformers model are, and the counting code put there.

An FFN is recognised by its parts, not by the model's name: a gated one has gate and up projections
(two modules, or one merged) and a down projection; an ungated one has two projections with an
activation between. A module that only looks like a known FFN is caught by the proof
(`proof.prove`), which compares every layer with the unmodified one.
"""

import re
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from sparcom.components import ComponentSpace, Site, site_order
from sparcom.counting.activations import ACTIVATIONS
from sparcom.counting.recorder import Recorder
from sparcom.engines.transformers import gating, moe, scaled_experts
from sparcom.errors import InputError

# Class names of transformers' and torch's activation modules, and their f.
ACTIVATION_MODULES = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "BloomGelu": "gelu_tanh",
    "ReLU": "relu",
    "ReLUSquaredActivation": "relu2",
}
# Names of the parts of each form, in the order gate, up, down (merged and ungated: first, down).
_PARTS = {
    "gated": (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")),
    "merged": (("gate_up_proj", "down_proj"), ("input_linear", "output_linear")),
    "ungated": (
        ("c_fc", "c_proj"),
        ("dense_h_to_4h", "dense_4h_to_h"),
        ("fc1", "fc2"),
        ("fc_in", "fc_out"),
        ("up_proj", "down_proj"),
    ),
}
SUPPORTED = (
    ", ".join("/".join(names) for known in _PARTS.values() for names in known)
    + ", and routed experts of transformers' experts interface,"
)
# Class names of modules that mix tokens and hold no FFN.
TOKEN_MIXERS = re.compile("Attention|Attn|Mamba|Mixer|DeltaNet|ShortConv|RecurrentBlock")
_ACT_NAMES = ("act_fn", "activation_fn", "act", "activation", "gelu_impl")

CountSite = Callable[[int, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Ffn:
    """One FFN of a model: the module, its place, and how gate and up come out of it.

    form: "gated" | "merged" | "ungated" | "routed" | "scaled" (`scaled_experts`: the module is the
        block that holds the experts).
    act: name of the activation's attribute; "" if its activation is no module.
    parts: names of the projections (`_PARTS`), or of the fused weights and biases of experts.
    """

    site: Site
    name: str
    module: nn.Module
    form: str
    act: str
    parts: tuple[str, ...]

    def weights(self) -> Iterator[nn.Parameter]:
        """The parameters of its projections."""
        for part in (attrgetter(name)(self.module) for name in self.parts):
            yield from [part] if isinstance(part, nn.Parameter) else part.parameters()


def find_ffns(model: nn.Module) -> list[Ffn]:
    """All FFNs of a causal language model, in the order of its layers.

    Works on a model on the meta device, so that support is known before weights are read.
    Raises InputError naming the module that is not known.
    """
    ffns: list[Ffn] = []
    for layer, (name, block) in enumerate(decoder_layers(model)):
        found = list(_ffns_of(block, name, layer))
        if len({ffn.site.kind for ffn in found}) < len(found):
            names = ", ".join(ffn.name for ffn in found)
            why = f"several FFNs of one kind ({names}), such as experts that are modules"
            raise InputError(_unsupported(model, name, block, why))
        ffns += sorted(found, key=lambda ffn: site_order(ffn.site))  # AFMoE's shared one is first
    if not ffns:  # a layer without one is no fault: hybrids have some
        name, block = decoder_layers(model)[0]
        raise InputError(_unsupported(model, name, block, "no FFN found in it or in another layer"))
    return ffns


def space_of(ffns: list[Ffn]) -> ComponentSpace:
    """The component space of a model's FFNs."""
    return ComponentSpace(tuple(ffn.site for ffn in ffns))


def decoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """`(qualified name, module)` of the decoder layers: the longest list of equal blocks.

    Of a model that reads images too, those of its text model.
    """
    prefix, text = text_model(model)
    lists = [
        (name, module)
        for name, module in text.named_modules(prefix=prefix)
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    lists = [(n, m) for n, m in lists if any(p is not None for p in m[0].parameters())]
    if not lists:
        raise InputError(f"model {type(model).__name__}: no list of decoder layers found in it")
    # The outermost list: experts and the like are lists inside a layer.
    name, layers = min(lists, key=lambda item: (item[0].count("."), -len(item[1])))
    return [(f"{name}.{i}", layer) for i, layer in enumerate(layers)]


def text_model(model: nn.Module) -> tuple[str, nn.Module]:
    """(qualified name, module) of the part that has the text config of a model's config; the model
    itself if there is none."""
    config = getattr(model, "config", None)
    text = config.get_text_config() if isinstance(config, PreTrainedConfig) else None
    parts = ((n, m) for n, m in model.named_modules() if text and getattr(m, "config", 0) is text)
    return ("", model) if text is config else next(parts, ("", model))


def ffns_outside(
    model: nn.Module, layers: Sequence[tuple[str, nn.Module]]
) -> Iterator[tuple[str, nn.Module]]:
    """`(qualified name, module)` of what looks like an FFN and lies in none of these layers."""
    inside = {id(m) for _, layer in layers for m in layer.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside and _form(dict(module.named_children()))[0]:
            yield name, module


def _ffns_of(block: nn.Module, name: str, layer: int) -> Iterator[Ffn]:
    scaled, mixers = set(), _inside_mixers(block)
    for child_name, module in block.named_modules(prefix=name):
        if scaled_experts.is_scaled(module):
            scaled.add(module.get_submodule("experts"))
            yield _scaled_ffn(child_name, module, layer)
        elif moe.is_experts(module):
            if module not in scaled | mixers:
                yield _routed_ffn(block, name, child_name, module, layer)
        else:
            children = dict(module.named_children())
            form, parts = _form(children)
            if form is not None:
                kind = "shared" if "shared" in child_name.removeprefix(name) else "dense"
                f, act = _activation(child_name, module, form, parts)
                site = Site(kind, layer, _width(children[parts[-1]]), f, gated=form != "ungated")
                yield Ffn(site, child_name, module, form, act, parts)


def _inside_mixers(block: nn.Module) -> set[nn.Module]:
    """The modules of a decoder layer that mix tokens, with all that lies in them.

    Some hold fused weights of three dimensions, one for each head, that are no experts.
    """
    inside = (m for m in block.modules() if m is not block)  # Jamba's layer has Mamba in its name
    mixers = [m for m in inside if TOKEN_MIXERS.search(type(m).__name__)]
    return {part for mixer in mixers for part in mixer.modules()}


def _known_act(module: nn.Module) -> tuple[str, str | None]:
    """(name of the activation's attribute or "", its f or None)."""
    children = dict(module.named_children())
    act = next((n for n in _ACT_NAMES if n in children or hasattr(module, n)), "")
    return act, ACTIVATION_MODULES.get(type(getattr(module, act, None)).__name__)


def _scaled_ffn(name: str, module: nn.Module, layer: int) -> Ffn:
    act, f = _known_act(module.get_submodule("experts"))
    try:
        site = scaled_experts.describe(module, layer, f)
    except InputError as error:
        raise InputError(_unsupported(None, name, module, str(error))) from None
    parts = "experts.gate_up_proj", "experts.down_proj"
    return Ffn(site, name, module, "scaled", f"experts.{act}", parts)


def _routed_ffn(block: nn.Module, prefix: str, name: str, module: nn.Module, layer: int) -> Ffn:
    act, f = _known_act(module)
    owner = block.get_submodule(name.removeprefix(f"{prefix}.").rpartition(".")[0])
    try:
        site = moe.describe_experts(module, owner, layer, f)
    except InputError as error:
        raise InputError(_unsupported(None, name, module, str(error))) from None
    fused = (*moe.weight_names(module), *moe.bias_names(module))
    return Ffn(site, name, module, "routed", act, fused)


def _activation(name: str, module: nn.Module, form: str, parts: tuple[str, ...]) -> tuple[str, str]:
    """(name of f, name of the activation's attribute) of an FFN that is no experts."""
    act, f = _known_act(module)
    if form != "ungated" and (f is None or gating.has_limit(module)):
        try:
            f = gating.gating_of_mlp(module, f, parts)
        except InputError as error:
            why = f"{error} ({_activation_of(module, act)})"
            raise InputError(_unsupported(None, name, module, why)) from None
    if f is None:
        raise InputError(_unsupported(None, name, module, _activation_of(module, act)))
    return f, act


def _activation_of(module: nn.Module, act: str) -> str:
    return f"activation {type(getattr(module, act)).__name__ if act else 'none'}"


def _form(children: dict[str, nn.Module]) -> tuple[str | None, tuple[str, ...]]:
    """(form, names of the parts) of a module with these children."""
    for form, known in _PARTS.items():
        for names in known:
            if set(names) <= children.keys():
                return form, names
    return None, ()


def _width(down: Any) -> int:
    if isinstance(down, nn.Linear):
        return down.in_features
    return down.weight.shape[0]  # GPT-2's Conv1D keeps its weight as [in, out]


def _unsupported(model: nn.Module | None, name: str, module: nn.Module, why: str) -> str:
    owner = f"model {type(model).__name__}: " if model is not None else ""
    return (
        f"{owner}{name} ({type(module).__name__}) is not supported: {why}; supported are FFNs of "
        f"{SUPPORTED} with activations {', '.join(ACTIVATIONS)}"
    )


class Instrumentation:
    """The counting code of a model, which can be taken out for a while."""

    def __init__(self) -> None:
        self._swaps: list[tuple[object, str, object, object]] = []

    def put(self, owner: object, name: str, counting: object, plain: object) -> None:
        """Let an attribute be `counting`, and `plain` while the code is taken out."""
        self._swaps.append((owner, name, counting, plain))
        setattr(owner, name, counting)

    @contextmanager
    def taken_out(self) -> Iterator[None]:
        """Within the block, all modules are as transformers made them."""
        for owner, name, _, plain in self._swaps:
            setattr(owner, name, plain)
        try:
            yield
        finally:
            for owner, name, counting, _ in self._swaps:
                setattr(owner, name, counting)


def instrument(ffns: list[Ffn], recorder: Recorder, batch_tokens: int) -> Instrumentation:
    """Put counting into every FFN: f(gate) * up is computed by `recorder.count(site, gate, up)`.

    batch_tokens: rows of a pass.
    Gated FFNs get a forward of their own; in ungated ones the activation module is replaced, which
    leaves the rest of the layer (OPT has no MLP module) as it is; routed experts get an
    implementation of transformers' experts interface.
    Raises InputError naming a module whose weights are not there (on the meta device).
    """
    for ffn in ffns:
        if any(p.is_meta for p in ffn.module.parameters()):
            raise InputError(
                f"{ffn.name} ({type(ffn.module).__name__}): its weights are on the meta device, so "
                "it cannot run here; load the whole model, without offloading"
            )
        if ffn.form == "scaled" and recorder.magnitudes:
            raise InputError(
                f"magnitudes: {ffn.name} multiplies an expert's input, not its output, by the "
                "router weight, so that its output has no norm of its own"
            )
    put_in = Instrumentation()
    prepare_experts(ffns, recorder, batch_tokens)
    for at, ffn in enumerate(ffns):
        module = ffn.module
        if ffn.form == "routed":
            put_in.put(module.config, "_experts_implementation", moe.NAME, "eager")
        elif ffn.form == "scaled":
            forward = scaled_experts.counting_forward(getattr(module, moe.RUNNER))
            put_in.put(module, "forward", types.MethodType(forward, module), module.forward)
        elif ffn.form == "ungated":
            act = getattr(module, ffn.act)
            put_in.put(module, ffn.act, _CountingActivation(recorder.count, at), act)
        else:
            of_form = _gated_forward if ffn.form == "gated" else _merged_forward
            counting = types.MethodType(of_form(recorder.count, at, *ffn.parts), module)
            put_in.put(module, "forward", counting, module.forward)
    return put_in


def prepare_experts(ffns: list[Ffn], recorder: Recorder, batch_tokens: int) -> None:
    """Give routed FFNs what computes their experts, in products that suit passes of so many rows.
    It may be done again for another number."""
    routed = [(at, f.name, f.module) for at, f in enumerate(ffns) if f.site.kind == "routed"]
    moe.prepare_experts(routed, recorder, batch_tokens)


def _gated_forward(count: CountSite, at: int, gate_name: str, up_name: str, down: str) -> Callable:
    def forward(self: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = getattr(self, gate_name)(hidden), getattr(self, up_name)(hidden)
        product = count(at, gate.flatten(0, -2), up.flatten(0, -2))
        return getattr(self, down)(product.view(gate.shape))

    return forward


def _merged_forward(count: CountSite, at: int, first: str, down: str) -> Callable:
    def forward(self: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = getattr(self, first)(hidden).chunk(2, dim=-1)
        product = count(at, gate.flatten(0, -2), up.flatten(0, -2))
        return getattr(self, down)(product.view(gate.shape))

    return forward


class _CountingActivation(nn.Module):
    """f of an ungated FFN, counted."""

    def __init__(self, count: CountSite, at: int) -> None:
        super().__init__()
        self.count, self.at = count, at

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        return self.count(self.at, gate.flatten(0, -2), None).view(gate.shape)
