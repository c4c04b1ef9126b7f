"""The section of the page about ablation, which `sparcom ablate` has stored."""

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report.format import estimate_texts, interval, number
from sparcom.report.section import Section, Table, outdated
from sparcom.report.tables import Tables, distinct


def ablation_sections(tables: Tables) -> list[Section]:
    """A section if components of the run were ablated."""
    rows = tables.rows("ablation")
    if not rows:
        return []
    if "target" not in rows[0]:
        return [outdated("Ablation", "ablate")]
    section, draws = Section("Ablation"), rows[0]["random_sets"]
    section.texts.append(
        "Loss on reference answers, nats per token, with a target set ablated, minus that of the "
        f"whole model, over {max(row['instructions'] for row in rows)} instructions. Random: mean "
        f"effect of {draws} random sets with as many components of every layer and like frequency; "
        f"so few bound every p at {1 / (1 + draws):.2g}. Beyond random: the difference of the two. "
        f"Measured by the {rows[0]['engine']} engine."
    )
    for target in distinct(rows, "target"):
        of = tables.rows("ablation", target=target)
        head = (f"{target}: {of[0]['size']:,} {of[0]['family']}, {of[0]['how']}",
                "loss", "effect", "95 % interval", "random", "beyond random")  # fmt: skip
        body = [
            (
                row["category"],
                number(row["loss"]),
                *estimate_texts(estimate_of(row), none="-")[:3],
                interval(row["beyond_low"], row["beyond_high"]),
            )
            for row in of
        ]
        section.tables.append(Table(head, body))
        lost = [
            row["category"]
            for row in of
            if row["category"] != "all" and (row["beyond_low"] or 0) > 0
        ]
        section.statements.append(
            f"Without the set {target} the model loses more than without random ones in "
            f"{', '.join(lost) or 'no category'}."
        )
    return [section]
