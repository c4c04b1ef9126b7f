"""One run's configuration: the fields are the keys of a TOML config and the flags of the CLI."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from sparcom.config_values import check_value, typed
from sparcom.corpus.prompts.date import parse_date
from sparcom.corpus.prompts.prompts import SCOPES
from sparcom.corpus.reading.corpus import ReadOptions
from sparcom.corpus.reading.fields import parse_fields
from sparcom.corpus.schema import CATEGORIES, parse_categories
from sparcom.errors import InputError
from sparcom.formatting import shorten
from sparcom.selection.bits import TIES
from sparcom.selection.rules import Selection
from sparcom.store import RETAIN

Affects = Literal["prompts", "counts", "sets", "nothing"]
"""What a key decides of a run's results.

prompts: which tokens are read and counted; the fingerprint of the corpus tells it.
counts: the counts of given tokens, to the last bit, or which part they are stored in.
sets: which components are selected from the counts.
nothing: nothing that is stored (the model is told by the bytes of its weights).
"""

DEFAULT_BATCH_TOKENS = 1024
RENAMED = {"count_tokens": "max_tokens", "set": "fill"}
"""Keys of older versions, and their name now."""


def _key(default: Any, text: str, affects: Affects, **extra: Any) -> Any:
    """A field of `RunConfig`.

    extra: choices; least (the smallest allowed value); group (a new section of --help starts
    here); vllm=True (an option of that engine alone); meaning=True (changes what a count means, so
    that runs which differ in it are not compared).
    """
    return field(default=default, metadata={"help": text, "affects": affects, **extra})


@dataclass(frozen=True)
class RunConfig:
    """Everything that says what a run does; see `sparcom run --help` for each key."""

    # Field order is the order of --help.
    model: str = _key("default", "'default' (SmolLM2-135M-Instruct), a folder, a .gguf file, or a "
                      "hub id", "nothing", group="model")  # fmt: skip
    dtype: str = _key("bfloat16", "number type the model runs in", "counts",
                      choices=("bfloat16", "float16", "float32", "auto"))  # fmt: skip
    trust_remote_code: bool = _key(False, "run code that comes with the model", "counts")
    corpus: str = _key("hexainst", "'hexainst' (bundled), a .jsonl, .json, .csv, .tsv or .parquet "
                       "file, a folder of them, or hub:OWNER/NAME", "nothing",
                       group="corpus")  # fmt: skip
    categories: str = _key(",".join(CATEGORIES), "allowed categories as A,B,C, or 'any'", "prompts")
    map: tuple[str, ...] = _key((), "OURS=THEIRS: take a field of a record from another one",
                                "prompts")  # fmt: skip
    fill: tuple[str, ...] = _key((), "OURS=TEXT: give a field the same text in every record",
                                "prompts")  # fmt: skip
    cluster: str | None = _key(None, "the field of a record that names its cluster: records "
                               "that are alike in more than category (default: cluster, else "
                               "origin)", "prompts")  # fmt: skip
    records: str | None = _key(None, "the field of a JSON object that holds the records (default: "
                               "found by itself)", "prompts")  # fmt: skip
    on_error: str = _key("stop", "bad rows: stop, or leave them out", "prompts",
                         choices=("stop", "skip"))  # fmt: skip
    limit: int | None = _key(None, "only the first N instructions of each category", "prompts",
                             least=1)  # fmt: skip
    template: str = _key("model", "what wraps the instruction: model, plain, raw or from:MODEL",
                         "prompts")  # fmt: skip
    system: str | None = _key(None, "system prompt (default: the template's own)", "prompts")
    date: str | None = _key(None, "what a chat template takes for today, YYYY-MM-DD (default: the "
                            "day on which the run is created; --resume keeps it)",
                            "prompts")  # fmt: skip
    bos: str = _key("auto", "first token: as template and tokenizer have it, always, or never",
                    "prompts", choices=("auto", "always", "never"))  # fmt: skip
    scope: str = _key("instruction", "which tokens are counted", "prompts", choices=SCOPES,
                      meaning=True)  # fmt: skip
    generate: int = _key(0, "scopes response and all: count up to N tokens that the model writes "
                         "(default: it reads the reference)", "prompts", least=0,
                         meaning=True)  # fmt: skip
    temperature: float = _key(0.0, "of written tokens; 0 takes the likeliest", "counts", vllm=True,
                              least=0, meaning=True)  # fmt: skip
    seed: int = _key(0, "of written tokens", "counts", vllm=True, least=0)
    max_tokens: int | None = _key(None, "count at most the first N tokens of each instruction",
                                  "prompts", least=1, meaning=True)  # fmt: skip
    truncate: bool = _key(False, "cut prompts that are longer than the model's context", "prompts")
    threshold: float = _key(0.0, "a neuron fires where its activation exceeds this", "counts",
                            group="counting", meaning=True)  # fmt: skip
    signal: str = _key("gate", "which activation: f(gate), or the product with up", "counts",
                       choices=("gate", "product"), meaning=True)  # fmt: skip
    signs: bool = _key(False, "also count where up, and where gate and up, are positive: the four "
                       "combinations of signs", "counts")  # fmt: skip
    magnitudes: bool = _key(False, "also add up how strongly neurons fire, and what experts "
                            "return", "counts")  # fmt: skip
    verify: bool = _key(False, "count everything again with plain torch and require equality",
                        "nothing")  # fmt: skip
    prove: bool = _key(True, "prove at load that the counted pass is the model's own", "counts")
    rule: str = _key(Selection.rule, "neurons of a set: top:F, per-layer:F or fixed:F; of "
                     "sparcom identify also lift:F", "sets", group="sets")  # fmt: skip
    expert_rule: str = _key(Selection.expert_rule, "experts of a set: top:F, fixed:F or lift:X",
                            "sets")  # fmt: skip
    ties: str = _key(Selection.ties, "components tied at the cut", "sets", choices=TIES)
    pool: bool = _key(False, "rank dense, shared and routed neurons together", "sets")
    engine: str = _key("transformers", "what runs the model", "counts",
                       choices=("transformers", "vllm"), group="engine and cluster")  # fmt: skip
    compile: bool = _key(False, "run the model under torch.compile", "counts", vllm=True)
    tensor_parallel: int = _key(1, "workers that share each layer", "counts", vllm=True, least=1)
    pipeline_parallel: int = _key(1, "workers that share the layers among them", "counts",
                                  vllm=True, least=1)  # fmt: skip
    expert_parallel: bool = _key(False, "tensor-parallel workers hold whole experts", "counts",
                                 vllm=True)  # fmt: skip
    prefix_caching: bool = _key(True, "compute once what prompts begin with alike before their "
                                "counted tokens", "nothing", vllm=True)  # fmt: skip
    context: int | None = _key(None, "longest sequence in tokens, prompt and answer (default: the "
                               "model's own, at most 8192)", "counts", vllm=True,
                               least=1)  # fmt: skip
    batch_tokens: int | Literal["auto"] = _key(
        DEFAULT_BATCH_TOKENS, "activation rows of one forward pass; auto: the fastest of a few "
        "sizes, measured when the run begins", "counts", least=1)  # fmt: skip
    slots: int = _key(64, "instructions in one forward pass at most; bounds count memory",
                      "nothing", least=1)  # fmt: skip
    actors: int = _key(1, "model replicas", "nothing", least=1)
    max_actors: int | None = _key(None, "let the pool grow to so many replicas where the cluster "
                                  "has room (default: as many as actors)", "nothing",
                                  least=1)  # fmt: skip
    cpus: int | None = _key(None, "CPU threads per actor, or per worker of a parallel model "
                            "(default: the local cores shared out; 1 on a cluster)", "nothing",
                            least=1)  # fmt: skip
    gpus: float = _key(0.0, "GPUs per actor, or per worker of a parallel model", "nothing", least=0)
    memory: float | None = _key(None, "GB of memory reserved for each actor", "nothing")
    resources: str = _key("", "further Ray resources of each actor, as NAME=AMOUNT,...", "nothing")
    restarts: int = _key(3, "how often an actor that died is started again", "nothing", least=0)
    max_failed: int = _key(100, "stop when more instructions than this had to be set aside",
                           "nothing", least=0)  # fmt: skip
    ray_address: str | None = _key(None, "a running cluster's address (default: $RAY_ADDRESS, else "
                                   "a local Ray, stopped at the end)", "nothing")  # fmt: skip
    dashboard: bool = _key(False, "start the local Ray's dashboard, on loopback", "nothing")
    part_size: int | None = _key(None, "instructions per part: the unit of work and of resuming "
                                 "(default: an eighth of an actor's, 128 to 1024, and counts of "
                                 "512 MB)", "counts", least=1)  # fmt: skip
    out: str | None = _key(None, "run directory (default: runs/MODEL-CORPUS)", "nothing",
                           group="output")  # fmt: skip
    examples: int = _key(3, "sparcom run: instructions shown as examples of each neuron that the "
                         "page names, read again token by token; 0: none", "nothing",
                         least=0)  # fmt: skip
    retain: str = _key("counts", "what is stored per instruction", "sets", choices=RETAIN)

    def __post_init__(self) -> None:
        for f in fields(self):
            check_value(flag(f.name), f.type, f.metadata, getattr(self, f.name))
        if not math.isfinite(self.threshold):
            raise InputError(f"--threshold: must be a number, got {self.threshold}")
        if self.generate and self.engine != "vllm":
            raise InputError("--generate: only --engine vllm writes answers; without it the model "
                             "reads the reference")  # fmt: skip
        if self.date is not None:
            parse_date(self.date)
        self._check_cluster()
        if self.signs and (self.threshold != 0 or self.signal != "gate"):
            raise InputError(
                "--signs: needs --threshold 0 and --signal gate, got "
                f"{self.threshold:g} and {self.signal}"
            )
        self.selection()
        self.reading()

    def _check_cluster(self) -> None:
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise InputError(f"--memory: must be over 0 GB, got {self.memory}")
        if self.max_actors is not None and self.max_actors < self.actors:
            raise InputError(
                f"--max-actors: must be at least --actors {self.actors}, got {self.max_actors}"
            )
        if self.expert_parallel and self.tensor_parallel == 1:
            raise InputError(
                "--expert-parallel: needs --tensor-parallel, whose workers share the experts"
            )
        if self.workers > 1 and self.engine != "vllm":
            raise InputError("--tensor-parallel, --pipeline-parallel: only --engine vllm has them")
        if self.batch_tokens == "auto" and self.engine == "vllm":
            raise InputError("--batch-tokens auto: only the transformers engine measures; vLLM "
                             "fills its batches by itself, so give it a number")  # fmt: skip
        if self.context is not None and self.engine != "vllm":
            raise InputError("--context: only --engine vllm has it; transformers reads as much as "
                             "the model does")  # fmt: skip
        self.custom_resources()

    @property
    def workers(self) -> int:
        """Workers that share one model."""
        return self.tensor_parallel * self.pipeline_parallel

    def custom_resources(self) -> dict[str, float]:
        """`resources` taken apart: {"A100": 1.0}."""
        out: dict[str, float] = {}
        for pair in filter(None, (text.strip() for text in self.resources.split(","))):
            name, _, amount = pair.partition("=")
            try:
                number = float(amount)
            except ValueError:
                number = math.nan
            if not name.strip() or name.strip() in out or not 0 < number < math.inf:
                raise InputError(f"--resources: expected NAME=AMOUNT,..., got {self.resources!r}")
            if name.strip() in ("CPU", "GPU", "memory"):
                raise InputError(
                    f"--resources: {name.strip()} has a flag of its own: --cpus, --gpus, --memory"
                )
            out[name.strip()] = number
        return out

    def _maps(self) -> tuple[str, ...]:
        """`map`, with what `cluster` asks for."""
        return self.map if self.cluster is None else (*self.map, f"cluster={self.cluster}")

    def reading(self) -> ReadOptions:
        """How the corpus is read."""
        return ReadOptions(
            parse_categories(self.categories),
            fields=parse_fields(self._maps(), self.fill),
            on_error=self.on_error,
            limit=self.limit,
            records=self.records,
        )

    def selection(self) -> Selection:
        """How sets are selected."""
        return Selection(self.rule, self.expert_rule, self.ties, self.pool)

    def run_dir(self) -> str:
        """Where the run is stored."""
        if self.out:
            return self.out
        names = [
            "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(text).name or text)
            for text in (self.model, self.corpus)
        ]
        return f"runs/{names[0]}-{names[1]}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The config of `to_json`'s keys and values, of this version or an older one.

        Raises InputError for an unknown key or a value of the wrong type.
        """
        known = stored(values).items()
        return cls(**{name: typed_value(name, value, "run.json: config") for name, value in known})

    def to_json(self) -> dict[str, Any]:
        """The keys and values, as JSON holds them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def keys(**wanted: Any) -> tuple[str, ...]:
    """The keys whose metadata are as wanted.

    >>> keys(affects="sets")
    ('rule', 'expert_rule', 'ties', 'pool', 'retain')
    """
    return tuple(
        f.name
        for f in fields(RunConfig)
        if all(f.metadata.get(name) == value for name, value in wanted.items())
    )


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run.json, keys of older versions under their name of now."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def flag(name: str) -> str:
    """`max_tokens` -> `--max-tokens`."""
    return "--" + name.replace("_", "-")


def typed_value(name: str, value: Any, where: str) -> Any:
    """The value of a key as the key's type.

    Raises InputError, naming `where`, for an unknown key or a value of the wrong type.
    """
    known = {f.name: f.type for f in fields(RunConfig)}
    if name not in known:
        raise InputError(
            f"{where}: unknown key {shorten(name, 60)!r}; did you mean {near_key(name, known)!r}?"
        )
    return typed(f"{where}: {name}", known[name], value)


def near_key(name: str, known: Iterable[str]) -> str:
    """The known key that a misspelt one is nearest to."""
    return difflib.get_close_matches(name[:60], list(known), 1, cutoff=0.0)[0]
