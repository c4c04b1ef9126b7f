import numpy as np
import pyarrow as pa
import pytest

from sparcom.analysis.data.labels import encode, make_labels
from sparcom.analysis.data.strata import make_strata, overlap_share, strata_of
from sparcom.errors import InputError


def _keys(*rows: tuple[str, str, int]) -> pa.Table:
    names = ("category", "source", "length")
    return pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))


CELLS = _keys(("QA", "ai", 3), ("QA", "human", 3), ("SUM", "human", 9), ("SUM", "ai", 7))


def test_a_stratum_is_one_source_and_one_length_bin() -> None:
    found = make_strata(CELLS)
    assert found.sources == ("ai", "human")
    assert found.codes.tolist() == [0, 2, 3, 1]
    assert found.source.tolist() == [0, 0, 1, 1]
    assert found.length.tolist() == [0, 1, 0, 2]  # without gaps, in order
    assert found.sources_of.tolist() == [0, 1, 1, 0]
    assert found.lengths_of.tolist() == [0, 0, 2, 1]
    assert found.take(np.array([3, 0])).codes.tolist() == [1, 0]


def test_instructions_find_their_stratum_if_the_cells_are_theirs() -> None:
    cells = CELLS.append_column("instructions", pa.array([2, 1, 1, 1]))
    rows = [("SUM", "human", 9), ("QA", "ai", 3), ("QA", "human", 3), ("SUM", "ai", 7),
            ("QA", "ai", 3)]  # fmt: skip
    assert strata_of(_keys(*rows), cells).codes.tolist() == [3, 0, 2, 1, 0]
    assert strata_of(_keys(*rows[:-1]), cells) is None
    assert strata_of(_keys(*rows[:-1], ("QA", "ai", 4)), cells) is None


def test_overlap_share_is_what_stands_beside_another_category() -> None:
    category, stratum = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 2])
    found = overlap_share(category, stratum, np.array([1, 3, 2, 5]))
    np.testing.assert_allclose(found, [0.25, 1.0, 0.0])


def test_labels_keep_the_order_of_the_categories_that_occur() -> None:
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "category": ["SUM", "QA", "SUM"],
            "cluster": ["y", "x", "y"],
            "n_counted": pa.array([4, 5, 6], pa.int32()),
        }
    )
    found = make_labels(table, ("CLS", "QA", "SUM"))
    assert (found.ids, found.categories) == (("a", "b", "c"), ("QA", "SUM"))
    assert found.codes.tolist() == [1, 0, 1]
    assert (found.clusters.tolist(), found.cluster_names) == ([1, 0, 1], ("x", "y"))
    last = found.take(np.array([2]))
    assert (last.ids, last.tokens.tolist(), last.codes.tolist()) == (("c",), [6], [1])
    with pytest.raises(InputError, match="'c' is none of the categories a, b"):
        encode(["a", "c"], ["a", "b"])
