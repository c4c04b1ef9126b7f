"""The card of a built corpus: what it holds, where it is from, and under which licences."""

from collections import Counter
from collections.abc import Mapping, Sequence

from sparcom.corpus.hexainst.recipes import Recipe
from sparcom.corpus.schema import Instruction

CARD = "CARD.md"


def render_card(records: Sequence[Instruction], recipe: Recipe, absent: Mapping[str, str]) -> str:
    """The card as Markdown."""
    groups = Counter(
        (r.category, r.source, data_set_of(r), r.license or "not given") for r in records
    )
    lines = [
        "# Instruction corpus built by `sparcom corpus build`",
        "",
        f"{len(records)} records, one JSON object a line, a file per category. Drawn with seed "
        f"{recipe.seed}. Each record names its origin and licence. The licences differ: check "
        "them before you pass the text on.",
        "",
        "| category | source | data set | licence | records |",
        "| --- | --- | --- | --- | ---: |",
        *(
            f"| {category} | {source} | {name} | {license_} | {n} |"
            for (category, source, name, license_), n in sorted(groups.items())
        ),
    ]
    if absent:
        lines += [
            "",
            "Left out; other sources of the category fill their places:",
            "",
        ]
        lines += [f"- {name}: {why}" for name, why in absent.items()]
    return "\n".join(lines) + "\n"


def data_set_of(record: Instruction) -> str:
    """The data set that a record's origin names."""
    return "bundled with SPARCOM" if record.source == "ai" else record.origin.partition("#")[0]
