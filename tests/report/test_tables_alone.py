"""The page is made from run.json and the tables in analysis/ alone."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_pages import FEW, MOE, SIX, stored, visible

from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.noise_floor import noise_floor
from sparcom.analysis.tuning.trajectory import trajectory
from sparcom.errors import InputError
from sparcom.report.page import render_report, write_report
from sparcom.report.tables import Tables, array, distinct, square
from sparcom.store import Run, RunStore


def files_of(folder: Path) -> dict[str, bytes]:
    """The page and its figures."""
    paths = [folder / "report.html", *sorted((folder / "figures").iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_a_page_is_drawn_again_without_counts_sets_profiles_or_corpus(tmp_path: Path) -> None:
    names = ("base", "fp32", "tuned")
    sources = ("human",) * 6 + ("ai",) * 6
    runs = [Run(stored(tmp_path / n, SIX * 8, MOE, sources=sources, failed=2)) for n in names]
    noise = noise_floor(*runs[:2])
    compare(runs[0], runs[2], FEW, noise_floor=noise)
    trajectory(runs, FEW, noise_floor=noise)
    whole = tmp_path / "tuned"
    write_report(str(whole), FEW)
    drawn = files_of(whole)
    assert len(drawn) > 20
    assert b"2 instructions failed" in drawn["report.html"]
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(whole / "run.json", bare)
    shutil.copytree(whole / "analysis", bare / "analysis")
    manifest = RunStore(bare).manifest()
    RunStore(bare).write_manifest({**manifest, "status": "stopped"})  # its parts are not there
    assert render_report(str(bare)) == str(bare / "report.html")
    assert files_of(bare) == drawn


def test_without_an_analysis_nothing_is_drawn(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 2)
    with pytest.raises(InputError, match="no analysis of this version .* sparcom report"):
        render_report(location)
    assert not (tmp_path / "run/report.html").exists()
    write_report(location, FEW)
    RunStore(location).write_table("component_counts", pa.table({"family": ["neurons"]}))
    (tmp_path / "run/analysis/analysis_options.parquet").unlink()
    with pytest.raises(InputError, match="no analysis of this version"):
        render_report(location)


def test_tables_of_an_older_version_are_not_half_shown(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 2)
    write_report(location, FEW)
    store = RunStore(location)
    older = {"base": ["b"], "family": ["neurons"], "category": ["all"], "figure": ["beyond floor"]}
    store.write_table("alteration_summary", pa.table({**older, "value": [0.1]}))
    store.write_table("ablation", pa.table({"set": ["general"], "random_sets": [5]}))
    text = visible(Path(render_report(location)).read_text())
    for command in ("compare", "ablate"):
        assert f"an older version of sparcom wrote these tables; run sparcom {command}" in text
    assert "Tuning moved" not in text


def test_pairs_of_an_earlier_analysis_do_not_stay(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 2)
    write_report(location, FEW)
    assert "category_matrix" in Run(location).tables
    other = stored(tmp_path / "empty", SIX * 2, blank=SIX)
    shutil.copytree(tmp_path / "run/analysis", tmp_path / "empty/analysis")
    text = visible(Path(write_report(other, FEW)).read_text())
    assert "category_matrix" not in Run(other).tables
    assert "ISNs: overlap" not in text


def test_rows_are_found_by_their_columns(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 2)
    table = pa.table({"a": ["x", "x", "y", "y"], "b": ["x", "y", "x", "y"],
                      "value": [1.0, 2.0, None, 4.0]})  # fmt: skip
    for name in ("low", "high", "chance", "chance_low", "chance_high", "p"):
        table = table.append_column(name, pa.nulls(4, pa.float64()))
    RunStore(location).write_table("some", table)
    tables = Tables(Run(location))
    rows = tables.rows("some")
    assert tables.rows("other") == []
    assert distinct(rows, "a") == ["x", "y"]
    np.testing.assert_array_equal(square(rows), [[1, 2], [np.nan, 4]])
    np.testing.assert_array_equal(array(rows, "value"), [1, 2, np.nan, 4])
    assert tables.estimate("some", a="x", b="y") == Estimate(2.0)
    with pytest.raises(InputError, match="table some: expected one row with .*, got 2"):
        tables.row("some", a="x")
