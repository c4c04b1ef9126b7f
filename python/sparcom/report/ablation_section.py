"""The section of the page about ablation, which `sparcom ablate` has stored."""

from sparcom.report.ablation_text import (
    BALANCE_HEAD,
    PLAIN_HEAD,
    amplified,
    balance_of,
    by_dose,
    figures_of,
    head_of,
    plain_of,
    sentences,
    what_is_done,
)
from sparcom.report.figures import dose_response, random_set_intervals
from sparcom.report.section import Picture, Section, Table, outdated
from sparcom.report.tables import Row, Tables, distinct


def ablation_sections(tables: Tables) -> list[Section]:
    """A section for the loss and one for behaviour, if components of the run were ablated."""
    return [
        _section(rows, title, name)
        for title, name in (("Ablation", "ablation"), ("Ablation: behaviour", "behaviour"))
        if (rows := tables.rows(name))
    ]


def _section(rows: list[Row], title: str, name: str) -> Section:
    if "factor" not in rows[0]:
        return outdated(title, "ablate")
    section = Section(title)
    behaviour = "metric" in rows[0]
    section.texts += [_what_behaviour(rows) if behaviour else _what(rows), _how_compared(rows)]
    by_target = [by_dose(rows, name) for name in distinct(rows, "target")]
    doses = [of for one in by_target for of in one]
    said = [text for of in doses for text in sentences(of)]
    section.statements += dict.fromkeys(said)  # no fair comparison: one sentence for all doses
    if drawn := [row for row in rows if row["verdict"] in ("matters", "not shown")]:
        caption = (
            "Ablated targets (dots; filled: they matter) beside the interval into which 95 % of "
            "their matched random sets fall (bars; none where drawing stopped early). Selectivity; "
            f"for all, the effect. {_unit(rows).capitalize()}."
        )
        figure = random_set_intervals(drawn, f"{title.lower()}: targets", _unit(rows))
        section.pictures.append(Picture(name=name, figure=figure, caption=caption))
    if any(len(one) > 1 and one[0][0]["factor"] is not None for one in by_target):
        section.pictures.append(_dose_response(rows, title, name))
    section.tables.append(_balances([one[0] for one in by_target]))
    section.tables += [_target_table(of) for of in doses]
    if plain := [row for row in rows if row.get("plain_sets") and row["verdict"] == "matters"]:
        section.tables.append(_plain_table(plain))
    return section


def _unit(rows: list[Row]) -> str:
    return "share of answers" if "metric" in rows[0] else "nats per answer token"


def _what_behaviour(rows: list[Row]) -> str:
    total = max(row["instructions"] for row in rows)
    metrics = {row["category"]: row["metric"] for row in rows if row["category"] != "all"}
    named = ", ".join(f"{category}: {metric}" for category, metric in metrics.items())
    return (
        "Answers that the model writes itself, greedily, right or wrong. Score: the share of right "
        f"ones ({named}), over {total} instructions. Lost: the whole model's score less that with "
        f"a target {_done(rows)}. Selectivity: what is lost in a category less the mean of the "
        "others; of all, categories count alike. Changed answers: the share whose text is another. "
        f"Intervals resample clusters. Written by the {rows[0]['engine']} engine."
    )


def _what(rows: list[Row]) -> str:
    total = max(row["instructions"] for row in rows)
    clusters = max(row["clusters"] for row in rows)
    where = (
        "Targets were found on half of the clusters and scored on the other half, both ways. "
        if all(row["found"] == "on the other half" for row in rows)
        else "Words were found on half of the clusters and scored on the other half, both ways; "
        "lists were scored as given. "
    )
    return (
        "Effect: loss on the first tokens of the reference answers, nats per token, with a target "
        f"{_done(rows)}, less that of the whole model, over {total} instructions of {clusters} "
        f"clusters. "
        f"{where}Selectivity: the effect on a category less the mean effect on the others; of all, "
        "categories count alike. KL: of the whole model's answer distribution from the changed "
        "one's, per token; changed: share of answer tokens whose most likely token changes. "
        f"Intervals resample clusters. Measured by the {rows[0]['engine']} engine."
    )


def _done(rows: list[Row]) -> str:
    """What was done to the targets, in words."""
    return " or ".join(what_is_done({"how": h, "factor": f}) for h, f in
                       dict.fromkeys((row["how"], row["factor"]) for row in rows))  # fmt: skip


def _how_compared(rows: list[Row]) -> str:
    return (
        "Each target is compared with random sets of as many components of every site that fire as "
        "often in its category and contribute as much, |h| times the norm of the neuron's row of "
        "the down projection. p is its rank among them, corrected over the categories and the "
        "doses of a target by the largest standardised figure, and over targets by Holm. Drawing "
        "stops early where no p of 0.05 can be reached any more. "
        f"{max(row['sets_needed'] for row in rows)} random sets are needed for a claim."
        f"{_two_sided(rows)}"
    )


def _two_sided(rows: list[Row]) -> str:
    if not any(amplified(row) for row in rows):
        return ""
    return (
        " Where a target does more, the loss may rise or fall, and the figure is ranked without "
        "its sign."
    )


def _dose_response(rows: list[Row], title: str, name: str) -> Picture:
    caption = (
        "Effect on each category against the factor that a target's outputs are multiplied by; at "
        "1 the model is whole. Intervals are over clusters. Bars: the interval into which 95 % of "
        "matched random sets fall, in the target's own category, or over all (none where drawing "
        "stopped early)."
    )
    figure = dose_response(rows, f"{title.lower()}: effect by dose", _unit(rows))
    return Picture(name=f"{name}-doses", figure=figure, caption=caption)


def _balances(by_target: list[list[Row]]) -> Table:
    text = (
        "What random sets were matched on. Differences are standardised; above 0.1 no comparison "
        "is made."
    )
    return Table(BALANCE_HEAD, [balance_of(of[0]) for of in by_target], text)


def _target_table(of: list[Row]) -> Table:
    head = (
        f"{of[0]['target']}: {of[0]['size']:,} {of[0]['family']}, {of[0]['how']}",
        *head_of(of[0]),
    )
    return Table(head, figures_of(of))


def _plain_table(rows: list[Row]) -> Table:
    sets = max(row["plain_sets"] for row in rows)
    text = (
        f"Beside {sets} random sets for each target that matters, enlarged until the loss of plain "
        "text rises as much. Their mean; so few bear no test."
    )
    return Table(PLAIN_HEAD, [plain_of(row) for row in rows], text)
