"""How numbers are written, on the page and by the commands."""

from collections.abc import Iterable

from sparcom.analysis.stats.estimate import Estimate


def number(value: float | None, digits: int = 3, *, signed: bool = False, none: str = "-") -> str:
    """A figure; `none` if there is none.

    >>> number(0.12345), number(0.5, 1, signed=True), number(None)
    ('0.123', '+0.5', '-')
    """
    sign = "+" if signed else ""
    return none if value is None else f"{value:{sign}.{digits}f}"


def interval(
    low: float | None, high: float | None, digits: int = 3, *, signed: bool = False
) -> str:
    """An interval; "-" if there is none.

    >>> interval(0.1, 0.25, 2)
    '0.10 to 0.25'
    """
    if low is None or high is None:
        return "-"
    return f"{number(low, digits, signed=signed)} to {number(high, digits, signed=signed)}"


def in_layers(found: Iterable[int], layers: int) -> str:
    """How many layers have something, and of how many if that is not all of them.

    found: their numbers, each at least once; layers: of the model.

    >>> in_layers([0, 1, 1], 2), in_layers([1, 3], 4)
    ('2 layers', '2 of 4 layers')
    """
    count = len(set(found))
    return f"{layers} layers" if count == layers else f"{count} of {layers} layers"


def with_interval(item: Estimate, digits: int = 3) -> str:
    """A value with its interval in brackets, if it has one.

    >>> with_interval(Estimate(0.5, 0.25, 0.75), 2)
    '0.50 (0.25 to 0.75)'
    """
    value = number(item.value, digits, none="undetermined")
    return value if item.low is None else f"{value} ({interval(item.low, item.high, digits)})"


def p_value(p: float | None) -> str:
    """A p-value with two digits; "-" if there is none."""
    return "-" if p is None else f"{p:.2g}"


def expected(count: float) -> str:
    """How many chance would give: two digits, and no powers of ten.

    >>> expected(0.001), expected(1.23), expected(1234.5)
    ('under 0.01', '1.2', '1,234')
    """
    if count < 0.01:
        return "under 0.01"
    return f"{count:.2g}" if count < 10 else f"{count:,.0f}"


def estimate_texts(item: Estimate, none: str = "undetermined") -> tuple[str, str, str, str, str]:
    """Value (`none` if there is none), interval, chance level, its interval, p."""
    return (
        number(item.value, none=none),
        interval(item.low, item.high),
        number(item.chance),
        interval(item.chance_low, item.chance_high),
        p_value(item.p),
    )
