"""The section of the page about decoding: how well sets tell the category of an instruction."""

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report.format import estimate_texts, number, p_value
from sparcom.report.section import FAMILY_NAMES, Section, Table
from sparcom.report.tables import Row, Tables

_ALL = {"neurons": "frequencies c / T of all neurons", "experts": "frequencies of all experts"}


def decoding_sections(tables: Tables) -> list[Section]:
    """A section if the run was decoded."""
    rows = tables.rows("decoding")
    if not rows:
        return []
    first = rows[0]
    text = (
        f"How well the category of an instruction follows from one of the kernels below: a ridge "
        f"classifier learns from four fifths of the {first['clusters']:,} clusters and names the "
        f"category, one of {first['categories']}, of the instructions in the others. Balanced "
        "accuracy is the mean over categories of the share that is named right. Source and length "
        "are taken out first. Chance: clusters exchange their categories among those of like "
        "length and source; p is one-sided and of all rows together. Token ids alone show what the "
        "words give away; no test compares the rows."
    )
    head = ("decoded from", "balanced accuracy", "chance level", "95 % of chance", "p")
    body = []
    for row in rows:
        value, _, *chance = estimate_texts(estimate_of(row))
        body.append((_features(row), value, *chance))
    return [Section("Decoding", tables=[Table(head, body, text)], statements=_statement(rows))]


def _features(row: Row) -> str:
    if row["features"] == "tokens":
        return "token ids alone"
    return (FAMILY_NAMES if row["features"] == "sets" else _ALL)[row["family"]]


def _statement(rows: list[Row]) -> list[str]:
    """What ISNs and token ids decode, with chance."""
    neurons = next((r for r in rows if (r["family"], r["features"]) == ("neurons", "sets")), None)
    tokens = next((r for r in rows if r["features"] == "tokens"), None)
    if neurons is None or tokens is None or neurons["value"] is None:
        return []
    parts = [
        f"{_features(row)} {number(row['value'], 2, none='undetermined')} {_chance(row)}"
        for row in (neurons, tokens)
    ]
    return [
        f"Decoding: balanced accuracy of naming one of {neurons['categories']} categories, in "
        f"clusters held out: {parts[0]}; {parts[1]}."
    ]


def _chance(row: Row) -> str:
    if row["p"] is None:
        return "(undetermined: too few clusters to tell it from chance)"
    return f"(permuted clusters {number(row['chance'], 2)}, p = {p_value(row['p'])})"
