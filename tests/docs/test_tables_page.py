"""docs/reference/tables.md describes every column of every file of a run, and nothing else."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import mixed_space, write_run

from sparcom import AnalysisOptions, Run, analyse, compare, trajectory
from sparcom.ablation.ablation import behaviour_schema
from sparcom.ablation.ablation import schema as ablation_schema
from sparcom.attribution.rules import RULES
from sparcom.attribution.sums import AttributionFiles, Group, stamp_of
from sparcom.store.tables import FAILED_SCHEMA
from sparcom.tracing.examples import EXAMPLES_SCHEMA, TOKENS_SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"
CATEGORIES = ("QA", "SUM")


def described() -> dict[str, dict[str, str]]:
    """Table -> column -> type, as the page has them."""
    out: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        columns = out.setdefault(title.strip("`"), {})
        for names, kind in re.findall(r"^\| (`.*?`) \| (\w+) \|", text, flags=re.MULTILINE):
            for name in re.findall(r"`(\w+)`", names):
                assert name not in columns, f"{title}: {name} is described twice"
                columns[name] = kind
    return out


def kind_of(kind: pa.DataType) -> str:
    """A type in the page's words."""
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list"
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return "bytes"
    return {"bool": "bool", "string": "string", "null": "null"}[str(kind)]


def general(name: str) -> str:
    """A name with the words of this test's run replaced by the page's placeholders."""
    for category in CATEGORIES:
        name = re.sub(rf"_{category}(?=_|$)", "_CATEGORY", name)
    return name


def columns(schema: pa.Schema) -> dict[str, str]:
    return {general(field.name): kind_of(field.type) for field in schema}


def store_attribution(run: Run) -> None:
    """An attribution by both rules, of every instruction."""
    rng, rows = np.random.default_rng(1), run.labels.to_pylist()
    groups = [
        Group(
            category=row["category"], cluster=row["cluster"], ids=[row["id"]],
            sums={rule: rng.normal(size=run.space.neurons) for rule in RULES},
        )
        for row in rows
    ]  # fmt: skip
    options = {"rules": list(RULES), "parts": 1}
    AttributionFiles(run.store, run.space, stamp_of(run)).write(0, groups, options)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Table -> column -> type of a run of a mixture of experts with everything in it."""
    folder, rng, space = tmp_path_factory.mktemp("runs"), np.random.default_rng(0), mixed_space()
    labels, runs = list(CATEGORIES) * 30, []
    for name in ("a", "b", "c"):
        neurons, experts = (rng.random((60, n)) < 0.3 for n in (space.neurons, space.experts))
        runs.append(
            write_run(
                folder / name, neurons, labels, space, experts=experts, retain="counts", more=True
            )
        )
    store_attribution(runs[-1])
    few = AnalysisOptions(permutations=9, bootstraps=9, small_draws=9)
    analyse(runs[-1], few)
    compare(runs[0], runs[-1], few)
    trajectory(runs, few)
    out = {
        "failed": columns(FAILED_SCHEMA),
        "ablation": columns(ablation_schema()),
        "behaviour": columns(behaviour_schema()),
        "traced_examples": columns(EXAMPLES_SCHEMA),
        "example_tokens": columns(TOKENS_SCHEMA),
    }
    for path in (folder / "c").rglob("*.parquet"):
        relative = path.relative_to(folder / "c")
        known = relative.parts[0] if len(relative.parts) > 1 else path.stem
        name = path.stem if known == "analysis" else known
        out[re.sub(r"_(neurons|experts)$", "_FAMILY", name)] = columns(pq.read_schema(path))
    return out


def test_the_page_describes_every_table(written: dict[str, dict[str, str]]) -> None:
    assert set(described()) == set(written)


@pytest.mark.parametrize("name", sorted(described()))
def test_the_page_describes_every_column(name: str, written: dict[str, dict[str, str]]) -> None:
    page, found = described()[name], written[name]
    assert set(page) == set(found)
    for column, kind in found.items():
        assert kind in (page[column], "null"), column
