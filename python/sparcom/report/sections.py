"""What the page of a run says: sentences, tables and figures built from an `Analysis`."""

import numpy as np

from sparcom.analysis.analyse import Analysis
from sparcom.report.component_section import component_section
from sparcom.report.overlap_section import overlap_section
from sparcom.report.section import Section, Table
from sparcom.store import Run
from sparcom.store.tables import from_matrix


def make_sections(run: Run, analysis: Analysis) -> list[Section]:
    """All sections of the page of a run."""
    sections = [_categories(run, analysis)]
    for family, overlap in analysis.overlaps.items():
        sections.append(overlap_section(family, overlap))
    for family, components in analysis.components.items():
        sections.append(component_section(family, components, run.space))
    return sections


def _categories(run: Run, analysis: Analysis) -> Section:
    """How much of each category was counted, and how large its sets came out."""
    table, sizes = run.labels, None
    labels, tokens = np.asarray(table["category"].to_pylist()), table["n_counted"].to_numpy()
    if run.store.results.parts("sets"):
        sizes = from_matrix(run.store.results.set_sizes(), "sizes").sum(1) / run.space.neurons
    rows = []
    for name in analysis.categories:
        of = labels == name
        share = analysis.stratum_overlap[name]
        row = [name, f"{of.sum():,}", f"{tokens[of].sum():,}", f"{np.median(tokens[of]):.0f}"]
        row.append(f"{share:.0%}")
        if sizes is not None:
            mine = sizes[of]
            row += ["-", "-"] if not len(mine) else [
                f"{mine.mean():.2%}", f"{mine.min():.2%} to {mine.max():.2%}"
            ]  # fmt: skip
        rows.append(row)
    head = ["category", "instructions", "counted tokens", "median T", "comparable"]
    text = (
        "T: the counted tokens of an instruction. Comparable: the share of a category's "
        "instructions that have one of another category and like length and source beside them; "
        "only these can tell type from length."
    )
    if sizes is not None:
        head += ["mean set size", "range"]
        text += (
            " A set's size is its share of all neurons. The frequencies of an instruction have "
            "T + 1 values, so that a cut falls into a group of ties: short instructions get sets "
            "that are larger than the rule's nominal size."
        )
    tables = [Table(head, rows)]
    if analysis.sizes.num_rows:
        tables.append(_size_table(analysis))
    return Section("Categories", [text], tables=tables)


def _size_table(analysis: Analysis) -> Table:
    """Nominal against achieved size of what was ranked together."""
    rows = []
    for row in analysis.sizes.to_pylist():
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
