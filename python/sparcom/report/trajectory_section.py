"""The section of the page about checkpoints, which `sparcom compare` has stored."""

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report import figures
from sparcom.report.format import estimate_texts, number
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table
from sparcom.report.tables import Row, Tables, distinct


def trajectory_sections(tables: Tables) -> list[Section]:
    """A section if the run is the last of several checkpoints that were compared."""
    rows = tables.rows("trajectory")
    if not rows:
        return []
    section = Section("Along training")
    section.texts.append(
        "Overlap of an instruction's sets at each checkpoint with those at the first, and at the "
        "one before: mean Jaccard. Chance: random sets of the same sizes. Nothing is tested here: "
        "compare two checkpoints for tests."
    )
    section.texts += [f"Note: {row['warning']}." for row in tables.rows("trajectory_warnings")]
    for family in distinct(rows, "family"):
        name = FAMILY_NAMES[family]
        section.pictures.append(
            Picture(
                name=f"{family}-trajectory",
                figure=figures.overlap_by_step(
                    tables.rows("trajectory", family=family, against="first"),
                    f"{name} along training",
                ),
                caption="Bands: 95 % intervals over clusters, each for its category and step "
                "alone; length is not held fixed.",
            )
        )
        section.tables.append(
            _table(name, tables.rows("trajectory", family=family, category="all"))
        )
    return [section]


def _table(name: str, rows: list[Row]) -> Table:
    noise_floor = {
        (row["step"], row["against"]): row["value"]
        for row in rows
        if row["figure"] == "noise floor"
    }
    body = [
        (
            f"{row['run']}, against the {row['against']}",
            *estimate_texts(estimate_of(row), none="-")[:3],
            number(noise_floor.get((row["step"], row["against"]))),
        )
        for row in rows
        if row["figure"] == "overlap"
    ]
    head = (name, "overlap", "95 % interval", "chance", "noise floor")
    return Table(head, body)
