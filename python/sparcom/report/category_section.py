"""The section of the page about the categories: how much was counted, how large the sets are."""

from sparcom.report.format import number
from sparcom.report.section import Section, Table
from sparcom.report.tables import Row, Tables


def category_section(tables: Tables) -> Section:
    categories, sizes = tables.rows("categories"), tables.rows("set_sizes")
    with_sets = any(row["set_size"] is not None for row in categories)
    head = ["category", "instructions", "clusters", "counted tokens", "median T", "comparable"]
    text = (
        "T: the counted tokens of an instruction. Clusters: groups that share a task kind, a "
        "passage, a collection or a field named with --cluster; they are the unit of all intervals "
        "and tests. "
        "Comparable: the share of a category's instructions that have at least one of another "
        "category and like length and source beside them; how many that makes in effect is below."
    )
    if with_sets:
        head += ["mean set size", "range", "cut"]
        text += (
            " A set's size is its share of all neurons. The frequencies of an instruction have "
            "T + 1 values, so that a cut falls into a group of ties: short instructions get sets "
            "that are larger than the rule's nominal size. Cut: the mean share c / T from which a "
            "neuron is in a set."
        )
    found = [Table(head, [_category_row(row, with_sets) for row in categories])]
    if sizes:
        found.append(_size_table(sizes))
    return Section("Categories", [text], tables=found)


def _category_row(row: Row, with_sets: bool) -> list[str]:
    out = [
        row["category"],
        f"{row['instructions']:,}",
        f"{row['clusters']:,}",
        f"{row['tokens']:,}",
        number(row["median_tokens"], 0),
        f"{row['comparable']:.0%}",
    ]
    if with_sets:
        bounds = f"{row['set_size_low']:.2%} to {row['set_size_high']:.2%}"
        out += [f"{row['set_size']:.2%}", bounds, number(row["cut"])]
    return out


def _size_table(sizes: list[Row]) -> Table:
    """Nominal against achieved size of what was ranked together."""
    rows = []
    for row in sizes:
        total, nominal = row["components"], row["nominal"]
        asked = "-" if nominal is None else f"{nominal:,} ({nominal / total:.2%})"
        rows.append(
            (
                f"{row['family']}, {row['group']}",
                f"{total:,}",
                asked,
                f"{row['mean']:,.0f} ({row['share']:.2%})",
                f"{row['low']:,.0f} to {row['high']:,.0f}",
            )
        )
    head = ("ranked together", "components", "nominal size", "achieved, mean", "5 to 95 %")
    return Table(head, rows)
