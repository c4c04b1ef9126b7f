"""How the vLLM engine is loaded; options that cannot work are refused here."""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any

from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError

EXECUTORS = ("mp", "ray", "external_launcher")
DTYPES = ("bfloat16", "float16", "float32", "auto")


@dataclass(frozen=True, kw_only=True)
class VllmOptions(EngineOptions):
    """EngineOptions, and what only vLLM has.

    compile: run the model under torch.compile (on CUDA: CUDA graphs too); a first start is slow.
    tensor_parallel, pipeline_parallel: workers that share one model.
    expert_parallel: of a mixture of experts, give each tensor-parallel worker whole experts rather
        than a slice of every one.
    executor: who starts the workers: "mp" (this process), "ray" (vLLM's own, GPU clusters), or
        "external_launcher" (they exist already, one engine each; see `shards.group`).
    context: longest sequence in tokens; None takes the model's own, at most 8192.
    kv_cache_tokens: tokens that the KV cache holds, at least one context; None: what `slots`
        prompts need.
    temperature, seed: how answers are written (`Prompt.generate`): 0 greedily, else tokens are
        sampled, each instruction's by this seed.
    restarts: how often an engine that died is started again without a result in between; halving a
        batch until the instruction that kills it is alone takes up to 8.
    prefix_caching: what precedes the first counted token of a prompt may come from vLLM's cache, if
        an earlier prompt began with the same tokens; a counted token is always computed. Off with
        `ablation`: what one ablated model computed is wrong for another.
    ablation: neurons can be ablated (`VllmEngine.ablate`), at the cost of a multiplication and an
        addition in every activation.
    """

    compile: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: bool = False
    executor: str = "mp"
    context: int | None = None
    kv_cache_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    restarts: int = 10
    prefix_caching: bool = True
    ablation: bool = False

    def __post_init__(self) -> None:
        least = {"batch_tokens": 1, "slots": 1, "tensor_parallel": 1, "pipeline_parallel": 1,
                 "temperature": 0, "restarts": 0}  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"{_flag(name)}: must be at least {low}, got {getattr(self, name)}"
                )
        for name in ("context", "kv_cache_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{_flag(name)}: must be at least 1, got {value}")
        for name, known in (("executor", EXECUTORS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{_flag(name)}: expected {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.ablation and not self.count:
            raise InputError("ablation: the kernel that counts also ablates; use count=True")
        if self.ablation and self.executor == "external_launcher":
            raise InputError("ablation: workers of an outside launcher cannot be ablated; use "
                             "executor mp or ray")  # fmt: skip

    @property
    def world_size(self) -> int:
        """Workers that share one model."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def caches_prefixes(self) -> bool:
        """True if prompts that begin alike share what is not counted of their beginnings."""
        return self.prefix_caching and not self.ablation

    @property
    def schedules_ahead(self) -> bool:
        """True if vLLM may plan a pass while the one before runs. On a CPU it never does."""
        return self.pipeline_parallel == 1 and not self.launched_outside

    @property
    def launched_outside(self) -> bool:
        """True if each worker is an engine of its own and holds one shard."""
        return self.executor == "external_launcher" and self.world_size > 1

    @classmethod
    def of(cls, options: EngineOptions, **more: Any) -> "VllmOptions":
        """These options, with vLLM's own ones by keyword.

        Raises InputError for an unknown keyword, with the nearest known one.
        """
        known = [f.name for f in fields(cls)]
        for name in more:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]
                raise InputError(f"engine option {name!r} is unknown; did you mean {near!r}?")
        return cls(**{**asdict(options), **more})


@dataclass(frozen=True, kw_only=True)
class CountingConfig:
    """What workers need to know; vLLM's `additional_config`, whose hash keys vLLM's caches.

    threshold, signal, signs, magnitudes: what is counted.
    slots, verify: of the recorder; they do not change the compiled graph.
    kernel: `fingerprint.kernel_version`, of the sources and the native build.
    ablation: every site reads `keep` and `fill` (`ablation.AblationBuffers`).
    ends: token ids that end an answer; none of them is ever read.
    """

    threshold: float
    signal: str
    slots: int
    verify: bool
    kernel: str
    signs: bool = False
    magnitudes: bool = False
    ablation: bool = False
    ends: tuple[int, ...] = ()

    def compute_hash(self) -> str:
        """What of this is in the compiled graph: counting engines take no graph of a bare one."""
        ablation = "-ablated" if self.ablation else ""
        return f"sparcom-count-{self.kernel}-{self.threshold!r}-{self.signal}{ablation}"


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """What workers that serve need to know; vLLM's `additional_config`, as `CountingConfig` is.

    sites: of the whole space, as JSON. index: [n] int64 as bytes, flat in it, sorted. factors: [n]
    float64 as bytes, what their h is multiplied by. signs: [n] int64 as bytes: 1 or -1 where h is
    0 at gates of this sign instead. kernel: `fingerprint.kernel_version`.
    """

    sites: list[dict[str, Any]]
    index: bytes
    factors: bytes
    signs: bytes
    kernel: str

    def compute_hash(self) -> str:
        """What of this is in the compiled graph: buffers are read, whatever they hold."""
        return f"sparcom-serve-{self.kernel}"


def _flag(name: str) -> str:
    return name.replace("_", "-")
