"""What the page says of an ablation: no sentence that its table does not bear."""

import numpy as np
import pyarrow as pa
import pytest

from sparcom.ablation.ablation import schema
from sparcom.report.ablation_section import ablation_sections
from sparcom.report.ablation_text import sentences


def row(**changes: object) -> dict:
    """A row of the table, of a target that matters."""
    kinds = {pa.string(): "x", pa.int64(): 7, pa.float64(): 0.5, pa.bool_(): False}
    whole = {field.name: kinds[field.type] for field in schema()}
    return whole | {
        "target": "specific:20:MATH", "own": "MATH", "category": "MATH",
        "found": "on the other half",
        "verdict": "matters", "effect": 0.3, "selectivity": 0.25, "p": 0.01, "random_sets": 99,
        "selectivity_random_low": -0.04, "selectivity_random_high": 0.06, "sets_needed": 39,
        "plain_sets": 0, "how": "zero", "factor": 0.0,
    } | changes  # fmt: skip


class Rows:
    """Tables with one table."""

    def __init__(self, rows: list[dict], name: str = "ablation") -> None:
        self._rows, self._name = rows, name

    def rows(self, name: str, **values: object) -> list[dict]:
        if name != self._name:
            return []
        return [r for r in self._rows if all(r[k] == v for k, v in values.items())]


def test_a_target_that_matters() -> None:
    assert sentences([row()]) == [
        "specific:20:MATH matters for MATH: without it the loss of MATH rises by 0.300 nats per "
        "token and that of the other categories by 0.050, a difference of 0.250 (95 % of 99 "
        "matched random sets lie between -0.040 and 0.060; p 0.01, corrected)."
    ]


def test_a_list_is_no_cross_fit() -> None:
    assert "only if the list was not found on these" in sentences([row(found="as listed")])[1]


def test_nothing_is_claimed_where_nothing_is_shown() -> None:
    few = {"selectivity_random_low": None, "selectivity_random_high": None, "random_sets": 12}
    (said,) = sentences([row(verdict="not shown", p=0.4, **few)])
    assert said == (
        "No selective effect of specific:20:MATH on MATH is shown: the difference from the other "
        "categories is 0.250 (12 matched random sets; p 0.4, corrected)."
    )
    (said,) = sentences([row(verdict="undetermined", p=None, random_sets=5)])
    assert said == "specific:20:MATH: undetermined: 5 random sets, and at least 39 are needed."
    (said,) = sentences([row(verdict=None, p=None)])
    assert "undetermined: it is compared with other categories, and there are none" in said
    unfair = row(verdict="no fair comparison", p=None, frequency=0.998, frequency_random=0.064)
    assert sentences([unfair, unfair])[0].startswith(
        "No fair comparison exists for specific:20:MATH, and none is made: it fires on 0.998 of "
        "the tokens and contributes 0.500, its random sets 0.064 and 0.500 (standardised "
    )


def test_a_target_without_a_category() -> None:
    words = {"target": "top:9", "own": None, "random_low": 0.0, "random_high": 0.1}
    rows = [
        row(**words, category="QA", verdict="not shown", p=0.9),
        row(**words, category="SUM", verdict="not shown", p=0.2),
        row(**words, category="all", effect=0.4, selectivity=None),
    ]
    assert sentences(rows) == [
        "The model needs top:9 more than random sets like it: without it the loss rises by 0.400 "
        "(95 % of 99 matched random sets lie between 0.000 and 0.100; p 0.01, corrected).",
        "Not shown for top:9 in QA, SUM (p 0.2 or more).",
    ]


def test_what_is_scaled_is_not_called_ablated() -> None:
    half = row(how="scale:0.5", factor=0.5)
    assert sentences([half])[0].startswith(
        "specific:20:MATH matters for MATH: with it scaled by 0.5 the loss of MATH rises by 0.300"
    )
    twice = row(how="scale:2", factor=2.0, effect=-0.3, selectivity=-0.25)
    assert sentences([twice]) == [
        "Scaling specific:20:MATH by 2 acts on MATH otherwise than on the other categories: the "
        "loss of MATH changes by -0.300 nats per token and that of the others by -0.050, a "
        "difference of -0.250 (95 % of 99 matched random sets lie between -0.040 and 0.060; p 0.01,"
        " corrected)."
    ]
    (said,) = sentences([twice | {"verdict": "not shown"}])
    assert said.startswith("No selective effect of specific:20:MATH scaled by 2 on MATH is shown:")
    (said,) = sentences([twice | {"verdict": "undetermined"}])
    assert said.startswith("specific:20:MATH (scale:2): undetermined: 99 random sets")
    total = twice | {"category": "all", "random_low": 0.0, "random_high": 0.1, "own": None}
    assert sentences([total])[0].startswith(
        "Scaling specific:20:MATH by 2 changes the loss more than it does with random sets like "
        "it: by -0.300 (95 %"
    )


def test_what_is_boosted_is_neither_ablated_nor_scaled() -> None:
    more = row(how="boost:2", factor=None, effect=0.3, selectivity=0.25)
    assert sentences([more])[0].startswith(
        "Adding 2 to the logits of specific:20:MATH acts on MATH otherwise than on the other"
    )
    less = row(how="boost:-2", factor=None)
    assert sentences([less])[0].startswith(
        "specific:20:MATH matters for MATH: with -2 added to its experts' logits the loss of MATH"
    )
    (section,) = ablation_sections(Rows([more, less]))
    assert [picture.name for picture in section.pictures] == ["ablation"]  # no factors to draw
    assert "with a target boosted by 2 or boosted by -2, less" in section.texts[0]


def test_doses_have_a_figure_a_table_each_and_one_balance() -> None:
    doses = [("scale:0", 0.0, 0.4), ("scale:0.5", 0.5, 0.1), ("scale:2", 2.0, -0.2)]
    rows = [
        row(how=how, factor=factor, effect=effect, category=category)
        for how, factor, effect in doses
        for category in ("MATH", "all")
    ]
    (section,) = ablation_sections(Rows(rows))
    assert [picture.name for picture in section.pictures] == ["ablation", "ablation-doses"]
    axes = section.pictures[1].figure.axes[0]
    curve = next(line for line in axes.lines if line.get_label() == "MATH")
    np.testing.assert_array_equal(curve.get_xydata(), [[0, 0.4], [0.5, 0.1], [1, 0], [2, -0.2]])
    assert len(section.tables[0].rows) == 1
    assert [table.head[0].rpartition(" ")[2] for table in section.tables[1:]] == [
        how for how, _, _ in doses
    ]
    assert "ablated (zero)" not in "".join(section.texts)
    assert (
        "with a target ablated (scale:0) or scaled by 0.5 or scaled by 2, less"
        in (section.texts[0])
    )
    assert "ranked without its sign" in section.texts[1]


def test_behaviour_is_spoken_of_as_a_score_that_falls() -> None:
    scored = row(metric="exact match", score=0.8)
    assert sentences([scored])[0].startswith(
        "specific:20:MATH matters for MATH: without it the score of MATH falls by 0.300 and that "
        "of the other categories by 0.050, a difference of 0.250 (95 % of 99 matched"
    )
    (said,) = sentences([scored | {"verdict": "not shown"}])
    assert said.startswith(
        "No selective effect of specific:20:MATH on MATH (exact match) is shown: the difference"
    )
    twice = scored | {"how": "scale:2", "factor": 2.0}
    assert sentences([twice])[0].endswith(
        "the score of MATH changes by -0.300 and that of the others by -0.050, a difference of "
        "-0.250 (95 % of 99 matched random sets lie between -0.060 and 0.040; p 0.01, corrected)."
    )
    (section,) = ablation_sections(Rows([scored], "behaviour"))
    assert section.title == "Ablation: behaviour"
    assert "right ones (MATH: exact match), over 7 instructions" in section.texts[0]
    assert "nats" not in "".join(section.texts)
    assert section.tables[1].rows[0][:4] == ("MATH", "0.800", "exact match", "+0.300")
    assert len(section.tables[1].rows[0]) == len(section.tables[1].head)
    assert section.pictures[0].figure.axes[0].get_xlabel() == "share of answers"


@pytest.mark.parametrize("verdict", ["matters", "not shown", "undetermined", "no fair comparison"])
def test_the_section_shows_every_target_and_its_balance(verdict: str) -> None:
    rows = [row(verdict=verdict), row(category="all", verdict=None, selectivity=None, p=None)]
    (section,) = ablation_sections(Rows(rows))
    assert ("matters for" in section.statements[0]) == (verdict == "matters")
    heads = [table.head[0] for table in section.tables]
    assert heads == ["target", "specific:20:MATH: 7 x, zero"]
    assert [r[0] for r in section.tables[1].rows] == ["MATH", "all"]
    assert len(section.pictures) == (verdict in ("matters", "not shown"))
    if section.pictures:
        axes = section.pictures[0].figure.axes[0]
        (bar,) = axes.patches  # the prediction interval
        assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((-0.04, 0.06))


def test_plain_text_stands_beside_what_matters() -> None:
    (section,) = ablation_sections(Rows([row(plain_sets=3, plain_selectivity=0.01)]))
    assert section.tables[-1].rows[0][-1] == "+0.010"
    assert ablation_sections(Rows([])) == []
