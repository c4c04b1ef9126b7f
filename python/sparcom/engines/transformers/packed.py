"""The weights that quantised tensors stand for: their names and shapes, from headers alone.

A quantised product lies in several tensors: its numbers, packed or not, their scales, zero points,
an order. vLLM fills what a file lacks with whatever the memory holds, and gives no error; so here
each product is one weight again, all parts of which must be there, and the weights are compared
with the model as plain ones are (`weights.check_files`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparcom.errors import InputError
from sparcom.quantisation import Quantisation

Headers = dict[str, Tensor]
# Scales of attention's cache, and of what goes into and comes out of a product: no weights.
_OF_STATES = re.compile(
    r"\.([kqv]_scale|[kqv]_zero_point|kv_cache_scaling_factor|input_scale|input_zero_point"
    r"|output_scale|input_global_scale|pre_quant_scale|prob_output_scale|activation_scale)$"
)
_BLOCKS = 2  # numbers of 4 bits in a byte


@dataclass(frozen=True)
class _Form:
    """One way to keep a weight.

    numbers: end of the name of the packed numbers, after that of the module. weight: that of the
    plain weight. parts, optional: ends that belong to it. shape: that of the plain weight.
    """

    numbers: str
    parts: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    shape: Callable[[tuple[int, ...], int], tuple[int, ...]]
    weight: str = ".weight"
    dtypes: tuple[torch.dtype, ...] = (torch.int32,)


_EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)
_GPTQ = _Form(
    ".qweight", ((".qzeros",), (".scales",)), (".g_idx",),
    lambda shape, bits: (shape[1], shape[0] * 32 // bits),
)  # fmt: skip
_AWQ = _Form(
    ".qweight", ((".qzeros",), (".scales",)), (), lambda shape, bits: (shape[1] * 32 // bits,
                                                                       shape[0]),
)  # fmt: skip
_PACKED = _Form(
    ".weight_packed", ((".weight_scale",), (".weight_shape",)),
    (".weight_zero_point", ".weight_g_idx"),
    lambda shape, bits: (shape[0], shape[1] * 32 // bits),
)  # fmt: skip
_PACKED_FLOAT = _Form(  # two in a byte
    ".weight_packed", ((".weight_scale",),), (".weight_global_scale", ".weight_shape"),
    lambda shape, _: (*shape[:-1], shape[-1] * _BLOCKS), dtypes=(torch.uint8,),
)  # fmt: skip
_PLAIN_EIGHT = _Form(
    ".weight", ((".weight_scale", ".weight_scale_inv"),), (".weight_zero_point",),
    lambda shape, _: shape, dtypes=_EIGHT,
)  # fmt: skip
_FOUR = _Form(
    ".weight", ((".weight_scale",),), (".weight_scale_2",),
    lambda shape, _: (*shape[:-1], shape[-1] * _BLOCKS), dtypes=(torch.uint8,),
)  # fmt: skip
_MXFP4 = _Form(
    "_blocks", (("_scales",),), (),
    lambda shape, _: (shape[0], shape[2] * shape[3] * _BLOCKS, shape[1]),
    weight="", dtypes=(torch.uint8,),
)  # fmt: skip
FORMS: Mapping[str, tuple[_Form, ...]] = {
    "gptq": (_GPTQ,),
    "awq": (_AWQ,),
    "compressed-tensors": (_PACKED, _PACKED_FLOAT, _PLAIN_EIGHT),
    "fp8": (_PLAIN_EIGHT,),
    "modelopt": (_PLAIN_EIGHT, _FOUR),
    "mxfp4": (_MXFP4,),
}
"""Method of a config -> the forms that its tensors may have."""


def plain_headers(model: str, quantisation: Quantisation, headers: Headers) -> Headers | None:
    """name -> meta tensor of the weights that these tensors stand for; None if the format is not
    known here.

    model: how messages call it. headers: of all tensors, on the meta device.
    Raises InputError naming a product whose parts are not all there.
    """
    forms = FORMS.get(quantisation.method)
    if forms is None:
        return None
    rest = {n: t for n, t in headers.items() if not _OF_STATES.search(n)}
    found: Headers = {}
    for name, tensor in headers.items():
        form = next((f for f in forms if _is_of(name, tensor, f)), None)
        if form is None:
            continue
        stem = name.removesuffix(form.numbers)
        lacking = [ends for ends in form.parts if not any(f"{stem}{end}" in rest for end in ends)]
        if lacking:
            raise InputError(
                f"model {model}: {name} is quantised ({quantisation.method}), but "
                f"{stem}{lacking[0][0]} is not in the files; fetch the model again"
            )
        ends = (form.numbers, *(end for ends in form.parts for end in ends), *form.optional)
        for end in ends:
            rest.pop(f"{stem}{end}", None)
        shape = form.shape(tuple(tensor.shape), _bits(quantisation, stem))
        found[f"{stem}{form.weight}"] = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    return {**rest, **found}


def quantised_experts(quantisation: Quantisation, headers: Headers) -> str | None:
    """The name of a quantised tensor of routed experts; None if there is none that is known."""
    forms = FORMS.get(quantisation.method, ())
    return next(
        (
            name
            for name, tensor in headers.items()
            if ".experts." in name and any(_is_of(name, tensor, form) for form in forms)
        ),
        None,
    )


def _is_of(name: str, tensor: Tensor, form: _Form) -> bool:
    return name.endswith(form.numbers) and tensor.dtype in form.dtypes and tensor.dim() > 1


def _bits(quantisation: Quantisation, stem: str) -> int:
    """Bits of a number of the product called `stem`."""
    if quantisation.method != "compressed-tensors":
        return int(quantisation.settings.get("bits", 4))
    groups = sorted(quantisation.groups, key=lambda group: "Linear" in group.get("targets", ()))
    for group in groups:  # what names modules comes before what names their class
        if any(_targets(target, stem) for target in group.get("targets", ())):
            return int((group.get("weights") or {}).get("num_bits", 4))
    return 4


def _targets(target: str, stem: str) -> bool:
    """True if a target of compressed-tensors is this module, or the class of all products."""
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), stem) is not None
    return target in ("Linear", stem)
