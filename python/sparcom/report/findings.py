"""The three findings that the page opens with: a headline that its tables bear, and the sentence.

Where the data leave a question open, the headline says so.
"""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.formatting import shorten
from sparcom.report.component_section import general_statement, tested_statement
from sparcom.report.overlap_section import effect_statement, layer_statement
from sparcom.report.paired_text import paired_statement
from sparcom.report.section import FAMILY_NAMES
from sparcom.report.tables import Row, Tables, array, distinct


@dataclass(frozen=True, kw_only=True)
class Finding:
    """kind: "overlap", "depth" or "units": which picture stands beside it.

    headline: in plain words. texts: the sentences with their figures. hint: how to read the
    picture.
    """

    kind: str
    headline: str
    texts: tuple[str, ...]

    @property
    def hint(self) -> str:
        return _HINTS[self.kind]


_HINTS = {
    "overlap": (
        "Mean overlap (Jaccard) of the sets of two instructions: all pairs as they are, and with "
        "length, source and common words held fixed. Choose a cell to see its pairs and the units "
        "they share."
    ),
    "depth": (
        "In which layers the members of an instruction's set lie, by type, with 95 % intervals. "
        "Dotted: the same number spread evenly."
    ),
    "units": (
        "Enriched: fires more often in this type than in the others, at equal length and source. "
        "Specific: more often than in every other type. Unique: in most sets of this type, and in "
        "few of any other. No bar: undetermined, or none."
    ),
}


def findings(tables: Tables) -> list[Finding]:
    """Overlap, depth and units, as far as the run bears them."""
    out = []
    family = next(iter(distinct(tables.rows("category_matrix"), "family")), None)
    if family is not None:
        what = FAMILY_NAMES[family]
        if tables.rows("pair_summary", family=family):
            paired = paired_statement(tables, family, what)
            texts = [effect_statement(tables, family, what)]
            headline = _overlap(tables, family) if paired is None else _paired(tables, family)
            texts = texts if paired is None else [paired, *texts]
            out.append(Finding(kind="overlap", headline=headline, texts=tuple(texts)))
        sentence = layer_statement(tables, family, what)
        out.append(Finding(kind="depth", headline=_depth(tables, family), texts=(sentence,)))
    counts = tables.rows("component_counts", family="neurons")
    options = tables.row("analysis_options")
    if counts and "least_difference" in options:
        categories = distinct(tables.rows("categories"), "category")
        texts = [general_statement("neurons", counts, options)]
        tests = [row["value"] for row in counts if row["figure"] == "tests"]
        if tests:
            texts.append(tested_statement("neurons", counts, categories, options, tests[0]))
        headline = _units(counts, categories, bool(tests))
        out.append(Finding(kind="units", headline=headline, texts=tuple(texts)))
    return out


def _overlap(tables: Tables, family: str) -> str:
    adjusted = tables.estimate("effects", family=family, figure=PRIMARY)
    if adjusted.value is None or adjusted.p is None:
        return "Whether the type of instruction matters is undetermined: too little to compare"
    if adjusted.p > 0.05:
        return "Instructions of one type are not shown to share more neurons than others"
    return (
        "Instructions of one type share more neurons than instructions of different types, at "
        f"equal length, source and words: overlap +{adjusted.value:.3f}"
    )


def _paired(tables: Tables, family: str) -> str:
    effect = tables.estimate("paired", family=family, figure="paired effect")
    if effect.value is None or effect.p is None:
        return "Whether the type of instruction matters is undetermined: too few crossed clusters"
    if effect.p > 0.05:
        return "With content held fixed, instructions of one type are not shown to share more"
    return (
        "Instructions of one type share more neurons than instructions of different types, with "
        f"content balanced: overlap +{effect.value:.3f}"
    )


def _depth(tables: Tables, family: str) -> str:
    rows = tables.rows("layers", family=family)
    categories = len(distinct(rows, "category"))
    layer = array(rows, "layer")
    upper = layer > (tables.layers - 1) / 2
    share = float(array(rows, "share")[upper].sum()) / categories
    even = float(array(rows, "chance")[upper].sum()) / categories
    if len(np.unique(layer)) < 2 or not np.isfinite(share):
        return "All sets lie in one layer"
    return f"{share:.0%} of a set lies in the upper half of the layers (evenly spread: {even:.0%})"


def _units(counts: list[Row], categories: list[str], tested: bool) -> str:
    def value(figure: str, category: str = "all") -> float | None:
        return next(
            (r["value"] for r in counts if (r["figure"], r["category"]) == (figure, category)), None
        )

    general = f"{value('general') or 0:,.0f} neurons serve every type"
    found = {name: value("specific", name) for name in categories}
    known = [n for n in found.values() if n is not None]
    if tested and known:
        unknown = [shorten(name, 20) for name, n in found.items() if n is None]
        rest = f" ({', '.join(unknown)}: undetermined)" if unknown else ""
        return f"{general}; {sum(known):,.0f} are specific to one{rest}"
    if tested:
        return f"{general}; which are specific to one is undetermined"
    unique = sum(value("unique", name) or 0 for name in categories)
    return f"{general}; {unique:,.0f} are in the sets of one type alone"
