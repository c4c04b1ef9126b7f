"""The day that a chat template takes for today."""

import datetime as dt
from contextlib import suppress

from sparcom.errors import InputError
from sparcom.formatting import shorten


def today() -> str:
    """The ISO date of today, where this machine is."""
    return dt.date.today().isoformat()


def parse_date(text: str) -> dt.date:
    """The day of an ISO date. Raises InputError for any other text.

    >>> parse_date("2024-02-29")
    datetime.date(2024, 2, 29)
    """
    day: dt.date | None = None
    with suppress(ValueError):
        day = dt.date.fromisoformat(text)
    if day is None or day.isoformat() != text:  # fromisoformat takes 20240229 and weeks too
        raise InputError(f"--date: expected YYYY-MM-DD, got {shorten(text, 40)!r}")
    return day
