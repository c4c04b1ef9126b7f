"""What the config of a model says about counting it: which engine counts it, and what it takes.

No weight is read, and none is downloaded: the model is built on the meta device.
"""

import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sparcom.components import ComponentSpace
from sparcom.documents import parse_json, read_document
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.formatting import shorten
from sparcom.model_files import check_config, check_model_folder
from sparcom.models import resolve_model
from sparcom.planning import sizes
from sparcom.quantisation import check_readable, quantisation_of

_GIB = 1 << 30
T = TypeVar("T")


@dataclass(frozen=True)
class EngineReport:
    """What one engine does with a model.

    refused: why it does not count it, and what to do; None if it counts it.
    note: how it reads prompts, if that is not the usual way.
    weight_bytes, kv_bytes: memory of the weights and of the KV cache; None: not known from the
        config. kv_tokens: what the cache holds; 0: the engine keeps none.
    """

    name: str
    _: KW_ONLY
    refused: str | None = None
    note: str | None = None
    weight_bytes: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What a model's config says.

    sites: how many there are of each shape. layers: decoder layers; without_ffn: those with no
    site. count_bytes: memory of the counts in an engine; stored_bytes: disk of an instruction.
    All of it is empty if `problem` says why the model cannot be built. weights_problem: why the
    weights of a local folder cannot be loaded, as far as their names tell.
    """

    model: str
    architecture: str
    quantised: str | None = None
    problem: str | None = None
    weights_problem: str | None = None
    parameters: int = 0
    layers: int = 0
    without_ffn: tuple[int, ...] = ()
    sites: dict[str, int] = field(default_factory=dict)
    neurons: int = 0
    experts: int = 0
    slots: int = 0
    count_bytes: int = 0
    stored_bytes: int = 0
    engines: tuple[EngineReport, ...] = ()

    @property
    def counted(self) -> bool:
        """True if an engine counts the model, with the weights that are here."""
        usable = self.weights_problem is None
        return usable and any(engine.refused is None for engine in self.engines)

    def to_json(self) -> dict[str, Any]:
        """All of it, and `counted`."""
        return {**asdict(self), "counted": self.counted}


@dataclass(frozen=True)
class _Shapes:
    """A model on the meta device, as far as the report goes."""

    space: ComponentSpace
    parameters: int
    layers: int
    attention_layers: int
    own_dtype: str
    alone: str | None


def report_model(model: str, **options: Any) -> ModelReport:
    """The report of a model argument.

    options: fields of `EngineOptions`: dtype, batch_tokens, slots, trust_remote_code.
    Raises InputError if there is no such model, or if its config.json is damaged.

    >>> report_model("default").neurons
    46080
    """
    path, unusable = _find(model)
    given = EngineOptions(path, **options)
    config, unread = _try(lambda: _read_config(given))
    if config is None:
        refused = tuple(EngineReport(name, refused=unread) for name in ("transformers", "vllm"))
        return ModelReport(model=path, architecture="?", problem=unread, engines=refused)
    shapes, unknown = _try(lambda: _shapes(config, given))
    quantised = quantisation_of(config)
    engines = (_transformers(given, config, shapes, unknown), _vllm(given, config, shapes))
    return ModelReport(
        model=path,
        architecture=_architecture(config),
        quantised=quantised.method if quantised else None,
        problem=unknown,
        weights_problem=unusable,
        engines=engines,
        **(_sizes(shapes, given) if shapes else {}),
    )


def render(report: ModelReport) -> str:
    """The report for people: one aligned line a fact, then one an engine."""
    lines = [("model", f"{report.model}, {report.architecture}")]
    if report.quantised:
        lines.append(("quantised", report.quantised))
    if report.neurons:
        sites = ", ".join(f"{n} {shape}" for shape, n in report.sites.items())
        none = ", ".join(map(str, report.without_ffn[:8])) + (
            ", ..." if len(report.without_ffn) > 8 else ""
        )
        lines += [
            ("parameters", f"{report.parameters:,}"),
            ("layers", f"{report.layers}" + (f"; without an FFN: {none}" if none else "")),
            ("sites", sites),
            ("neurons", f"{report.neurons:,}"),
            ("experts", f"{report.experts:,}" if report.experts else "none"),
            ("counts", f"{_size(report.count_bytes)} for {report.slots} slots; on disk about "
                       f"{_size(report.stored_bytes)} an instruction"),
        ]  # fmt: skip
    if report.weights_problem:
        lines.append(("weights", f"not usable: {report.weights_problem}"))
    for engine in report.engines:
        lines.append((engine.name, _engine_text(engine, report)))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _engine_text(engine: EngineReport, report: ModelReport) -> str:
    if engine.refused is not None:
        others = [e.name for e in report.engines if e.refused is None]
        way = f"; --engine {others[0]} counts it" if others else ""
        return f"refused: {engine.refused}{way}"
    known = [size for size in (engine.weight_bytes, engine.kv_bytes) if size is not None]
    weights = "not known from the config"
    if engine.weight_bytes is not None:
        weights = _size(engine.weight_bytes)
    parts = [f"weights {weights}"]
    if engine.kv_tokens and engine.kv_bytes is not None:
        parts.append(f"KV cache {_size(engine.kv_bytes)} for {engine.kv_tokens:,} tokens on CPU")
    free = psutil.virtual_memory().available
    fits = "" if sum(known) + report.count_bytes <= free else " (does not fit)"
    parts.append(f"{_size(free)} of this machine's memory is free{fits}")
    note = f"; {engine.note}" if engine.note else ""
    return f"counted{note}; {', '.join(parts)}"


def _find(model: str) -> tuple[str, str | None]:
    """(what transformers takes for the model, why its folder cannot be loaded)."""
    path = Path(model)
    if "\0" in model or not (path / "config.json").is_file():
        return resolve_model(model), None
    where = f"model {path}: config.json"
    check_config(parse_json(read_document(path / "config.json", where), where), where)
    _, problem = _try(lambda: check_model_folder(path))
    return str(path), problem


def _read_config(options: EngineOptions) -> Any:
    """The config as transformers reads it, whatever an engine thinks of it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
    except Exception as error:  # each class of config checks in a way of its own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            first = "it comes with code of its own; read it, then give --trust-remote-code"
        raise InputError(f"its config cannot be read: {shorten(first, 250)}") from error


def _shapes(config: Any, options: EngineOptions) -> _Shapes:
    from sparcom.engines.transformers import loading
    from sparcom.engines.transformers.sites import decoder_layers, space_of

    empty = loading.empty_model(config, options.trust_remote_code)
    layers = decoder_layers(empty)
    own = str(getattr(config.get_text_config(), "dtype", None)).removeprefix("torch.")
    return _Shapes(
        space_of(loading.find_supported(empty)),
        sum(parameter.numel() for parameter in empty.parameters()),
        len(layers),
        sizes.attention_layers(layers),
        own,
        loading.why_alone(empty),
    )


def _sizes(shapes: _Shapes, options: EngineOptions) -> dict[str, Any]:
    space = shapes.space
    named = (
        f"{site.kind} of {f'{site.experts} x ' if site.experts else ''}{site.width}"
        f"{f', top {site.top_k}' if site.experts else ''} ({site.activation})"
        for site in space.sites
    )
    return {
        "parameters": shapes.parameters,
        "layers": shapes.layers,
        "without_ffn": tuple(sorted(set(range(shapes.layers)) - {s.layer for s in space.sites})),
        "sites": dict(Counter(named)),
        "neurons": space.neurons,
        "experts": space.experts,
        "slots": options.slots,
        "count_bytes": sizes.count_bytes(space, options.slots),
        "stored_bytes": sizes.stored_bytes(space, "counts"),
    }


def _transformers(
    options: EngineOptions, config: Any, shapes: _Shapes | None, problem: str | None
) -> EngineReport:
    from sparcom.engines.transformers import loading

    _, refused = _try(lambda: loading.load_config(options))
    _, unreadable = _try(lambda: check_readable(options.model, config))
    refused = refused or unreadable or problem
    if refused or shapes is None:
        return EngineReport("transformers", refused=refused)
    weights = sizes.weight_bytes(shapes.parameters, options.dtype, shapes.own_dtype)
    note = f"one prompt a pass, which is slower ({shapes.alone})" if shapes.alone else None
    return EngineReport("transformers", note=note, weight_bytes=weights)


def _vllm(options: EngineOptions, config: Any, shapes: _Shapes | None) -> EngineReport:
    from sparcom.engines.vllm import model_facts
    from sparcom.engines.vllm.options import VllmOptions

    if importlib.util.find_spec("vllm") is None:
        return EngineReport("vllm", refused="vLLM is not installed")
    served = VllmOptions.of(options)
    facts, refused = _try(lambda: model_facts.check_model(served))
    refused = refused or _unserved(config)
    if refused or facts is None:
        return EngineReport("vllm", refused=refused)
    note = "its modules are checked when vLLM has loaded them"
    if shapes is None:
        return EngineReport("vllm", note=note)
    tokens = model_facts.kv_cache_tokens(served, facts)
    text = config.get_text_config()
    of_token = sizes.kv_bytes_of_token(text, shapes.attention_layers, options.dtype)
    plain = sizes.weight_bytes(shapes.parameters, options.dtype, shapes.own_dtype)
    return EngineReport(
        "vllm",
        note=note,
        weight_bytes=_on_disk(options.model) if quantisation_of(config) else plain,
        kv_bytes=tokens * of_token,
        kv_tokens=tokens,
    )


def _unserved(config: Any) -> str | None:
    """Why vLLM has no class for a model; None if it has one."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # importing it makes remarks
    from vllm.model_executor.models.registry import ModelRegistry

    known, named = ModelRegistry.get_supported_archs(), config.architectures or []
    if any(name in known for name in named):
        return None
    what = ", ".join(named) or "none is named in config.json (architectures)"
    return f"vLLM has no class for this architecture: {what}"


def _on_disk(model: str) -> int | None:
    """Bytes of a folder's weights; None for a model that is not here."""
    files = list(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    return sum(file.stat().st_size for file in files) if files else None


def _architecture(config: Any) -> str:
    return ", ".join(config.architectures or []) or str(config.model_type)


def _try(call: Callable[[], T]) -> tuple[T | None, str | None]:
    """(what a call returns, None), or (None, the text of its InputError)."""
    try:
        return call(), None
    except InputError as error:
        return None, str(error)


def _size(count: int) -> str:
    """Bytes as people read them."""
    if count >= _GIB / 10:
        return f"{count / _GIB:.1f} GiB"
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"
