"""Where the FFN activations of a transformers model are, and the counting code put there.

An FFN is recognised by its parts, not by the model's name: a gated one has gate and up projections
(two modules, or one merged) and a down projection; an ungated one has two projections with an
activation between. After the weights are loaded each kind of FFN is run once with and without
counting on random rows, so that a module that only looks like a known one cannot pass.
"""

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sparcom.components import ComponentSpace, Site
from sparcom.counting.recorder import Recorder
from sparcom.engines.transformers import moe
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
    "ReLU": "relu",
    "ReLUSquaredActivation": "relu2",
}
SUPPORTED = (
    "gate_proj/up_proj/down_proj, gate_up_proj/down_proj, c_fc/c_proj, "
    "dense_h_to_4h/dense_4h_to_h, fc1/fc2, up_proj/down_proj, and routed experts of transformers' "
    "experts interface,"
)
PROBE_ROWS = 4
_ACT_NAMES = ("act_fn", "activation_fn", "act", "activation")
_UNGATED = (
    ("c_fc", "c_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc1", "fc2"),
    ("up_proj", "down_proj"),
)

CountSite = Callable[[int, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Ffn:
    """One FFN of a model: the module, its place, and how gate and up come out of it.

    form: "gated" | "merged" | "ungated" | "routed".
    act: name of the activation's attribute.
    """

    site: Site
    name: str
    module: nn.Module
    form: str
    act: str


def find_ffns(model: nn.Module) -> list[Ffn]:
    """All FFNs of a causal language model, in the order of its layers.

    Works on a model on the meta device, so that support is known before weights are read.
    Raises InputError naming the module that is not known.
    """
    ffns = []
    for layer, (name, block) in enumerate(decoder_layers(model)):
        found = list(_ffns_of(block, name, layer))
        if not found:
            raise InputError(_unsupported(model, name, block, "no FFN found in it"))
        if len({ffn.site.kind for ffn in found}) < len(found):
            names = ", ".join(ffn.name for ffn in found)
            why = f"several FFNs of one kind ({names}), such as experts that are modules"
            raise InputError(_unsupported(model, name, block, why))
        ffns += found
    return ffns


def space_of(ffns: list[Ffn]) -> ComponentSpace:
    """The component space of a model's FFNs."""
    return ComponentSpace(tuple(ffn.site for ffn in ffns))


def decoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """`(qualified name, module)` of the decoder layers: the longest list of equal blocks."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    lists = [(n, m) for n, m in lists if any(p is not None for p in m[0].parameters())]
    if not lists:
        raise InputError(f"model {type(model).__name__}: no list of decoder layers found in it")
    # The outermost list: experts and the like are lists inside a layer.
    name, layers = min(lists, key=lambda item: (item[0].count("."), -len(item[1])))
    return [(f"{name}.{i}", layer) for i, layer in enumerate(layers)]


def _ffns_of(block: nn.Module, name: str, layer: int) -> Iterator[Ffn]:
    for child_name, module in block.named_modules(prefix=name):
        parts = dict(module.named_children())
        form = "routed" if moe.is_experts(module) else _form(parts)
        if form is None:
            continue
        act = next((n for n in _ACT_NAMES if n in parts or hasattr(module, n)), None)
        f = ACTIVATION_MODULES.get(type(getattr(module, act or "", None)).__name__)
        if form == "routed":
            owner = block.get_submodule(child_name.removeprefix(f"{name}.").rpartition(".")[0])
            try:
                site = moe.describe_experts(module, owner, layer, f)
            except InputError as error:
                raise InputError(_unsupported(None, child_name, module, str(error))) from None
            yield Ffn(site, child_name, module, form, act or "")
            continue
        if f is None:
            what = type(getattr(module, act, None)).__name__ if act else "none"
            raise InputError(_unsupported(None, child_name, module, f"activation {what}"))
        kind = "shared" if "shared" in child_name.removeprefix(name) else "dense"
        site = Site(kind, layer, _width(parts, form), f, gated=form != "ungated")
        yield Ffn(site, child_name, module, form, act)


def _form(parts: dict[str, nn.Module]) -> str | None:
    if {"gate_proj", "up_proj", "down_proj"} <= parts.keys():
        return "gated"
    if {"gate_up_proj", "down_proj"} <= parts.keys():
        return "merged"
    if any({first, second} <= parts.keys() for first, second in _UNGATED):
        return "ungated"
    return None


def _width(parts: dict[str, nn.Module], form: str) -> int:
    last = (
        parts["down_proj"]
        if form != "ungated"
        else next(parts[second] for first, second in _UNGATED if {first, second} <= parts.keys())
    )
    if isinstance(last, nn.Linear):
        return last.in_features
    return last.weight.shape[0]  # GPT-2's Conv1D keeps its weight as [in, out]


def _unsupported(model: nn.Module | None, name: str, module: nn.Module, why: str) -> str:
    owner = f"model {type(model).__name__}: " if model is not None else ""
    return (
        f"{owner}{name} ({type(module).__name__}) is not supported: {why}; supported are FFNs of "
        f"{SUPPORTED} with activations {', '.join(sorted(set(ACTIVATION_MODULES.values())))}"
    )


def instrument(ffns: list[Ffn], recorder: Recorder, batch_tokens: int) -> None:
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
    routed = [(at, f.name, f.module) for at, f in enumerate(ffns) if f.form == "routed"]
    moe.instrument_experts(routed, recorder, batch_tokens)
    count = recorder.count
    for at, ffn in enumerate(ffns):
        if ffn.form == "routed":
            continue
        if ffn.form == "ungated":
            setattr(ffn.module, ffn.act, _CountingActivation(count, at))
        else:
            forward = _gated_forward if ffn.form == "gated" else _merged_forward
            ffn.module.forward = types.MethodType(forward(count, at), ffn.module)


def _gated_forward(count: CountSite, at: int) -> Callable:
    def forward(self: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(hidden), self.up_proj(hidden)
        product = count(at, gate.flatten(0, -2), up.flatten(0, -2))
        return self.down_proj(product.view(gate.shape))

    return forward


def _merged_forward(count: CountSite, at: int) -> Callable:
    def forward(self: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        product = count(at, gate.flatten(0, -2), up.flatten(0, -2))
        return self.down_proj(product.view(gate.shape))

    return forward


class _CountingActivation(nn.Module):
    """f of an ungated FFN, counted."""

    def __init__(self, count: CountSite, at: int) -> None:
        super().__init__()
        self.count, self.at = count, at

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        return self.count(self.at, gate.flatten(0, -2), None).view(gate.shape)


def probe_inputs(ffns: list[Ffn]) -> dict[int, tuple[torch.Tensor, ...]]:
    """Arguments with PROBE_ROWS random rows for the first FFN of each class, keyed by site."""
    inputs: dict[int, tuple[torch.Tensor, ...]] = {}
    seen: set[tuple[type, str]] = set()
    generator = torch.Generator().manual_seed(0)
    for at, ffn in enumerate(ffns):
        key = (type(ffn.module), ffn.form)
        if key in seen or not _has_own_forward(ffn):
            continue
        seen.add(key)
        if ffn.form == "routed":
            inputs[at] = moe.probe_experts(ffn.module, ffn.site, PROBE_ROWS)
            continue
        weight = next(ffn.module.parameters())
        first = next(m for m in ffn.module.children() if hasattr(m, "weight"))
        hidden = first.in_features if isinstance(first, nn.Linear) else first.weight.shape[0]
        rows = torch.randn(PROBE_ROWS, hidden, generator=generator)
        inputs[at] = (rows.to(device=weight.device, dtype=weight.dtype),)
    return inputs


def _has_own_forward(ffn: Ffn) -> bool:
    """False for OPT's kind, where the FFN's parts lie in the decoder layer itself."""
    return not hasattr(ffn.module, "self_attn")


@torch.inference_mode()
def run_probe(
    ffns: list[Ffn], inputs: dict[int, tuple[torch.Tensor, ...]]
) -> dict[int, torch.Tensor]:
    """Output of each probed FFN, as its forward stands now."""
    return {at: ffns[at].module(*arguments) for at, arguments in inputs.items()}


def compare_probe(
    ffns: list[Ffn], before: dict[int, torch.Tensor], after: dict[int, torch.Tensor]
) -> None:
    """Raise InputError where counting changed what an FFN computes beyond rounding."""
    for at, plain in before.items():
        # Products of routed experts have other sizes with counting: other orders of rounding.
        units = 64 if ffns[at].form == "routed" else 8
        tolerance = units * torch.finfo(plain.dtype).eps * float(plain.abs().max())
        error = float((plain - after[at]).abs().max())
        if not error <= tolerance:
            raise InputError(
                f"{ffns[at].name} ({type(ffns[at].module).__name__}) looks like a {ffns[at].form} "
                f"FFN but computes something else: outputs differ by {error:.3g}; it is not "
                "supported"
            )
