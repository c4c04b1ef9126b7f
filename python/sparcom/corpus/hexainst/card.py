"""The card of a built corpus: what it holds, from where, under which licences."""

from collections import Counter
from collections.abc import Mapping, Sequence

from sparcom.corpus.hexainst.recipes import Recipe
from sparcom.corpus.schema import Instruction

CARD = "CARD.md"


def render_card(records: Sequence[Instruction], recipe: Recipe, absent: Mapping[str, str]) -> str:
    """The card as Markdown."""
    cells = Counter(
        (r.category, r.source, data_set_of(r), r.license or "not given") for r in records
    )
    lines = [
        "# Instruction corpus built by `sparcom corpus build`",
        "",
        f"{len(records)} records, one JSON object a line, a file per category. Drawn with seed "
        f"{recipe.seed}. Each record names its origin and licence; the licences differ, so mind "
        "them before passing the text on.",
        "",
        "| category | source | data set | licence | records |",
        "| --- | --- | --- | --- | ---: |",
        *(
            f"| {category} | {source} | {name} | {license_} | {n} |"
            for (category, source, name, license_), n in sorted(cells.items())
        ),
    ]
    if absent:
        lines += ["", "Left out, their places filled from the same category:", ""]
        lines += [f"- {name}: {why}" for name, why in absent.items()]
    return "\n".join(lines) + "\n"


def data_set_of(record: Instruction) -> str:
    """The data set that a record's origin names."""
    return "bundled with SPARCOM" if record.source == "ai" else record.origin.partition("#")[0]
