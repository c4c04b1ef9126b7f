"""The section of the page about attribution: whether what fires specifically is what matters."""

from sparcom.analysis.components.agreement_tables import FIGURES
from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report.figures import agreement_curves, agreement_intervals
from sparcom.report.format import interval, number
from sparcom.report.section import Picture, Section, Table
from sparcom.report.tables import Row, Tables, distinct

_RULES = {
    "attribution": "gradient times activation",
    "relp": "relevance (RelP)",
}
_FAMILIES = {"neurons": "neurons", "experts": "experts"}
_SAID = 20  # members of the lists that the statement is about


def agreement_sections(tables: Tables) -> list[Section]:
    """A section if the likelihood of answers was attributed in the run."""
    rows = tables.rows("agreement")
    if not rows:
        return []
    section = Section("What fires and what matters", [_what(rows)])
    for family in distinct(rows, "family"):
        of = [row for row in rows if row["family"] == family]
        section.statements += [_statement(of, rule) for rule in distinct(of, "rule")]
        section.pictures += _pictures(of, family)
        section.tables += [_correlations(of, family), _overlaps(of, family)]
    return [section]


def _what(rows: list[Row]) -> str:
    rules = " and ".join(f"{rule}: {_RULES[rule]}" for rule in distinct(rows, "rule"))
    return (
        "Attribution says, to first order, by how much the loss on an instruction's reference "
        f"answer would rise without a component ({rules}), in nats per token of the answer. How "
        "specifically a component fires in a category is its c / T there less the largest of the "
        "other categories. The rank correlation compares the two rankings within each layer and "
        "kind of site; at equal firing, it holds fixed how often the component fires in the "
        "category, without which it could do neither. Noise lowers all of them: reliability is "
        "the rank correlation of a ranking with itself over halves of the clusters, stepped up. "
        "Intervals leave each cluster out in turn; they are about what as many clusters give on "
        "average. An attribution is an estimate, not a test: sparcom ablate tests."
    )


def _statement(rows: list[Row], rule: str) -> str:
    """What the figures of one family and rule are; nothing that they do not say."""
    of = [row for row in rows if row["rule"] == rule]
    family = _FAMILIES[of[0]["family"]]
    known = [r for r in of if r["figure"] == FIGURES[0] and r["value"] is not None]
    shared = [r for r in of if r["figure"] == "overlap" and r["k"] == _SAID]
    parts = []
    if known:
        low, high = (min(known, key=_value), max(known, key=_value))
        span = (
            f"is {number(low['value'], 2, signed=True)} in {low['category']}"
            if len(known) == 1
            else f"lies between {number(low['value'], 2, signed=True)} ({low['category']}) and "
            f"{number(high['value'], 2, signed=True)} ({high['category']})"
        )
        parts.append(
            f"the rank correlation of how specifically {family} fire with their {_RULES[rule]} "
            f"{span}"
        )
    if shared:
        mean = sum(row["value"] for row in shared) / len(shared)
        chance = sum(row["chance"] for row in shared) / len(shared)
        parts.append(
            f"of the {_SAID} {family} that fire most specifically, {mean:.0%} are among the "
            f"{_SAID} of highest attribution (mean over {len(shared)} categories; of random "
            f"ones that fire as often {chance:.1%})"
        )
    if not parts:
        return f"Whether {family} that fire specifically matter is undetermined ({_RULES[rule]})."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _value(row: Row) -> float:
    value: float = row["value"]
    return value


def _pictures(rows: list[Row], family: str) -> list[Picture]:
    out = []
    correlations = [row for row in rows if row["figure"] == FIGURES[0]]
    if any(row["value"] is not None for row in correlations):
        ordered = [
            r for n in distinct(rows, "category") for r in correlations if r["category"] == n
        ]
        out.append(Picture(
            name=f"{family}-agreement",
            figure=agreement_intervals(ordered, f"{family}: firing specifically and mattering"),
            caption="Rank correlation of how specifically a component fires in a category with "
            "its attribution there; bars: 95 % intervals over clusters, each for its row alone.",
        ))  # fmt: skip
    for rule in distinct(rows, "rule"):
        shared = [row for row in rows if row["figure"] == "overlap" and row["rule"] == rule]
        if shared:
            out.append(Picture(
                name=f"{family}-agreement-{rule}",
                figure=agreement_curves(shared, f"{family}: {_RULES[rule]}"),
                caption="Share of the components that fire most specifically in a category that "
                "are among as many of highest attribution. Dotted: random lists with as many "
                "members in every layer and class of firing frequency.",
            ))  # fmt: skip
    return out


def _correlations(rows: list[Row], family: str) -> Table:
    head = (f"{family}: rank correlation", "value", "95 % interval", "at equal firing",
            "95 % interval", "reliability, firing", "reliability, attribution")  # fmt: skip
    body = []
    for rule in distinct(rows, "rule"):
        for name in distinct(rows, "category"):
            of = {
                r["figure"]: estimate_of(r)
                for r in rows
                if (r["rule"], r["category"]) == (rule, name) and r["figure"] != "overlap"
            }
            first, second = (of[figure] for figure in FIGURES)
            trust = [of[f"reliability, {what}"].value for what in ("firing", "attribution")]
            body.append((
                f"{name}, {rule}",
                number(first.value, none="undetermined"), interval(first.low, first.high),
                number(second.value, none="undetermined"), interval(second.low, second.high),
                *(number(value, 2) for value in trust),
            ))  # fmt: skip
    return Table(head, body)


def _overlaps(rows: list[Row], family: str) -> Table:
    head = (f"{family}: members of each list", "share in both", "random", "95 % of random")
    body = [
        (
            f"{row['category']}, {row['rule']}, {row['k']:,}", number(row["value"]),
            number(row["chance"]), interval(row["chance_low"], row["chance_high"]),
        )
        for row in rows
        if row["figure"] == "overlap"
    ]  # fmt: skip
    return Table(head, body, "Chance is over random lists, not over clusters; it is no test.")
