"""What a section of the page is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

FAMILY_NAMES = {
    "neurons": "ISNs",
    "dense": "ISNs of dense MLPs",
    "shared": "ISNs of shared experts",
    "routed": "ISNs of routed experts",
    "experts": "ISEs",
}


@dataclass(frozen=True, kw_only=True)
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
    """One part of the page. statements: its findings, which the top of the page repeats."""

    title: str
    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


def outdated(title: str, command: str) -> Section:
    """A section in the place of tables that an older version wrote in another form."""
    text = f"Note: an older version of sparcom wrote these tables; run sparcom {command} again."
    return Section(title, [text])
