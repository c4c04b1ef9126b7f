import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparcom.analysis.data.strata import (
    MAX_RATIO,
    length_bins,
    make_strata,
    origin_group,
    overlap_share,
)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(1, 12))
def test_bins_hold_like_lengths_in_order(lengths: list[int], bins: int) -> None:
    tokens = np.array(lengths)
    codes = length_bins(tokens, bins)
    assert set(codes) == set(range(codes.max() + 1))
    for code in set(codes):
        inside = tokens[codes == code]
        assert inside.max() <= MAX_RATIO * inside.min()
    order = np.argsort(tokens, kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    for value in set(lengths):
        assert len(set(codes[tokens == value])) == 1


def test_a_stratum_is_one_source_and_one_range_of_lengths() -> None:
    tokens = np.array([6, 7, 60, 70, 6, 70])
    found = make_strata(tokens, ["human", "human", "human", "human", "ai", "ai"], 2)
    assert found.names == ("ai, 6-6 tokens", "ai, 70-70 tokens", "human, 6-7 tokens",
                           "human, 60-70 tokens")  # fmt: skip
    assert found.codes.tolist() == [2, 2, 3, 3, 0, 1]
    assert found.source.tolist() == [0, 0, 1, 1]


def test_overlap_share_is_what_stands_beside_another_category() -> None:
    category = np.array([0, 0, 1, 1, 2])
    stratum = np.array([0, 1, 0, 0, 2])
    np.testing.assert_allclose(overlap_share(category, stratum, 3), [0.5, 1.0, 0.0])


def test_origin_group_is_the_collection() -> None:
    assert origin_group("yizhongw/self-instruct:data/seed.jsonl#1") == "yizhongw/self-instruct"
    assert origin_group("plain") == "plain"
