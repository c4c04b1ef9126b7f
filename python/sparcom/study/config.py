"""What a study is asked to do: a TOML file with pairs of models and what all of them share.

out = "runs/small"
noise_floor = "float32"          # count every base once more in this dtype
[run]                            # keys of sparcom run, for every model
limit = 40
[analysis]                       # of AnalysisOptions
[ablate]                         # of AblationOptions; without this table nothing is ablated
targets = ["specific:20:MATH"]
[[pair]]
name = "SmolLM2"
base = "default"                 # a model, a config of sparcom run (*.toml), or a table of keys
tuned = "runs/tuned-model"       # the same, or `tune`: fine-tune the base in the study
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from sparcom.ablation.options import AblationOptions
from sparcom.analysis.options import AnalysisOptions
from sparcom.config import RunConfig, near_key
from sparcom.config_file import config_values
from sparcom.config_values import typed
from sparcom.documents import parse_toml, read_document
from sparcom.errors import InputError
from sparcom.formatting import shorten

BASE, TUNED = "base", "tuned"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_TOP = ("out", "noise_floor", "run", "analysis", "ablate", "pair")
_PAIR = ("name", BASE, TUNED, "tune")
_DTYPES = ("bfloat16", "float16", "float32")
_OF_STUDY = ("model", "out")
"""Keys of a run that the study itself sets, for each of its runs."""


@dataclass(frozen=True)
class Tune:
    """How the testbed fine-tunes the base of a pair (`testbed.fine_tune`).

    corpus: None: that of the base's run.
    """

    corpus: str | None = None
    categories: tuple[str, ...] | None = None
    steps: int = 60
    batch: int = 4
    rate: float = 1e-4
    longest: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "longest"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not self.rate > 0:
            raise InputError(f"rate: must be over 0, got {self.rate}")


@dataclass(frozen=True)
class Pair:
    """A base model and its tuned model.

    base, tuned: configs of their runs, each with its directory. tune: how the tuned model is made
    in the study; None: it exists.
    """

    name: str
    base: RunConfig
    tuned: RunConfig
    tune: Tune | None

    @property
    def sides(self) -> dict[str, RunConfig]:
        return {BASE: self.base, TUNED: self.tuned}


@dataclass(frozen=True)
class StudyConfig:
    """A study, every value of it checked.

    out: its directory. noise_floor: dtype in which every base is counted once more; None: not.
    ablate: None: nothing is ablated.
    """

    out: str
    pairs: tuple[Pair, ...]
    noise_floor: str | None = None
    analysis: AnalysisOptions = field(default_factory=AnalysisOptions)
    ablate: AblationOptions | None = None


def load_study(path: str | Path, *, out: str | None = None) -> StudyConfig:
    """The study of a TOML file. out: another directory than the file's.

    Paths of configs that the file names are relative to it; all others to the working directory.
    Raises InputError for a missing file, bad TOML, an unknown key (naming the nearest one), a
    value of the wrong type, a pair without a tuned model, or a name that comes twice.
    """
    where = f"study {shorten(str(path), 200)}"
    table = parse_toml(read_document(path, where), where)
    _check_keys(table, _TOP, where)
    folder = str(out or typed(f"{where}: out", str, table.get("out", f"runs/{Path(path).stem}")))
    dtype = table.get("noise_floor")
    if dtype is not None and dtype not in _DTYPES:
        shown = shorten(repr(dtype), 80)
        raise InputError(f"{where}: noise_floor: expected {', '.join(_DTYPES)}, got {shown}")
    shared = _run_values(_table(table, "run", where), f"{where}: run")
    listed = table.get("pair", [])
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{where}: expected one [[pair]] or more, with name, base and tuned")
    pairs = tuple(
        _pair(one, shared, folder, Path(path).parent, f"{where}: pair {number}")
        for number, one in enumerate(listed, 1)
    )
    if same := next((pair.name for pair in pairs if pair.base.dtype == dtype), None):
        raise InputError(
            f"{where}: noise_floor: the base of {same} is counted in {dtype} already; give another "
            "dtype"
        )
    names = [pair.name for pair in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{where}: two pairs are called {twice!r}; give each its own name")
    return StudyConfig(
        out=folder,
        pairs=pairs,
        noise_floor=dtype,
        analysis=_options(AnalysisOptions, table, "analysis", where),
        ablate=_ablation(table, where) if "ablate" in table else None,
    )


def _ablation(table: dict[str, Any], where: str) -> AblationOptions:
    """The options of the ablations; 0 instructions or tokens are all, as in the command."""
    given = _table(table, "ablate", where)
    every = {name: None for name in ("limit", "answer_tokens") if given.get(name) == 0}
    rest = {key: value for key, value in given.items() if key not in every}
    found = _options(AblationOptions, {"ablate": rest}, "ablate", where)
    return replace(found, **every)


def _pair(table: Any, shared: Mapping[str, Any], out: str, beside: Path, where: str) -> Pair:
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a [[pair]] table, got {type(table).__name__}")
    _check_keys(table, _PAIR, where)
    name = typed(f"{where}: name", str, table.get("name", ""))
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{where}: name: expected letters, digits, '.', '_' or '-', which name its folders, "
            f"got {shorten(repr(name), 80)}"
        )
    where = f"{where} ({name})"
    if BASE not in table:
        raise InputError(f"{where}: base is missing: a model, a config or a table of its keys")
    if (TUNED in table) == ("tune" in table):
        raise InputError(f"{where}: expected either tuned, a model, or tune, how to make it")
    values = {BASE: _side(table[BASE], shared, beside, f"{where}: base")}
    tune = _options(Tune, table, "tune", where) if "tune" in table else None
    if tune is None:
        values[TUNED] = _side(table[TUNED], shared, beside, f"{where}: tuned")
    else:  # as its base: tokenizer and template stay
        if "://" in out:
            raise InputError(f"{where}: tune writes a model folder; give a local out, not {out}")
        values[TUNED] = values[BASE] | {"model": f"{out}/models/{name}-tuned"}
    sides = {
        side: _checked(RunConfig, {**of, "out": f"{out}/runs/{name}-{side}"}, f"{where}: {side}")
        for side, of in values.items()
    }
    return Pair(name, sides[BASE], sides[TUNED], tune)


def _side(given: Any, shared: Mapping[str, Any], beside: Path, where: str) -> dict[str, Any]:
    """The values of one run: the study's, and over them those of its config or table."""
    if isinstance(given, str) and given.endswith(".toml"):
        path = beside / given
        given = parse_toml(read_document(path, where), f"{where}: config {given}")
        given.pop("out", None)  # of a run on its own
    elif isinstance(given, str):
        given = {"model": given}
    if not isinstance(given, dict):
        raise InputError(
            f"{where}: expected a model, a config (*.toml) or a table of keys, got "
            f"{type(given).__name__}"
        )
    if "out" in given:
        raise InputError(f"{where}: out: the study names the folders of its runs; leave it out")
    values = config_values(given, where)
    if "model" not in values:
        raise InputError(f"{where}: model is missing")
    return {**shared, **values}


def _run_values(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys that all runs share."""
    values = config_values(table, where)
    for name in _OF_STUDY:
        if name in values:
            raise InputError(f"{where}: {name} is each model's own; name it in its [[pair]]")
    return values


def _table(table: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"{where}: {name}: expected a table, got {type(found).__name__}")
    return found


def _options(kind: Any, table: Mapping[str, Any], name: str, where: str) -> Any:
    """The options of a dataclass from one of a file's tables."""
    where = f"{where}: {name}"
    given = _table(table, name, where.removesuffix(f": {name}"))
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind) if not is_dataclass(hints[f.name])}
    values = {}
    for key, value in given.items():
        option = key.replace("-", "_")
        if option not in known:
            raise InputError(
                f"{where}: unknown key {shorten(key, 60)!r}; did you mean "
                f"{near_key(option, known)!r}?"
            )
        values[option] = _typed(f"{where}: {key}", hints[option], value)
    return _checked(kind, values, where)


def _typed(where: str, hint: Any, value: Any) -> Any:
    """A value of the type of an option; a list of texts where one is meant."""
    if isinstance(value, list):
        value = tuple(typed(f"{where}: an item", str, item) for item in value)
        if tuple[str, ...] in (hint, *getattr(hint, "__args__", ())):
            return value
    return typed(where, hint, value)


def _checked(kind: Callable[..., Any], values: Mapping[str, Any], where: str) -> Any:
    """The dataclass of some values; what it refuses names where they came from."""
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(
                f"{where}: unknown key {shorten(key, 60)!r}; did you mean {near_key(key, known)!r}?"
            )


def other_dtype(pair: Pair, dtype: str) -> RunConfig:
    """The config of a base's second run, for the noise floor."""
    return replace(pair.base, dtype=dtype, out=f"{pair.base.out}-{dtype}", examples=0)
