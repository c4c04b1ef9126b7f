"""What the rows of the table `ablation` say, in words and figures: for the page and the command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparcom.report.format import interval, number, p_value
from sparcom.report.tables import distinct

Row = dict[str, Any]

HEAD = (
    "loss", "effect", "95 % interval", "random sets, 95 %", "selectivity", "95 % interval",
    "random sets, 95 %", "p", "KL", "changed",
)  # fmt: skip
BEHAVIOUR_HEAD = ("score", "metric", "lost", *HEAD[2:8], "changed answers")
BALANCE_HEAD = (
    "target", "size", "fires", "random sets", "difference", "contributes", "random sets",
    "difference", "random sets drawn",
)  # fmt: skip
PLAIN_HEAD = (
    "target", "size", "plain text", "effect", "selectivity", "random size", "plain text", "effect",
    "selectivity",
)  # fmt: skip


def by_dose(rows: Sequence[Row], target: str) -> list[list[Row]]:
    """The rows of one target, a list for each way in which it was ablated."""
    of = [row for row in rows if row["target"] == target]
    return [[row for row in of if row["how"] == how] for how in distinct(of, "how")]


_PARTLY = {
    "negative": "silenced where the gate is negative",
    "positive": "silenced where the gate is positive",
    "resample": "given the outputs of another instruction",
}


def what_is_done(row: Row) -> str:
    """What the components of a row were: "ablated (zero)", or "scaled by 0.5"."""
    if boost := _boost(row):
        return f"boosted by {boost}"
    if partly := _PARTLY.get(row["how"]):
        return partly
    return f"scaled by {row['factor']:g}" if _scaled(row) else f"ablated ({row['how']})"


def name_of(row: Row) -> str:
    """A target, with its dose if there may be others."""
    return f"{row['target']} ({row['how']})" if ":" in row["how"] else str(row["target"])


@dataclass(frozen=True)
class _Words:
    """How a measure is spoken of. up: what it does if the target harms; sign: of the effect in its
    own units."""

    what: str
    up: str
    unit: str
    sign: int


_LOSS = _Words("loss", "rises", " nats per token", 1)
_SCORE = _Words("score", "falls", "", -1)


def _words(row: Row) -> _Words:
    return _SCORE if "metric" in row else _LOSS


def head_of(row: Row) -> tuple[str, ...]:
    """What `figures_of` shows, but for the category."""
    return BEHAVIOUR_HEAD if "metric" in row else HEAD


def figures_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The figures of one target, a line for each category; `head_of` says what they are."""
    return [
        (
            row["category"],
            *((number(row["score"]), row["metric"]) if "metric" in row else (number(row["loss"]),)),
            number(row["effect"], signed=True),
            interval(row["effect_low"], row["effect_high"], signed=True),
            interval(row["random_low"], row["random_high"], signed=True),
            number(row["selectivity"], signed=True),
            interval(row["selectivity_low"], row["selectivity_high"], signed=True),
            interval(row["selectivity_random_low"], row["selectivity_random_high"], signed=True),
            p_value(row["p"]),
            *(() if "metric" in row else (number(row["kl"]),)),
            number(row["changed"], 2),
        )
        for row in rows
    ]


def balance_of(row: Row) -> tuple[str, ...]:
    """How the random sets of a target match it; `BALANCE_HEAD` says what the figures are."""
    return (
        row["target"],
        f"{row['size']:,}",
        number(row["frequency"]),
        number(row["frequency_random"]),
        number(row["frequency_difference"], 2, signed=True),
        number(row["contribution"]),
        number(row["contribution_random"]),
        number(row["contribution_difference"], 2, signed=True),
        f"{row['random_sets']}{', stopped early' if row['stopped'] else ''}",
    )


def plain_of(row: Row) -> tuple[str, ...]:
    """A target beside random sets that harm plain text as much (`PLAIN_HEAD`)."""
    return (
        name_of(row),
        f"{row['size']:,}",
        number(row["plain_rise"], signed=True),
        number(row["effect"], signed=True),
        number(row["selectivity"], signed=True),
        number(row["plain_size"], 0),
        number(row["plain_rise_random"], signed=True),
        number(row["plain_effect"], signed=True),
        number(row["plain_selectivity"], signed=True),
    )


def sentences(rows: Sequence[Row]) -> list[str]:
    """What may be said of one target; rows: its lines of the table."""
    tested = [row for row in rows if row["verdict"] is not None]
    first = rows[0]
    if not tested:
        return [f"{name_of(first)}: undetermined: it is compared with other categories, and there "
                "are none."]  # fmt: skip
    if tested[0]["verdict"] == "no fair comparison":
        return [
            f"No fair comparison exists for {first['target']}, and none is made: "
            f"it fires on {number(first['frequency'])} of the tokens and contributes "
            f"{number(first['contribution'])}, its random sets {number(first['frequency_random'])} "
            f"and {number(first['contribution_random'])} (standardised "
            f"differences {number(first['frequency_difference'], 2)} and "
            f"{number(first['contribution_difference'], 2)}; at most 0.1 is fair)."
        ]
    if all(row["verdict"] == "undetermined" for row in tested):
        return [
            f"{name_of(first)}: undetermined: {first['random_sets']} random sets, and at least "
            f"{first['sets_needed']} are needed."
        ]
    said = [_matters(row) for row in tested if row["verdict"] == "matters"]
    others = [row for row in tested if row["verdict"] == "not shown"]
    if said and first["found"] == "as listed":
        said.append(f"{name_of(first)} was scored as listed: this holds only if the list was not "
                    "found on these instructions.")  # fmt: skip
    if len(others) == 1:
        said.append(_not_shown(others[0]))
    elif others:
        names = ", ".join(row["category"] for row in others)
        least = min(row["p"] for row in others)
        said.append(f"Not shown for {name_of(first)} in {names} (p {p_value(least)} or more).")
    return said


def _matters(row: Row) -> str:
    target, category, words = row["target"], row["category"], _words(row)
    if category == "all":
        if amplified(row):
            return (
                f"{_doing(row).format(target)} changes the {words.what} more than it does with "
                f"random sets like it: by {_change(row, 'effect', 'random')}."
            )
        return (
            f"The model needs {target} more than random sets like it: {_without(row)} the "
            f"{words.what} {words.up} by {_figure(row, 'effect', 'random')}."
        )
    others = row["effect"] - row["selectivity"]
    if amplified(row):
        own, rest = (number(words.sign * value, signed=True) for value in (row["effect"], others))
        return (
            f"{_doing(row).format(target)} acts on {category} otherwise than on the "
            f"other categories: the {words.what} of {category} changes by {own}{words.unit} and "
            f"that of the others by {rest}, a difference of "
            f"{_change(row, 'selectivity', 'selectivity_random')}."
        )
    return (
        f"{target} matters for {category}: {_without(row)} the {words.what} of {category} "
        f"{words.up} by {number(row['effect'])}{words.unit} and that of the other categories by "
        f"{number(others)}, a difference of {_figure(row, 'selectivity', 'selectivity_random')}."
    )


def _not_shown(row: Row) -> str:
    words, either = _words(row), amplified(row)
    figure = _change if either else _figure
    if row["category"] == "all":
        moves = "changes" if either else words.up
        return (
            f"No effect of {row['target']} beyond that of random sets like it is shown: "
            f"{_without(row)} the {words.what} {moves} by {figure(row, 'effect', 'random')}."
        )
    done = _scaled(row) or _boost(row) or row["how"] in _PARTLY
    what = f"{row['target']} {what_is_done(row)}" if done else row["target"]
    of = f"{row['category']} ({row['metric']})" if "metric" in row else row["category"]
    return (
        f"No selective effect of {what} on {of} is shown: the difference "
        f"from the other categories is {figure(row, 'selectivity', 'selectivity_random')}."
    )


def _boost(row: Row) -> str:
    """What was added to the logits of experts; empty if nothing was."""
    kind, _, dose = str(row["how"]).partition(":")
    return dose if kind == "boost" else ""


def _without(row: Row) -> str:
    if boost := _boost(row):
        return f"with {boost} added to its experts' logits"
    if partly := _PARTLY.get(row["how"]):
        return f"with it {partly}"
    return f"with it scaled by {row['factor']:g}" if _scaled(row) else "without it"


def _scaled(row: Row) -> bool:
    """True if something is left of h."""
    return bool(row["factor"])


def amplified(row: Row) -> bool:
    """True if a target was made to do more: nothing says then which way the measure should go."""
    return (row["factor"] or 0) > 1 or float(_boost(row) or 0) > 0


def _doing(row: Row) -> str:
    """What was done to a target, as the subject of a sentence; {} stands for it."""
    if boost := _boost(row):
        return f"Adding {boost} to the logits of {{}}"
    return f"Scaling {{}} by {row['factor']:g}"


def _figure(row: Row, name: str, random: str) -> str:
    """How much the target harms, beside its random sets."""
    return _beside(row, row[name], row[f"{random}_low"], row[f"{random}_high"], signed=False)


def _change(row: Row, name: str, random: str) -> str:
    """By how much the measure changes, up or down."""
    sign = _words(row).sign
    bounds = [row[f"{random}_{end}"] for end in ("low", "high")]
    low, high = (None if one is None else sign * one for one in bounds[::sign])
    return _beside(row, sign * row[name], low, high, signed=True)


def _beside(row: Row, value: float, low: float | None, high: float | None, *, signed: bool) -> str:
    sets = f"{row['random_sets']} matched random sets"
    where = sets if low is None else f"95 % of {sets} lie between {number(low)} and {number(high)}"
    return f"{number(value, signed=signed)} ({where}; p {p_value(row['p'])}, corrected)"
