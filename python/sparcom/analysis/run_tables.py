"""What `analyse` writes of the run itself: its categories, the options, the warnings."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.load import Loaded
from sparcom.analysis.options import AnalysisOptions
from sparcom.components import ComponentSpace

CATEGORY_SCHEMA = pa.schema(
    [
        ("category", pa.string()),
        ("instructions", pa.int64()),
        ("tokens", pa.int64()),
        ("median_tokens", pa.float64()),
        ("comparable", pa.float64()),
        ("clusters", pa.int64()),
        ("cut", pa.float64()),
        ("set_size", pa.float64()),
        ("set_size_low", pa.float64()),
        ("set_size_high", pa.float64()),
    ]
)


def categories_table(loaded: Loaded, comparable: np.ndarray, space: ComponentSpace) -> pa.Table:
    """One row per category.

    tokens: summed T; median_tokens: of T. comparable: [C], share of the instructions that share
    their stratum with another category. clusters: how many it has. cut: mean c / T at the cut of
    the first kind of neurons. set_size, set_size_low, set_size_high: mean, smallest and largest
    share of all neurons that a set holds. The last four are null if the run retains no sets.
    """
    labels, rows = loaded.labels, []
    for code, name in enumerate(labels.categories):
        of = labels.codes == code
        tokens = labels.tokens[of]
        row = {
            "category": name,
            "instructions": len(tokens),
            "tokens": int(tokens.sum()),
            "median_tokens": float(np.median(tokens)),
            "comparable": float(comparable[code]),
            "clusters": len(np.unique(labels.clusters[of])),
        }
        if "neurons" in loaded.sizes:
            sizes = loaded.sizes["neurons"][of].sum(1) / space.neurons
            row |= {
                "cut": float(loaded.cuts[of].mean()),
                "set_size": float(sizes.mean()),
                "set_size_low": float(sizes.min()),
                "set_size_high": float(sizes.max()),
            }
        rows.append(row)
    return pa.Table.from_pylist(rows, CATEGORY_SCHEMA)


def options_table(options: AnalysisOptions) -> pa.Table:
    """One row: every option that the analysis ran with; those of the LAPE rule as lape_*."""
    values = asdict(options)
    values |= {f"lape_{name}": value for name, value in values.pop("lape").items()}
    return pa.table({name: [value] for name, value in values.items()})


def warnings_table(warnings: Sequence[str]) -> pa.Table:
    """One row per warning, each once."""
    return pa.table({"warning": pa.array(dict.fromkeys(warnings), pa.string())})
