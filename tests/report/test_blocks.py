"""The blocks of the page against the tables that they come from."""

import gzip
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_pages import DENSE, FEW, MOE, SIX, stored

from sparcom.analysis.analyse import analyse
from sparcom.analysis.explore.instructions import unit_names
from sparcom.component_list import component_table
from sparcom.report.blocks import (
    as_json,
    block_names,
    block_of,
    packed,
    shown,
    units_block,
)
from sparcom.report.tables import Tables
from sparcom.store import Run
from sparcom.tracing.examples import EXAMPLES_SCHEMA, TOKENS_SCHEMA
from sparcom.tracing.units import name_of

KEYS = ("layer", "kind", "expert", "unit")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of whose components only the first 40 are in a set, as far as its tables say."""
    run = Run(stored(tmp_path_factory.mktemp("runs") / "run", SIX * 40))
    analyse(run, FEW)
    run.store.write_table("components_neurons", run.table("components_neurons").slice(0, 40))
    return Run(run.store.location)


def rows_of(run: Run, name: str) -> dict[str, dict]:
    table = run.table(name)
    return dict(zip(unit_names(table), table.to_pylist(), strict=True))


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_units_are_named_as_the_trace_takes_them(space) -> None:
    every = np.arange(space.neurons)
    names = unit_names(component_table(space, "neurons", every))
    assert names == [name_of(space, index) for index in every.tolist()]


def test_units_are_all_that_a_set_holds_or_a_test_finds(run: Run) -> None:
    tables = Tables(run)
    block = units_block(run, tables, "neurons", 10**9)
    held, tests = rows_of(run, "components_neurons"), rows_of(run, "tests_neurons")
    alpha = tables.row("analysis_options")["alpha"]
    found = {u for u, r in tests.items() if any((r[f"q_{c}"] or 1) <= alpha for c in SIX)}
    assert len(held) == 40
    assert found - set(held)
    assert set(block["unit"]) == set(held) | found
    assert block["n"] == block["total"] == len(block["unit"])
    for at, unit in enumerate(block["unit"]):
        of, test = held.get(unit), tests[unit]
        assert block["layer"][at] == test["layer"]
        assert bool(block["general"][at]) == (of is not None and of["general"])
        assert block["unique_to"][at] == (of and of["unique_to"])
        for c, name in enumerate(SIX):
            values = {field: block["in"][field][c][at] for field in block["in"]}
            assert values["prevalence"] == pytest.approx(
                of[f"prevalence_{name}"] if of else 0, rel=1e-3
            )
            for field in ("frequency", "difference", "error", "q", "gap"):
                assert values[field] == pytest.approx(test[f"{field}_{name}"], rel=1e-3)
            q, difference = test[f"q_{name}"], test[f"difference_{name}"]
            sign = np.sign(difference) if q is not None and q <= alpha else 0
            assert block["sign"][c][at] == sign
            specific = test[f"specific_q_{name}"]
            assert block["specific"][c][at] == (specific is not None and specific <= alpha)


def test_a_page_keeps_the_units_that_are_something(run: Run) -> None:
    tables = Tables(run)
    whole = units_block(run, tables, "neurons", 10**9)
    few = units_block(run, tables, "neurons", 50 * 20)
    assert 0 < few["n"] == 20 < few["total"] == whole["total"]

    def rank(block: dict, at: int) -> tuple:
        specific = any(row[at] for row in block["specific"])
        something = block["general"][at] or block["unique_to"][at] is not None
        tested = any(row[at] for row in block["sign"])
        difference = max(row[at] or 0 for row in block["in"]["difference"])
        return 4 * specific + 2 * bool(something) + tested, block["members"][at], difference

    best = sorted((rank(whole, at) for at in range(whole["n"])), reverse=True)[:20]
    assert sorted((rank(few, at) for at in range(20)), reverse=True) == best


def test_without_counts_there_are_no_tests(tmp_path: Path) -> None:
    run = Run(stored(tmp_path / "run", SIX * 6, MOE, retain="sets"))
    analyse(run, FEW)
    run = Run(run.store.location)
    for family in ("neurons", "experts"):
        block = units_block(run, Tables(run), family, 10**9)
        assert "sign" not in block
        assert block["in"]["q"] == [None] * len(SIX)
        assert set(block["unit"]) == set(rows_of(run, f"components_{family}"))


def test_blocks_are_json_without_nan_and_the_same_each_time(run: Run) -> None:
    tables = Tables(run)
    for name in block_names(tables):
        block = block_of(run, tables, name)
        text = packed(block)
        assert text == packed(block_of(run, Tables(run), name))
        assert json.loads(gzip.decompress(b64decode(text))) == json.loads(as_json(block))
        with pytest.raises(ValueError, match="Out of range float"):
            as_json({"x": float("nan")})


def test_values_are_printable_and_rounded() -> None:
    hostile = "a\u202eb\n\x00"
    assert shown([hostile, 0.123456789, float("nan"), None, 7, True, [hostile, 1e-7]]) == [
        "a\\u202eb\n\\x00", 0.123457, None, None, 7, True, ["a\\u202eb\n\\x00", 1e-7],
    ]  # fmt: skip


def test_traced_examples_are_in_the_block(tmp_path: Path) -> None:
    run = Run(stored(tmp_path / "run", SIX * 6))
    analyse(run, FEW)
    write_traces(run)
    block = block_of(Run(run.store.location), Tables(Run(run.store.location)), "instructions")
    traced = block["traced"]
    assert (traced["n"], traced["unit"], traced["id"]) == (1, ["1:2"], ["i3"])
    assert traced["text"] == [[" <b>", "x\\u202e"]]
    assert traced["fired"] == [[True, False]]
    assert block["top_tokens"]["token"] == [" <b>"]
    assert block["top_tokens"]["unit"] == ["1:2"]


def write_traces(run: Run) -> None:
    """Traces of one neuron, as `sparcom run` writes them."""
    unit = {"layer": 1, "kind": "dense", "expert": None, "unit": 2}
    row = {**unit, "why": "general", "rank": 0, "id": "i3", "category": "GEN", "frequency": 0.5,
           "tokens": 2, "text": [" <b>", "x\u202e"], "fired": [True, False]}  # fmt: skip
    token = {**unit, "rank": 0, "token_id": 5, "token": " <b>", "read": 4, "fired": 3, "lift": 2.0}
    run.store.write_table("traced_examples", pa.Table.from_pylist([row], EXAMPLES_SCHEMA))
    run.store.write_table("example_tokens", pa.Table.from_pylist([token], TOKENS_SCHEMA))
