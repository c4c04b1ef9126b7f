"""Profiles: sums by cell, the same however they are merged; refused where instructions overlap."""

import random
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import store_part, stored_table

from sparcom.components import ComponentSpace, Site
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import EXPERTS, NEURONS, Magnitudes
from sparcom.errors import SparcomError
from sparcom.selection.rules import Selection, identify
from sparcom.selection.sets import Sets
from sparcom.store import CellRule, RunStore, Span, hashed_fold, length_edges, part_profile
from sparcom.store.profiles import merge
from sparcom.store.profiles.cells import MAX_RATIO
from sparcom.store.profiles.profile_part import MAGNITUDES, SUMS
from sparcom.store.profiles.spans import covered
from sparcom.store.tables import stored_matrix

DENSE = ComponentSpace((Site("dense", 0, 11, "silu"), Site("dense", 1, 6, "silu")))
MOE = ComponentSpace(
    (Site("dense", 0, 5, "silu"), Site("routed", 1, 2, "silu", experts=9, top_k=2))
)
RULE = CellRule((4, 8))


def part_of(space: ComponentSpace, first: int, n: int) -> tuple[Counted, Sets, pa.Table]:
    """Counts, sets and labels of n instructions."""
    rng = np.random.default_rng(first)
    tokens = rng.integers(1, 13, n)
    counts = [rng.integers(0, tokens[:, None] + 1, (n, k)) for k in (space.neurons, space.experts)]
    ids = tuple(f"i{first + k}" for k in range(n))
    signs = rng.integers(0, tokens[:, None] + 1, (2, n, space.neurons)).astype(np.int32)
    signs[1] = np.minimum(signs[0], counts[0])
    arrays = [c.astype(np.int32) for c in counts]
    counted = Counted(ids, tokens, *arrays, signs if space is DENSE else None)
    labels = pa.table(
        {
            "id": list(ids),
            "category": [("QA", "SUM", "CODE")[k % 3] for k in range(first, first + n)],
            "source": [("human", "ai")[k % 2] for k in range(first, first + n)],
            "origin": [("", f"org/{k % 9}:{k}")[k % 2] for k in range(first, first + n)],
            "n_counted": pa.array(tokens, pa.int32()),
        }
    )
    return counted, identify(counted, space, Selection("top:0.2")), labels


def stored(folder: Path, space: ComponentSpace, parts: int = 7, size: int = 20) -> RunStore:
    """A run of profiles only."""
    store = RunStore(folder, {"profiles": "mine"})
    for part in range(parts):
        counted, sets, labels = part_of(space, part * size, size)
        profile = part_profile(counted, sets, RULE.keys(labels, counted.tokens))
        store_part(store, part, None, None, [], profile)
    return store


def brute_force(space: ComponentSpace, parts: int, size: int) -> dict[tuple, dict]:
    """The same sums, instruction by instruction."""
    cells: dict[tuple, dict] = {}
    for part in range(parts):
        counted, sets, labels = part_of(space, part * size, size)
        bits = [
            np.unpackbits(b, axis=1, count=w, bitorder="little")
            for b, w in ((sets.neurons, space.neurons), (sets.experts, space.experts))
        ]
        for row, label in enumerate(labels.to_pylist()):
            length = 0 if label["n_counted"] <= 4 else 1 if label["n_counted"] <= 8 else 2
            cluster = label["origin"].partition(":")[0] or f"id:{label['id']}"
            key = (label["category"], label["source"], length, hashed_fold(cluster))
            cell = cells.setdefault(key, {"ids": [], "tokens": 0, "sums": [0] * 6})
            cell["ids"].append(label["id"])
            cell["tokens"] += label["n_counted"]
            none = np.zeros((2, 0), int)
            signs = none if counted.signs is None else counted.signs[:, row]
            rows = (bits[0][row], counted.neurons[row], bits[1][row], counted.experts[row], *signs)
            cell["sums"] = [s + r.astype(int) for s, r in zip(cell["sums"], rows, strict=True)]
    return cells


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_a_profile_holds_the_sums_of_every_cell(tmp_path: Path, space: ComponentSpace) -> None:
    store = stored(tmp_path, space)
    store.profiles.merge(Span(0, 7))
    assert [p.name for p in (tmp_path / "profiles").iterdir()] == ["parts-00000-00006.parquet"]
    table = pq.read_table(tmp_path / "profiles/parts-00000-00006.parquet")
    rows = table.to_pylist()
    found = {name: stored_matrix(table, name) for name in SUMS if name in table.column_names}
    keys = [tuple(row[k] for k in ("category", "source", "length", "fold")) for row in rows]
    expected = brute_force(space, 7, 20)
    assert keys == sorted(expected)
    for at, (key, row) in enumerate(zip(keys, rows, strict=True)):
        assert row["ids"] == expected[key]["ids"]
        assert row["instructions"] == len(row["ids"])
        assert row["tokens"] == expected[key]["tokens"]
        for name, values in zip(SUMS, expected[key]["sums"], strict=True):
            assert (found[name][at].tolist() if name in found else []) == values.tolist()
            field = table.schema.field(name) if name in found else None  # what a stranger reads
            if field:
                kind = f"<u{field.type.byte_width // len(values)}"
                assert field.metadata == {b"type": b"uint16"}
                assert np.frombuffer(row[name], kind).tolist() == values.tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99), st.integers(200, 3000))
def test_merging_is_associative_whatever_the_windows(parts: int, seed: int, window: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        once = stored(Path(folder) / "once", MOE, parts, 9)
        once.profiles.merge(Span(0, parts))
        tree = stored(Path(folder) / "tree", MOE, parts, 9)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merge, "WINDOW_BYTES", window)
            patch.setattr(merge, "GROUP_BYTES", window // 4)
            cuts = sorted({0, parts, *(rng.randint(0, parts) for _ in range(3))})
            for first, stop in pairwise(cuts):
                tree.profiles.merge(Span(first, stop))
            tree.profiles.merge(Span(0, parts))
        whole = [
            pq.read_table(f"{s.location}/profiles/{Span(0, parts).name}") for s in (once, tree)
        ]
        assert whole[0].equals(whole[1])


def test_sums_of_a_cell_that_16_bits_cannot_hold_take_32(tmp_path: Path) -> None:
    """Each part's cells stay below 2^16 tokens; those of the merged profile do not."""
    store, ids = RunStore(tmp_path), [f"i{k}" for k in range(4)]
    for part, name in enumerate(ids):
        many = np.array([[40_000, 7]], np.int32)
        counted = Counted((name,), np.array([50_000]), many, np.zeros((1, 0), np.int32))
        space = ComponentSpace((Site("dense", 0, 2, "silu"),))
        labels = pa.table({"id": [name], "category": ["QA"], "source": ["ai"], "origin": [""]})
        keys = CellRule((), folds=1).keys(labels, counted.tokens)
        store.profiles.write(
            part, part_profile(counted, identify(counted, space, Selection()), keys)
        )
    store.profiles.merge(Span(0, 4))
    table = stored_table(store, "profiles/parts-00000-00003.parquet")
    assert stored_matrix(table, "neuron_counts").tolist() == [[160_000, 28]]
    assert table.schema.field("neuron_counts").metadata == {b"type": b"uint32"}


def test_sums_over_some_keys(tmp_path: Path) -> None:
    store = stored(tmp_path, MOE)
    store.profiles.merge(Span(2, 5))  # some merged, some not
    cells, sums = store.profiles.read(("category", "length"), SUMS)
    expected: dict[tuple, dict] = {}
    for key, cell in brute_force(MOE, 7, 20).items():
        at = expected.setdefault((key[0], key[2]), {"n": 0, "tokens": 0, "sums": [0] * 6})
        at["n"] += len(cell["ids"])
        at["tokens"] += cell["tokens"]
        at["sums"] = [a + b for a, b in zip(at["sums"], cell["sums"], strict=True)]
    keys = list(zip(cells["category"].to_pylist(), cells["length"].to_pylist(), strict=True))
    assert keys == sorted(expected)
    assert cells["instructions"].to_pylist() == [expected[k]["n"] for k in keys]
    assert cells["tokens"].to_pylist() == [expected[k]["tokens"] for k in keys]
    assert list(sums) == list(SUMS[:4])  # these parts have no signs
    for at, name in enumerate(sums):
        np.testing.assert_array_equal(sums[name], [expected[k]["sums"][at] for k in keys])


def test_profiles_with_a_gap_between_them_are_not_merged(tmp_path: Path) -> None:
    store = stored(tmp_path, DENSE, parts=3)
    (tmp_path / "profiles/part-00001.parquet").unlink()
    with pytest.raises(SparcomError, match="cannot be merged, since part 1 has no .*--resume"):
        store.profiles.merge(Span(0, 3))
    assert covered(store.profiles.spans()) == {0, 2}


def test_an_instruction_that_two_profiles_hold_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, DENSE, parts=2)
    counted, sets, labels = part_of(DENSE, 0, 20)
    store.profiles.write(1, part_profile(counted, sets, RULE.keys(labels, counted.tokens)))
    with pytest.raises(SparcomError, match=r"instruction 'i\d+' is in two of .*disjoint"):
        store.profiles.merge(Span(0, 2))
    assert len(list((tmp_path / "profiles").iterdir())) == 2  # nothing lost, nothing left


def test_a_profile_of_another_part_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, DENSE, parts=3)
    profiles = tmp_path / "profiles"
    (profiles / "part-00001.parquet").write_bytes((profiles / "part-00000.parquet").read_bytes())
    with pytest.raises(SparcomError, match="part-00001.parquet: holds the parts 0-0; delete"):
        store.profiles.read(("category",), ())


def test_profiles_of_two_runs_are_not_merged(tmp_path: Path) -> None:
    store = stored(tmp_path, DENSE, parts=1)
    counted, sets, labels = part_of(DENSE, 20, 20)
    other = RunStore(tmp_path, {"profiles": "other"})
    other.profiles.write(1, part_profile(counted, sets, RULE.keys(labels, counted.tokens)))
    with pytest.raises(SparcomError, match="part-00001.parquet: written by another run"):
        store.profiles.merge(Span(0, 2))


def test_counts_sets_and_cells_must_be_of_the_same_instructions() -> None:
    counted, sets, labels = part_of(DENSE, 0, 4)
    with pytest.raises(SparcomError, match="counts of 4, sets of 4 and cells of 3"):
        part_profile(counted, sets, RULE.keys(labels.slice(1), counted.tokens[1:]))


def test_a_part_of_which_nothing_was_counted_merges(tmp_path: Path) -> None:
    store = stored(tmp_path, MOE, parts=2, size=0)
    store.profiles.merge(Span(0, 2))
    cells, _ = store.profiles.read(("category",), ("neurons",))
    assert len(cells) == 0


def test_sums_too_large_for_32_bits_are_refused() -> None:
    counted, sets, labels = part_of(DENSE, 0, 1)
    huge = Counted(counted.ids, np.array([1 << 32]), counted.neurons, counted.experts)
    with pytest.raises(SparcomError, match="4294967296 tokens in one cell"):
        part_profile(huge, sets, RULE.keys(labels, counted.tokens))


def bins_of(rule: CellRule, tokens: np.ndarray) -> np.ndarray:
    """The length bin of each T."""
    n = len(tokens)
    labels = pa.table(
        {
            "id": [str(k) for k in range(n)],
            "category": ["QA"] * n,
            "source": ["ai"] * n,
            "origin": [""] * n,
        }
    )
    return rule.keys(labels, tokens)["length"].to_numpy()


lengths_of_prompts = st.lists(st.integers(1, 400), min_size=1, max_size=200)


@given(lengths_of_prompts, st.integers(1, 12))
def test_length_bins_are_quantiles_and_hold_like_lengths(lengths: list[int], bins: int) -> None:
    tokens = np.array(lengths)
    found = bins_of(CellRule(length_edges(np.bincount(tokens), bins=bins)), tokens)
    for number in set(found):
        inside = tokens[found == number]
        assert inside.max() <= MAX_RATIO * inside.min()
    order = np.argsort(tokens, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    for value in set(lengths):
        assert len(set(found[tokens == value])) == 1
    # No bin reaches across a lower quantile (np.quantile's, but for its rounding of i / bins).
    cuts = np.sort(tokens)[np.arange(1, bins) * (len(tokens) - 1) // bins]
    below = (tokens[:, None] > cuts).sum(1)
    for number in set(found):
        assert len(set(below[found == number])) == 1


@given(lengths_of_prompts, st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_bins_of_answers_hold_like_lengths_too(lengths: list[int], most: int, seed: int) -> None:
    rule = CellRule(length_edges(np.bincount(lengths), generated=most))
    tokens = np.array(lengths) + np.random.default_rng(seed).integers(0, most + 1, len(lengths))
    found = bins_of(rule, tokens)
    for number in set(found):
        inside = tokens[found == number]
        assert inside.max() <= MAX_RATIO * inside.min()
    plain = length_edges(np.bincount(lengths))
    assert rule.edges[: len(plain)] == plain


def test_folds_are_even_and_fixed() -> None:
    counts = np.bincount([hashed_fold(f"i{k}") for k in range(10_000)], minlength=10)
    assert counts.min() > 900
    assert [hashed_fold(name) for name in ("a", "b", "é")] == [8, 8, 3]


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_magnitudes_of_a_cell_are_summed_or_their_maximum(tmp_path: Path, space) -> None:
    store, rows = RunStore(tmp_path, {"profiles": "mine"}), []
    for part in range(5):
        rng = np.random.default_rng(part)
        counted, sets, labels = part_of(space, part * 20, 20)
        sizes = [space.neurons] * len(NEURONS) + [space.experts] * len(EXPERTS)
        magnitudes = Magnitudes(*(rng.normal(size=(20, n)) for n in sizes))
        magnitudes.largest[:, :2] = -np.inf  # neurons that no token reached
        counted = replace(counted, magnitudes=magnitudes)
        keys = RULE.keys(labels, counted.tokens)
        store_part(store, part, None, None, [], part_profile(counted, sets, keys))
        categories = labels["category"].to_pylist()
        rows += [(name, magnitudes, row) for row, name in enumerate(categories)]
    for merged in (Span(1, 3), Span(0, 5)):
        columns = [c for c, n in MAGNITUDES.items() if space.experts or n in NEURONS]
        cells, sums = store.profiles.read(("category",), columns)
        assert list(sums) == columns
        for at, name in enumerate(cells["category"].to_pylist()):
            for column in columns:
                of = np.stack([getattr(m, MAGNITUDES[column])[r] for c, m, r in rows if c == name])
                expected = of.max(0) if column == "h_largest" else of.sum(0)
                np.testing.assert_allclose(sums[column][at], expected, rtol=1e-12, atol=1e-12)
        store.profiles.merge(merged)
    table = pq.read_table(tmp_path / "profiles" / Span(0, 5).name)
    assert table.schema.field("h_sums").metadata == {b"type": b"float64"}


def test_parts_without_instructions_merge_with_others(tmp_path: Path) -> None:
    """A part whose instructions were all set aside has no sums of signs and magnitudes."""
    store = RunStore(tmp_path, {"profiles": "mine"})
    empty, sets, labels = part_of(DENSE, 0, 0)
    bare = replace(empty, signs=None)
    profile = part_profile(bare, sets, RULE.keys(labels, empty.tokens))
    store_part(store, 0, None, None, [], profile)
    counted, sets, labels = part_of(DENSE, 20, 20)
    magnitudes = Magnitudes.empty(20, DENSE.neurons, 0)
    profile = part_profile(
        replace(counted, magnitudes=magnitudes), sets, RULE.keys(labels, counted.tokens)
    )
    store_part(store, 1, None, None, [], profile)
    store.profiles.merge(Span(0, 2))
    _, sums = store.profiles.read(("fold",), ("up_counts", "h_sums"))
    np.testing.assert_array_equal(sums["up_counts"].sum(0), counted.signs[0].sum(0))
    assert not sums["h_sums"].any()
