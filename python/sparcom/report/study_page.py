"""The page of a study: the paper's figures 3 to 6 and its tables, from the tables of the runs.

Figure 3: overlap of ISNs between categories. Figure 4: ISNs over depth. Figure 5: the same two of
ISEs. Figure 6: what tuning changed. Models stand side by side, each base under its tuned model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report import study_figures as figures
from sparcom.report.ablation_text import sentences
from sparcom.report.findings import findings
from sparcom.report.format import interval, number, p_value
from sparcom.report.run_view import Drawing, drawings_of
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table
from sparcom.report.tables import Row, Tables, distinct
from sparcom.report.templates import asset, template
from sparcom.store import Run

_MORE = "more than the others"
_LONGEST = 300  # characters of a cell that comes from a run


@dataclass(frozen=True)
class Side:
    """An analysed run as the page shows it. href: of its own page, from the study's."""

    run: Run
    tables: Tables
    href: str


@dataclass(frozen=True)
class PairView:
    """A base model and its tuned model; None where a run has no result."""

    name: str
    base: Side | None
    tuned: Side | None

    @property
    def sides(self) -> dict[str, Side]:
        """ "tuned" and "base", as far as they are there."""
        both = {"tuned": self.tuned, "base": self.base}
        return {name: side for name, side in both.items() if side is not None}


def study_sections(pairs: Sequence[PairView]) -> list[Section]:
    """The page's sections, in order."""
    return [
        _models(pairs),
        _overlap(pairs, "neurons", "Figure 3. Overlap of ISNs between categories"),
        _components(pairs, "neurons", "General, unique and specific neurons"),
        _depth(pairs, "neurons", "Figure 4. ISNs over depth"),
        *_experts(pairs),
        *_alteration(pairs),
        *_ablation(pairs),
    ]


def render_study(
    title: str, pairs: Sequence[PairView], problems: Mapping[str, str]
) -> tuple[str, dict[str, Drawing]]:
    """(the page, its figures by name). problems: step -> why it was not done."""
    sections = study_sections(pairs)
    drawings = drawings_of(sections)
    models = [f"{pair.name}, {side}" for pair in pairs for side in pair.sides]
    html = template("study.html").render(
        title=title,
        lead=f"{len(models)} models: {'; '.join(models)}.",
        style=asset("app/page.css"),
        sections=sections,
        drawings=drawings,
        problems=problems,
        pages=[(f"{p.name}, {name}", s.href) for p in pairs for name, s in p.sides.items()],
    )
    return html, drawings


def _each(pairs: Sequence[PairView]) -> list[tuple[str, Side]]:
    """(name, side) of every run, base before tuned."""
    return [
        (f"{pair.name}, {name}", side)
        for pair in pairs
        for name, side in reversed(list(pair.sides.items()))
    ]


def _models(pairs: Sequence[PairView]) -> Section:
    head = ("model", "instructions", "counted tokens", "layers", "neurons", "experts", "sets",
            "mean set", "template")  # fmt: skip
    rows = []
    for name, side in _each(pairs):
        space, m = side.run.space, side.run.manifest
        categories = side.tables.rows("categories")
        total = sum(row["instructions"] for row in categories)
        sizes = [row["set_size"] for row in categories if row["set_size"] is not None]
        rows.append((
            name, f"{total:,}", f"{sum(row['tokens'] for row in categories):,}",
            str(side.run.layers), f"{space.neurons:,}", f"{space.experts:,}",
            m["selection"]["rule"], f"{sum(sizes) / len(sizes):.2%}" if sizes else "-",
            str(m["config"].get("template", "-"))[:_LONGEST],
        ))  # fmt: skip
    section = Section("Models", tables=[Table(head, rows)])
    section.texts.append(
        "Every model counted the same instructions. Columns of a figure are pairs of models, the "
        "tuned model above its base. Every table, the tests behind the figures and what limits "
        "them are on the page of each run, below."
    )
    for name, side in _each(pairs):
        headlines = "; ".join(finding.headline for finding in findings(side.tables))
        section.statements.append(f"{name}: {headlines}.")
    return section


def _grid(pairs: Sequence[PairView], table: str, family: str) -> figures.Grid:
    return {
        pair.name: {name: side.tables.rows(table, family=family)
                    for name, side in pair.sides.items()}
        for pair in pairs
    }  # fmt: skip


def _overlap(pairs: Sequence[PairView], family: str, title: str) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(title)
    section.pictures.append(
        Picture(
            name=f"study-{family}-overlap",
            figure=figures.overlap_grid(_grid(pairs, "category_matrix", family),
                                        f"Overlap of {what} between categories"),
            caption="Mean Jaccard overlap of the sets of two instructions, one of the row's "
            "category and one of the column's, all pairs as they are. Both models of a pair are on "
            "one colour scale.",
        )
    )  # fmt: skip
    head = ("model", "same type", "different type", "adjusted difference", "95 % interval",
            "under permuted clusters", "p")  # fmt: skip
    rows = []
    for name, side in _each(pairs):
        if not side.tables.rows("pair_summary", family=family):
            rows.append((name, *("-",) * 6))
            continue
        same, different = (
            side.tables.row("pair_summary", family=family, pairs=f"{of} type")["mean"]
            for of in ("same", "different")
        )
        effect = side.tables.estimate("effects", family=family, figure=PRIMARY)
        rows.append((
            name, number(same), number(different), number(effect.value, signed=True),
            interval(effect.low, effect.high, signed=True), number(effect.chance),
            p_value(effect.p),
        ))  # fmt: skip
    text = (
        "Mean Jaccard of pairs of one type and of two. Adjusted: the difference with length, "
        "source and common words held fixed, among pairs of two clusters."
    )
    section.tables.append(Table(head, rows, text))
    return section


def _components(pairs: Sequence[PairView], family: str, title: str) -> Section:
    """How many components are general, and unique or specific to each category."""
    section = Section(title)
    named = [(name, side) for name, side in _each(pairs)
             if side.tables.rows("component_counts", family=family)]  # fmt: skip
    categories = distinct(
        [row for _, side in named for row in side.tables.rows("categories")], "category"
    )
    for figure in ("unique", "specific"):
        head = ["model", *(["general", "of them always on"] if figure == "unique" else [])]
        rows = []
        for name, side in named:
            counts = {(row["figure"], row["category"]): row
                      for row in side.tables.rows("component_counts", family=family)}  # fmt: skip
            first = ["general", "general and always on"] if figure == "unique" else []
            cells = [_count(counts.get((one, "all"))) for one in first]
            cells += [_count(counts.get((figure, category))) for category in categories]
            rows.append((name, *cells))
        text = {
            "unique": "General: in the sets of at least half of every category's instructions (or "
            "what [analysis] high says). Unique to a category: in as many of its sets, and in few "
            "of every other's.",
            "specific": "Specific to a category: fires on a larger share of its tokens than of "
            "every other category's, by the least difference, at the false discovery rate of the "
            "analysis.",
        }[figure]
        section.tables.append(
            Table([*head, *(f"{figure}: {name}" for name in categories)], rows, text)
        )
    return section


def _count(row: Row | None) -> str:
    if row is None:
        return "-"
    return "undetermined" if row["value"] is None else f"{row['value']:,.0f}"


def _depth(pairs: Sequence[PairView], family: str, title: str) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(title)
    section.pictures.append(
        Picture(
            name=f"study-{family}-layers",
            figure=figures.layer_grid(_grid(pairs, "layers", family), f"{what} over depth", what),
            caption="Mean number in an instruction's set, per layer and category, with 95 % "
            "intervals over clusters where a layer has one kind of site. Dotted: the same number "
            "spread evenly over all components.",
        )
    )
    return section


def _experts(pairs: Sequence[PairView]) -> list[Section]:
    """Overlap, counts and depth of ISEs, of the models that have routed experts."""
    mixed = [
        pair
        for pair in pairs
        if any(side.tables.rows("category_matrix", family="experts")
               for side in pair.sides.values())
    ]  # fmt: skip
    if not mixed:
        return []
    title = "Figure 5. ISEs: overlap between categories, and depth"
    section, depth = _overlap(mixed, "experts", title), _depth(mixed, "experts", "")
    section.pictures += depth.pictures
    return [section, _components(mixed, "experts", "General, unique and specific experts")]


def _alteration(pairs: Sequence[PairView]) -> list[Section]:
    """What tuning changed, of the pairs that were compared."""
    compared = [
        (pair, family, rows)
        for pair in pairs
        for family in ("neurons", "experts")
        if pair.tuned and (rows := pair.tuned.tables.rows("alteration_summary", family=family))
    ]
    if not compared:
        return []
    section = Section("Figure 6. What tuning changed")
    columns = {f"{pair.name}: {FAMILY_NAMES[family]}": (pair, family, rows)
               for pair, family, rows in compared}  # fmt: skip
    section.pictures.append(
        Picture(
            name="study-alteration",
            figure=figures.alteration_grid(
                {name: rows for name, (_, _, rows) in columns.items()},
                {name: _layers_changed(pair, family)
                 for name, (pair, family, _) in columns.items()},
                "Base against tuned",
            ),
            caption="Above: overlap of an instruction's sets in base and tuned, by category, with "
            "95 % intervals over clusters, beside random sets of the same sizes and, where it was "
            "measured, the base in another dtype. Below: how many components an instruction's set "
            "gains and loses in each layer.",
        )
    )  # fmt: skip
    head = ("pair", "category", "overlap", "95 % interval", "chance", "noise floor", _MORE,
            "95 % interval", "q", "layer shift")  # fmt: skip
    body = [
        _alteration_row(name, category, rows)
        for name, (_, _, rows) in columns.items()
        for category in distinct(rows, "category")
    ]
    text = (
        "More than the others: how much further the sets of a category moved than those of other "
        "categories of like length and source; q is corrected over the categories."
    )
    section.tables.append(Table(head, body, text))
    return [section]


def _layers_changed(pair: PairView, family: str) -> list[Row]:
    assert pair.tuned is not None  # it was compared
    return pair.tuned.tables.rows(f"alteration_layers_{family}", category="all")


def _alteration_row(name: str, category: str, rows: Sequence[Row]) -> tuple[str, ...]:
    of = {row["figure"]: row for row in rows if row["category"] == category}
    overlap, more = estimate_of(of["overlap"]), of.get(_MORE, {})
    return (
        name, category, number(overlap.value), interval(overlap.low, overlap.high),
        number(overlap.chance), number(of.get("noise floor", {}).get("value")),
        number(more.get("value"), signed=True),
        interval(more.get("low"), more.get("high"), signed=True), p_value(more.get("p")),
        number(of["layer shift"]["value"]),
    )  # fmt: skip


def _ablation(pairs: Sequence[PairView]) -> list[Section]:
    """What each model loses without a set, where that was measured."""
    out = []
    for table, title, effect in (
        ("ablation", "Ablation: loss on reference answers", "effect, nats per token"),
        ("behaviour", "Ablation: answers written", "share of right answers lost"),
    ):
        section = Section(title)
        head = ("model", "target", "category", "how", effect, "95 % interval", "random sets, 95 %",
                "selectivity", "random sets, 95 %", "p", "verdict")  # fmt: skip
        body = []
        for name, side in _each(pairs):
            rows = side.tables.rows(table)
            body += [_ablation_row(name, row) for row in rows if row["verdict"] is not None]
            for target, how in dict.fromkeys((row["target"], row["how"]) for row in rows):
                of = [row for row in rows if (row["target"], row["how"]) == (target, how)]
                section.statements += [f"{name}: {text}" for text in sentences(of)]
        if body or section.statements:
            section.tables.append(Table(head, body))
            out.append(section)
    return out


def _ablation_row(name: str, row: Row) -> tuple[str, ...]:
    return (
        name, row["target"], row["category"], row["how"], number(row["effect"], signed=True),
        interval(row["effect_low"], row["effect_high"], signed=True),
        interval(row["random_low"], row["random_high"], signed=True),
        number(row["selectivity"], signed=True),
        interval(row["selectivity_random_low"], row["selectivity_random_high"], signed=True),
        p_value(row["p"]), row["verdict"],
    )  # fmt: skip
