"""The section of the page about stability: the headline under other choices."""

from sparcom.analysis.stability import AS_RUN
from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report.format import estimate_texts, number
from sparcom.report.section import Section, Table
from sparcom.report.tables import Row, Tables

_VARIED = {"rule": "rule {}", "ties": "ties {}", "length": "{} by T", AS_RUN: "as run, {}"}


def stability_sections(tables: Tables) -> list[Section]:
    """A section if the headline was computed under other settings."""
    rows = tables.rows("stability")
    if not rows:
        return []
    text = (
        "The adjusted category effect on ISNs under other choices. The first row is the run's own, "
        "which was fixed in advance; the others are the same question asked again, so that they "
        "carry no p. Sets are selected again from stored counts, by one choice at a time; "
        "instructions whose set is then empty are left out. Read an effect beside the mean "
        "overlap, which follows the size of the sets. Thirds: of the instructions by T, with the "
        "run's own sets; there is no interval if a category of one source has a single cluster "
        "left. Another threshold, or the same number of tokens of each instruction, needs "
        "counting again: --threshold, --max-tokens."
    )
    head = ("choice", "instructions", "mean set size", "mean overlap", "adjusted effect",
            "95 % interval", "chance level", "95 % of chance")  # fmt: skip
    return [Section("Stability", tables=[Table(head, [_row(row) for row in rows], text)])]


def _row(row: Row) -> tuple[str, ...]:
    size = row["set_size"]
    return (
        _VARIED[row["varied"]].format(row["setting"]),
        f"{row['instructions']:,}",
        "-" if size is None else f"{size:.2%}",
        number(row["overlap"]),
        *estimate_texts(estimate_of(row))[:4],
    )
