"""What the page says of attribution: the figures of its table, and nothing that they do not say."""

import pytest

from sparcom.report.agreement_section import agreement_sections


class Rows:
    """Tables with one table."""

    def __init__(self, rows: list[dict]) -> None:
        self._rows = rows

    def rows(self, name: str, **values: object) -> list[dict]:
        found = self._rows if name == "agreement" else []
        return [r for r in found if all(r[k] == v for k, v in values.items())]


def rows_of(category: str, value: float | None, share: float, rule: str = "attribution"):
    none = dict.fromkeys(("low", "high", "chance", "chance_low", "chance_high", "p"))
    head = {"family": "neurons", "rule": rule, "category": category, "k": None, **none}
    bounds = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    return [
        {**head, "figure": "rank correlation", "value": value, **bounds},
        {**head, "figure": "rank correlation, equal firing", "value": value},
        {**head, "figure": "reliability, firing", "value": 0.9},
        {**head, "figure": "reliability, attribution", "value": 0.5},
        {**head, "figure": "overlap", "k": 10, "value": share, "chance": 0.01,
         "chance_low": 0.0, "chance_high": 0.1},
        {**head, "figure": "overlap", "k": 20, "value": share, "chance": 0.02,
         "chance_low": 0.0, "chance_high": 0.1},
    ]  # fmt: skip


def test_the_statement_is_the_range_and_the_mean() -> None:
    (section,) = agreement_sections(Rows(rows_of("QA", 0.31, 0.2) + rows_of("MATH", -0.05, 0.4)))
    assert section.statements == [
        "The rank correlation of how specifically neurons fire with their gradient times "
        "activation lies between -0.05 (MATH) and +0.31 (QA); of the 20 neurons that fire most "
        "specifically, 30% are among the 20 of highest attribution (mean over 2 categories; of "
        "random ones that fire as often 2.0%)."
    ]
    first, second = section.tables
    assert first.rows[0] == ("QA, attribution", "0.310", "0.210 to 0.410", "0.310", "-", "0.90",
                             "0.50")  # fmt: skip
    assert second.rows[0] == ("QA, attribution, 10", "0.200", "0.010", "0.000 to 0.100")
    assert [picture.name for picture in section.pictures] == [
        "neurons-agreement", "neurons-agreement-attribution",
    ]  # fmt: skip
    axes = section.pictures[0].figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "QA, attribution", "MATH, attribution",
    ]  # fmt: skip
    axes = section.pictures[1].figure.axes[0]
    shown = [text.get_text() for text in axes.get_xticklabels(which="both")]
    assert shown == ["10", "20"]


@pytest.mark.parametrize("rules", [("attribution",), ("attribution", "relp")])
def test_each_rule_has_a_statement(rules: tuple[str, ...]) -> None:
    rows = [row for rule in rules for row in rows_of("QA", 0.3, 0.2, rule)]
    (section,) = agreement_sections(Rows(rows))
    assert len(section.statements) == len(rules)
    assert "is +0.30 in QA" in section.statements[0]


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    (section,) = agreement_sections(Rows(rows_of("QA", None, 0.2)[:4]))
    assert section.statements == [
        "Whether neurons that fire specifically matter is undetermined (gradient times activation)."
    ]
    assert section.tables[0].rows[0][:3] == ("QA, attribution", "undetermined", "-")
    assert not section.pictures
    assert agreement_sections(Rows([])) == []
