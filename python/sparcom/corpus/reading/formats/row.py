"""What every format yields."""

Row = tuple[int, object, str | None]
"""(number, record, problem): the number of a line or row, from 1; a problem has no record."""
