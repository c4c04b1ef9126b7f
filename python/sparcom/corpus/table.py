"""Aligned plain-text tables: the first column to the left, numbers to the right."""

from collections.abc import Sequence


def render_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The table as text, columns two blanks apart.

    >>> print(render_table(["name", "n"], [["a", 12]]))
    name   n
    a     12
    """
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
