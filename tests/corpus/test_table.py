"""Columns line up."""

from sparcom.corpus.table import render_table


def test_alignment():
    assert render_table(["name", "n"], [["a", 12], ["longer", 3]]) == (
        "name     n\na       12\nlonger   3"
    )
