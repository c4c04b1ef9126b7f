"""What the page says of the paired effect, where every cluster holds every category."""

from sparcom.analysis.stats.estimate import Estimate
from sparcom.report.format import estimate_texts, number, p_value, with_interval
from sparcom.report.section import Section, Table
from sparcom.report.tables import Tables

_WORDS = {
    "paired effect": "same minus different types, two clusters (paired effect)",
    "same type, two clusters": "same type, two clusters",
    "different types, two clusters": "different types, two clusters",
    "different types, one cluster": "different types, one cluster",
    "same type, one cluster": "same type, one cluster (paraphrase)",
    "same minus different types, one cluster": "paraphrase minus different types, one cluster",
}


def paired_statement(tables: Tables, family: str, what: str) -> str | None:
    """What the paired effect bears; None if the run has none."""
    if not tables.rows("paired", family=family):
        return None
    found = _found(tables, family)
    effect, paraphrase = found["paired effect"], found["same type, one cluster"]
    count = tables.row("paired", family=family, figure="clusters")["value"]
    test = (
        f"Undetermined: {count:.0f} clusters are too few to test it."
        if effect.p is None
        else f"With types permuted within clusters it would be {number(effect.chance)} "
        f"(p = {p_value(effect.p)}, one-sided)"
        + (", from which it cannot be told." if effect.p > 0.05 else ".")
    )
    text = (
        f"{what}, paired: over {count:.0f} clusters, such as passages, that hold every type, two "
        "instructions of the same type from different clusters overlap by "
        f"{number(found['same type, two clusters'].value)}, of different types by "
        f"{number(found['different types, two clusters'].value)}, a difference of "
        f"{with_interval(effect)}. What a cluster has in common cancels. {test} Two of different "
        "types from one cluster overlap by "
        f"{number(found['different types, one cluster'].value)}"
    )
    if paraphrase.value is not None:
        text += f", two of the same type from one cluster by {number(paraphrase.value)}"
    return f"{text}."


def add_paired(section: Section, tables: Tables, family: str, what: str) -> None:
    """Put the paired effect first, if the run has one."""
    statement = paired_statement(tables, family, what)
    if statement is None:
        return
    section.statements.append(statement)
    found = _found(tables, family)
    head = ("paired", "value", "95 % interval", "chance level", "95 % of chance", "p")
    rows = [
        (words, *estimate_texts(found[name], none="-"))
        for name, words in _WORDS.items()
        if found[name].value is not None
    ]
    section.tables.append(
        Table(
            head,
            rows,
            "Mean Jaccard over the clusters that hold every type. Chance: types exchanged within "
            "each cluster. Intervals are over clusters. The words that instructions of one type "
            "share are not held fixed here, but in the adjusted effect below.",
        )
    )


def _found(tables: Tables, family: str) -> dict[str, Estimate]:
    return {name: tables.estimate("paired", family=family, figure=name) for name in _WORDS}
