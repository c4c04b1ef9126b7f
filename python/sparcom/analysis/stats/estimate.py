"""A figure with its interval and its chance level: what every statistic here comes as."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Estimate:
    """One figure.

    value: the figure; None if the data do not determine it (a warning says why).
    low, high: 95 % interval of the value; None if there is none.
    chance, chance_low, chance_high: mean and central 95 % of the null; None without a null.
    p: permutation p-value, (1 + draws at least as extreme) / (1 + draws), twice that of the nearer
        tail if both count; None without a null.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None
    p: float | None = None


def estimate(
    value: float,
    resampled: np.ndarray | None = None,
    null: np.ndarray | None = None,
    *,
    tail: str = "greater",
    recentre: bool = False,
) -> Estimate:
    """An `Estimate` from bootstrap draws and null draws, each [draws] or None.

    tail: "greater", "less" or "both": which null draws are as extreme as the value.
    recentre: shift the draws so that their mean is the value: for distances, which resampling
        noise inflates in the draws once more than in the value.
    A value that is not finite becomes None, and so does every figure that depends on it; draws
    that are not finite (a resample without a pair) are left out.
    """
    if not np.isfinite(value):
        return Estimate(None)
    if recentre and resampled is not None and len(resampled):
        resampled = resampled - np.nanmean(resampled) + value
    low, high = _interval(resampled)
    if null is None or not np.isfinite(null).any():
        return Estimate(float(value), low, high)
    null = null[np.isfinite(null)]
    tolerance = 1e-12 * max(1.0, abs(float(value)))
    greater = (1 + int((null >= value - tolerance).sum())) / (1 + len(null))
    less = (1 + int((null <= value + tolerance).sum())) / (1 + len(null))
    p = {"greater": greater, "less": less, "both": min(1.0, 2 * min(greater, less))}[tail]
    return Estimate(float(value), low, high, float(null.mean()), *_interval(null), p)


def known(value: float) -> float | None:
    """The value; None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def varying(resampled: np.ndarray) -> np.ndarray | None:
    """[draws] as they are; None if they do not vary: one cluster tells nothing of the error.

    >>> varying(np.ones(9)) is None
    True
    """
    known = resampled[np.isfinite(resampled)]
    if not len(known) or np.ptp(known) <= 1e-12 * max(1.0, float(np.abs(known).max())):
        return None
    return resampled


def _interval(draws: np.ndarray | None) -> tuple[float | None, float | None]:
    finite = draws[np.isfinite(draws)] if draws is not None else np.zeros(0)
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def estimate_table(
    columns: Mapping[str, Sequence | pa.Array], estimates: Sequence[Estimate]
) -> pa.Table:
    """An Arrow table: the given columns, then the fields of each row's estimate (null for None)."""
    rows = [asdict(item) for item in estimates]
    names = tuple(Estimate.__dataclass_fields__)
    fields = {name: pa.array([row[name] for row in rows], pa.float64()) for name in names}
    given = {n: v if isinstance(v, pa.Array) else pa.array(list(v)) for n, v in columns.items()}
    return pa.table({**given, **fields})


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """The estimate in a row of an `estimate_table`."""
    return Estimate(**{name: row[name] for name in Estimate.__dataclass_fields__})
