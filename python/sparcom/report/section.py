"""What a section of the page is made of, and how figures are written."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from sparcom.analysis.stats.estimate import Estimate

FAMILY_NAMES = {
    "neurons": "ISNs",
    "dense": "ISNs of dense MLPs",
    "shared": "ISNs of shared experts",
    "routed": "ISNs of routed experts",
    "experts": "ISEs",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page. name: of its files."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of the page; the first column is text, the others are figures. text: above it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


@dataclass
class Section:
    """One part of the page. statements: its findings, also shown at the page's top."""

    title: str
    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


def show(item: Estimate, digits: int = 3) -> str:
    if item.low is None:
        return number(item.value, digits)
    return f"{item.value:.{digits}f} ({item.low:.{digits}f} to {item.high:.{digits}f})"


def cells(item: Estimate) -> tuple[str, str, str, str, str]:
    """Value, interval, chance level, its interval, p."""
    chance = "-" if item.chance is None else number(item.chance)
    null = _between(item.chance_low, item.chance_high)
    return number(item.value), _between(item.low, item.high), chance, null, p_value(item)


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{low:.3f} to {high:.3f}"


def number(value: float | None, digits: int = 3) -> str:
    return "undetermined" if value is None else f"{value:.{digits}f}"


def p_value(item: Estimate) -> str:
    return "-" if item.p is None else f"{item.p:.2g}"


def expected(count: float) -> str:
    """How many chance would give: two digits, and no powers of ten."""
    if count < 0.01:
        return "under 0.01"
    return f"{count:.2g}" if count < 10 else f"{count:,.0f}"
