"""The headlines of the page: what the tables bear, and nothing where they bear nothing."""

from pathlib import Path

import pytest
from report_pages import FEW, MOE, SIX, stored

from sparcom.analysis.analyse import analyse
from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.report.findings import Finding, findings
from sparcom.report.tables import Tables
from sparcom.store import Run


def found(location: str) -> tuple[dict[str, Finding], Tables]:
    analyse(Run(location), FEW)
    tables = Tables(Run(location))
    return {item.kind: item for item in findings(tables)}, tables


def test_the_three_findings_say_what_the_tables_hold(tmp_path: Path) -> None:
    sources = ("human",) * 6 + ("ai",) * 6
    said, tables = found(stored(tmp_path / "run", SIX * 40, sources=sources))
    assert list(said) == ["overlap", "depth", "units"]
    adjusted = tables.estimate("effects", family="neurons", figure=PRIMARY)
    assert adjusted.p is not None
    if adjusted.p <= 0.05:
        assert said["overlap"].headline.endswith(f"overlap +{adjusted.value:.3f}")
    else:
        assert "are not shown to share more" in said["overlap"].headline
    rows = tables.rows("layers", family="neurons")
    upper = sum(row["share"] for row in rows if row["layer"] >= 2) / len(SIX)
    assert said["depth"].headline.startswith(f"{upper:.0%} of a set lies in the upper half")
    assert said["depth"].headline.endswith("(evenly spread: 50%)")
    counts = tables.rows("component_counts", family="neurons")
    general = sum(row["value"] for row in counts if row["figure"] == "general")
    specific = sum(row["value"] or 0 for row in counts if row["figure"] == "specific")
    assert said["units"].headline == (
        f"{general:,.0f} neurons serve every type; {specific:,.0f} are specific to one"
    )
    assert all(item.texts and all(item.texts) and item.hint for item in said.values())


def test_too_few_clusters_are_undetermined_in_the_headlines(tmp_path: Path) -> None:
    clusters = tuple(f"of {name}" for name in SIX)
    said, _ = found(stored(tmp_path / "run", SIX * 20, clusters=clusters))
    assert "is undetermined" in said["overlap"].headline
    assert said["units"].headline.endswith("which are specific to one is undetermined")
    assert not any("+" in item.headline for item in said.values())


def test_the_types_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    """All instructions of two categories are of one cluster each."""
    clusters = tuple(f"of {name}" if name in SIX[:2] else "" for name in SIX)
    said, _ = found(stored(tmp_path / "run", SIX * 20, clusters=clusters))
    assert said["units"].headline.endswith(f" ({SIX[0]}, {SIX[1]}: undetermined)")


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_less_retained_is_less_said(tmp_path: Path, retain: str) -> None:
    said, tables = found(stored(tmp_path / "run", SIX * 6, MOE, retain=retain))
    assert list(said) == (["overlap", "depth", "units"] if retain == "sets" else ["units"])
    counts = tables.rows("component_counts", family="neurons")
    unique = sum(row["value"] for row in counts if row["figure"] == "unique")
    assert said["units"].headline.endswith(f"{unique:,.0f} are in the sets of one type alone")


def test_one_category_has_no_effect_to_tell(tmp_path: Path) -> None:
    said, _ = found(stored(tmp_path / "run", ["QA"] * 6))
    assert "overlap" not in said
