"""What the page says of decoding and stability: no more than their tables bear."""

from pathlib import Path

import pytest
from report_pages import FEW, SIX, stored, visible

from sparcom.report.decoding_section import decoding_sections
from sparcom.report.page import write_report
from sparcom.report.stability_section import stability_sections


class Rows:
    """Tables with one table."""

    def __init__(self, rows: list[dict]) -> None:
        self._rows = rows

    def rows(self, name: str, **values: object) -> list[dict]:
        return [r for r in self._rows if all(r[k] == v for k, v in values.items())]


def row(**changes: object) -> dict:
    return {
        "family": "neurons", "features": "sets", "categories": 6, "clusters": 48,
        "instructions": 96, "value": 0.7, "low": None, "high": None, "chance": 0.2,
        "chance_low": 0.1, "chance_high": 0.3, "p": 0.005,
    } | changes  # fmt: skip


def test_decoding_is_said_beside_its_chance_and_that_of_words() -> None:
    rows = [row(), row(features="frequencies"), row(family="", features="tokens", value=0.5)]
    (section,) = decoding_sections(Rows(rows))
    assert section.statements == [
        "Decoding: balanced accuracy of naming one of 6 categories, in clusters held out: ISNs "
        "0.70 (permuted clusters 0.20, p = 0.005); token ids alone 0.50 (permuted clusters 0.20, "
        "p = 0.005)."
    ]
    assert [r[0] for r in section.tables[0].rows] == [
        "ISNs", "frequencies c / T of all neurons", "token ids alone",
    ]  # fmt: skip


def test_decoding_claims_nothing_where_clusters_do_not_suffice() -> None:
    few = {"chance": None, "chance_low": None, "chance_high": None, "p": None}
    rows = [row(**few), row(family="", features="tokens", **few)]
    (section,) = decoding_sections(Rows(rows))
    assert section.statements[0].count("(undetermined: too few clusters") == 2
    rows = [row(value=None, **few), row(family="", features="tokens", value=None, **few)]
    (section,) = decoding_sections(Rows(rows))
    assert section.statements == []
    assert section.tables[0].rows[0][1] == "undetermined"
    assert decoding_sections(Rows([])) == stability_sections(Rows([])) == []


@pytest.mark.parametrize("retain", ["counts", "sets"])
def test_the_page_has_both_where_the_run_retains_what_they_need(
    tmp_path: Path, retain: str
) -> None:
    clusters = [f"k{i}" for i in range(24)]
    location = stored(tmp_path / "run", SIX * 8, clusters=clusters, retain=retain)
    write_report(location, FEW)
    text = visible((tmp_path / "run/report.html").read_text())
    assert "Balanced accuracy is the mean over categories" in text
    assert ("as run, top:" in text) == (retain == "counts")
    assert ("stability is left out: the run retains no counts" in text) == (retain == "sets")
