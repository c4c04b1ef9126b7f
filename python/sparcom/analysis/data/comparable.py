"""Whether two runs may be compared: the same components, settings, instructions and token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.clusters import with_clusters
from sparcom.config import RunConfig, keys, stored
from sparcom.errors import InputError
from sparcom.store import Run


@dataclass(frozen=True)
class Common:
    """The instructions that two runs share.

    table: id, category, source, origin, cluster, n_counted of them, in the first run's
        order; n_counted is T in the first run.
    first, second: [n] int64 rows of each run's sets.
    warnings: what a reader must know.
    """

    table: pa.Table
    first: np.ndarray
    second: np.ndarray
    warnings: tuple[str, ...]


def check_comparable(first: Run, second: Run) -> Common:
    """The instructions that two runs share.

    Raises InputError if their sets do not mean the same: the models' components differ, a setting
    that changes counts or sets differs, no instruction is shared, or token ids differ (the message
    names instructions).
    """
    _check_space(first, second)
    _check_settings(first, second)
    common, warnings = _shared_ids(first, second)
    tables = [_tokens(run, common) for run in (first, second)]
    differ = pc.or_(
        pc.not_equal(tables[0]["key"], tables[1]["key"]),
        pc.not_equal(tables[0]["category"], tables[1]["category"]),
    )
    if pc.any(differ).as_py():
        wrong = tables[0]["id"].filter(differ).to_pylist()
        named = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise InputError(
            f"compare: {len(wrong)} of {len(common)} instructions have different token ids (or "
            f"categories) in the two runs: {named}; render both by one template: "
            "count the base again with --template from:TUNED, or both with --template plain"
        )
    rows = [{name: row for row, name in enumerate(run.sets.ids)} for run in (first, second)]
    first_rows, second_rows = (np.array([at[name] for name in common], np.int64) for at in rows)
    tokens = pa.array(first.sets.tokens[first_rows], pa.int64())
    table = tables[0].drop_columns(["key"]).append_column("n_counted", tokens)
    return Common(table, first_rows, second_rows, tuple(warnings))


def paired_bits(
    first: Run, second: Run, common: Common, family: str
) -> tuple[np.ndarray, np.ndarray]:
    """Packed sets [n, bytes] of the shared instructions in the two runs, "neurons" or "experts"."""
    return getattr(first.sets, family)[common.first], getattr(second.sets, family)[common.second]


def indices(run: Run) -> tuple[str, ...]:
    """What a run has sets of: "neurons", and "experts" if it has routed ones."""
    return ("neurons", "experts") if run.space.experts else ("neurons",)


def name_of(run: Run) -> str:
    """The last part of a run's location."""
    return run.store.location.rstrip("/").rsplit("/", 1)[-1]


def weights_of(run: Run) -> str | None:
    """The fingerprint of a run's weights; None where none is recorded."""
    return run.manifest.get("model", {}).get("weights")


def _check_space(first: Run, second: Run) -> None:
    a, b = first.space.sites, second.space.sites
    if a == b:
        return
    if len(a) != len(b):
        detail = f"{len(a)} sites against {len(b)}"
    else:
        one, other = next(pair for pair in zip(a, b, strict=True) if pair[0] != pair[1])
        detail = f"{one} against {other}"
    raise InputError(
        f"compare: {name_of(first)} and {name_of(second)} are of different architectures "
        f"({detail}); only the same model before and after tuning can be compared"
    )


def _check_settings(first: Run, second: Run) -> None:
    counting = _differences(first, second, "config", keys(meaning=True))
    rules = sorted({key for run in (first, second) for key in run.manifest.get("selection", {})})
    selecting = _differences(first, second, "selection", rules)
    if counting or selecting:
        hint = "count one of them again with the other's"
        if not counting:
            hint = "select the sets of one again with `sparcom identify`"
        raise InputError(
            f"compare: {name_of(first)} and {name_of(second)} differ in "
            f"{'; '.join([*counting, *selecting])}; {hint}"
        )


def _differences(first: Run, second: Run, part: str, names: Sequence[str]) -> list[str]:
    default = RunConfig().to_json()  # of what a run of an older version did not know
    known = [stored(run.manifest.get(part, {})) for run in (first, second)]
    pairs = {name: [one.get(name, default.get(name)) for one in known] for name in names}
    return [f"{name} ({a!r} against {b!r})" for name, (a, b) in pairs.items() if a != b]


def _shared_ids(first: Run, second: Run) -> tuple[list[str], list[str]]:
    known = set(second.sets.ids)
    common = [name for name in first.sets.ids if name in known]
    if not common:
        raise InputError(
            f"compare: {name_of(first)} and {name_of(second)} share no instruction id; count both "
            "on the same corpus"
        )
    warnings = []
    for run in (first, second):
        missing = len(run.sets.ids) - len(common)
        if missing:
            warnings.append(f"{name_of(run)}: {missing} instructions are not in the other run")
        if run.manifest.get("status") != "complete":
            warnings.append(f"{name_of(run)}: the run is not complete; finish it with --resume")
    return common, warnings


def _tokens(run: Run, ids: list[str]) -> pa.Table:
    """Labels of the instructions in the given order, with a key: token ids and counted ranges."""
    columns = ["id", "category", "source", "origin", "cluster", "token_ids", "counted"]
    table = with_clusters(run.store.corpus.table(columns))
    row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
    table = table.take(pa.array([row_of[name] for name in ids]))
    text = [
        f"{tokens}|{counted}"
        for tokens, counted in zip(
            table["token_ids"].to_pylist(), table["counted"].to_pylist(), strict=True
        )
    ]
    kept = table.drop_columns(["token_ids", "counted"])
    return kept.append_column("key", pa.array(text, pa.string()))
