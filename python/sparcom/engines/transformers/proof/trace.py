"""What the modules of a model take in and put out during one pass, by plain hooks.

A trace of transformers' own pass is what an engine's pass is compared with. In the engine's pass
each decoder layer is given the input that transformers' own layer had, so that differences do not
add up from layer to layer, and each layer is judged by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sparcom.engines.transformers import scaled_experts
from sparcom.engines.transformers.sites import Ffn, decoder_layers, ffns_outside
from sparcom.errors import InputError

INPUT, OUTPUT = "input", "output"


@dataclass
class Trace:
    """One pass of `rows` rows.

    states: (module, INPUT or OUTPUT) -> [rows, ...], in the order in which they came.
    gates: site -> what its activation took in, a call each, [rows of the call, width].
    routed: site -> (ids, weights) of its experts, each [rows, top_k].
    """

    rows: int
    states: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    gates: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    routed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def keep(self, name: str, which: str, value: object, once: bool = True) -> None:
        """Keep a state, rows first.

        once: raise InputError for a module that runs again; else keep its first call.
        """
        tensor = first_tensor(value)
        if tensor is None or (axis := row_axis(tensor, self.rows)) is None:
            return
        if (name, which) not in self.states:
            self.states[name, which] = tensor.detach().movedim(axis, 0).flatten(1)
        elif once:
            raise InputError(
                f"{name} runs more than once in a pass; only modules that run once are counted"
            )


@dataclass(frozen=True)
class Points:
    """The modules that are traced.

    layers: decoder layers. parts: their direct children. ffns: of each site. outside: what looks
    like an FFN and lies in no decoder layer, such as a vision tower's.
    """

    layers: tuple[tuple[str, nn.Module], ...]
    parts: tuple[tuple[str, nn.Module], ...]
    ffns: tuple[Ffn, ...]
    outside: tuple[tuple[str, nn.Module], ...]

    @classmethod
    def of(cls, model: nn.Module, ffns: Sequence[Ffn]) -> "Points":
        layers = tuple(decoder_layers(model))
        parts = tuple(
            (f"{name}.{child}", module)
            for name, layer in layers
            for child, module in layer.named_children()
        )
        return cls(layers, parts, tuple(ffns), tuple(ffns_outside(model, layers)))


@contextmanager
def tracing(points: Points, rows: int, *, gates: bool = False) -> Iterator[Trace]:
    """Within the block, one pass is traced.

    gates: what activations take in too, which only unmodified modules show.
    """
    trace = Trace(rows)
    with ExitStack() as stack:

        def keep_input(name: str, module: nn.Module) -> None:
            def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
                trace.keep(name, INPUT, _hidden(args, kwargs))

            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

        def keep_output(name: str, module: nn.Module, once: bool = True) -> None:
            def hook(_: nn.Module, args: tuple, output: object) -> None:
                trace.keep(name, OUTPUT, output, once)

            stack.callback(module.register_forward_hook(hook).remove)

        for name, module in points.layers:
            keep_input(name, module)
            keep_output(name, module)
        for name, module in points.parts:
            keep_output(name, module, once=False)  # a layer may use a norm twice
        for name, module in points.outside:
            stack.callback(module.register_forward_pre_hook(_refuse(name)).remove)
        for at, ffn in enumerate(points.ffns):
            keep_input(*_entry(ffn))
            if ffn.form == "routed":
                stack.callback(_keep_routing(trace, at, ffn.module))
            if ffn.form == "scaled":
                stack.callback(_keep_scores(trace, at, ffn.module))
            if gates:
                stack.callback(_keep_gates(trace, at, ffn))
        yield trace


@contextmanager
def forced(points: Points, trace: Trace, given: Mapping[int, Trace]) -> Iterator[None]:
    """Within the block, layers and experts take in what other traces say.

    trace: of the pass that runs; given: first row -> the trace whose rows start there.
    Layer inputs are replaced after `trace` has kept them; ids and weights of experts likewise.
    """
    with ExitStack() as stack:

        def force_layer(name: str, module: nn.Module) -> None:
            def hook(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                hidden = _hidden(args, kwargs)
                states = {at: one.states[name, INPUT] for at, one in given.items()}
                return _replaced(args, kwargs, hidden, _put_rows(hidden, trace.rows, states))

            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

        def force_experts(at: int, module: nn.Module) -> None:
            def hook(_: nn.Module, args: tuple) -> tuple:
                forced = [
                    _put_rows(
                        own, trace.rows, {row: one.routed[at][i] for row, one in given.items()}
                    )
                    for i, own in enumerate(args[1:3])
                ]
                return (args[0], *forced, *args[3:])

            stack.callback(module.register_forward_pre_hook(hook).remove)

        def force_scores(at: int, module: nn.Module) -> None:
            def hook(router: nn.Module, args: tuple, output: tuple) -> tuple:
                scores, *others = output
                states = {
                    row: scaled_experts.scores_of(*one.routed[at], scores.shape[1])
                    for row, one in given.items()
                }
                return (_put_rows(scores, trace.rows, states), *others)

            stack.callback(module.get_submodule("router").register_forward_hook(hook).remove)

        for name, module in points.layers:
            force_layer(name, module)
        for at, ffn in enumerate(points.ffns):
            if ffn.form == "routed":
                force_experts(at, ffn.module)
            if ffn.form == "scaled":
                force_scores(at, ffn.module)
        yield


@contextmanager
def rounded_otherwise(points: Points) -> Iterator[None]:
    """Within the block, what each layer takes in is off by up to one unit in the last place, at
    random: as an implementation of the layers before it might have it that rounds elsewhere."""
    generator = torch.Generator().manual_seed(0)

    def hook(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = _hidden(args, kwargs)
        units = torch.rand(hidden.shape, generator=generator).mul_(2).sub_(1).to(hidden.device)
        moved = hidden.float() * (1 + torch.finfo(hidden.dtype).eps * units)
        return _replaced(args, kwargs, hidden, moved.to(hidden.dtype))

    with ExitStack() as stack:
        for _, module in points.layers:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _refuse(name: str) -> Callable[[nn.Module, tuple], None]:
    def hook(module: nn.Module, args: tuple) -> None:
        raise InputError(
            f"{name} ({type(module).__name__}) is an FFN outside the decoder layers, and would not "
            "be counted"
        )

    return hook


def _entry(ffn: Ffn) -> tuple[str, nn.Module]:
    """(name, module) of what takes in the hidden state of an FFN."""
    if ffn.form == "ungated":  # OPT has no module for the FFN as a whole
        return f"{ffn.name}.{ffn.parts[0]}", getattr(ffn.module, ffn.parts[0])
    return ffn.name, ffn.module


def entry_name(ffn: Ffn) -> str:
    """Under which name a trace keeps what an FFN takes in."""
    return _entry(ffn)[0]


def _keep_routing(trace: Trace, at: int, module: nn.Module) -> Callable[[], None]:
    def hook(_: nn.Module, args: tuple) -> None:
        trace.routed[at] = args[1].detach().clone(), args[2].detach().clone()

    return module.register_forward_pre_hook(hook).remove


def _keep_scores(trace: Trace, at: int, block: nn.Module) -> Callable[[], None]:
    def hook(_: nn.Module, args: tuple, output: tuple) -> None:
        ids, weights = scaled_experts.routing(output[0].detach())
        trace.routed[at] = ids, weights

    return block.get_submodule("router").register_forward_hook(hook).remove


def _keep_chosen_gates(trace: Trace, at: int, act: nn.Module) -> Callable[[], None]:
    """Keep the gates of the tokens that each expert is chosen for: it is given all of them."""

    def hook(_: nn.Module, args: tuple) -> None:
        ids, gates = trace.routed[at][0][:, 0], args[0].detach()  # [experts, tokens, width]
        trace.gates[at] = [gates[e][ids == e] for e in ids.unique().tolist()]

    return act.register_forward_pre_hook(hook).remove


def _keep_gates(trace: Trace, at: int, ffn: Ffn) -> Callable[[], None]:
    """Keep what the activation of an FFN takes in; without an activation module, the gate."""
    if ffn.form == "scaled":
        return _keep_chosen_gates(trace, at, ffn.module.get_submodule(ffn.act))

    def keep(gate: torch.Tensor) -> None:
        gate = gate.detach()
        trace.gates.setdefault(at, []).append(gate.reshape(-1, gate.shape[-1]).clone())

    module: Any = ffn.module
    if ffn.act:
        act = getattr(module, ffn.act)
        if isinstance(act, nn.Module):
            return act.register_forward_pre_hook(lambda _, args: keep(args[0])).remove

        def kept_act(gate: torch.Tensor) -> torch.Tensor:
            keep(gate)
            return act(gate)

        setattr(module, ffn.act, kept_act)
        return lambda: setattr(module, ffn.act, act)
    if ffn.form == "routed":
        plain = module._apply_gate

        def kept_apply_gate(gate_up: torch.Tensor) -> torch.Tensor:
            keep(gate_up.chunk(2, -1)[0] if module.is_concatenated else gate_up[..., ::2])
            return plain(gate_up)

        module._apply_gate = kept_apply_gate
        return lambda: delattr(module, "_apply_gate")

    def hook(_: nn.Module, args: tuple, output: torch.Tensor) -> None:
        keep(output.chunk(2, -1)[0] if ffn.form == "merged" else output)

    return getattr(module, ffn.parts[0]).register_forward_hook(hook).remove


def first_tensor(value: object) -> torch.Tensor | None:
    """The first tensor of a module's output or input."""
    if isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, (tuple, list, Mapping)):
        return None
    parts = value.values() if isinstance(value, Mapping) else value
    return next((found for p in parts if (found := first_tensor(p)) is not None), None)


def row_axis(tensor: torch.Tensor, rows: int) -> int | None:
    """The axis of a state's rows: the last but the features; None if there is none."""
    axes = [axis for axis in range(tensor.dim() - 1) if tensor.shape[axis] == rows]
    return axes[-1] if axes else None


def _hidden(args: tuple, kwargs: dict) -> torch.Tensor:
    """The hidden state among the arguments of a module: the first tensor."""
    found = first_tensor((*args, kwargs.get("hidden_states"), *kwargs.values()))
    if found is None:
        raise InputError("a decoder layer takes in no tensor")
    return found


def _replaced(args: tuple, kwargs: dict, old: torch.Tensor, new: torch.Tensor) -> tuple:
    """The arguments with one tensor in the place of another."""
    args = tuple(new if a is old else a for a in args)
    return args, {k: new if v is old else v for k, v in kwargs.items()}


def _put_rows(tensor: torch.Tensor, rows: int, parts: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """A copy of a tensor with rows of `parts` put in, each from its first row on."""
    axis = row_axis(tensor, rows)
    if axis is None:
        raise InputError(f"a state of {list(tensor.shape)} has no axis of {rows} rows")
    copy = tensor.clone()
    moved = copy.movedim(axis, 0)
    for start, part in parts.items():
        moved[start : start + len(part)] = part.view(len(part), *moved.shape[1:])
    return copy
