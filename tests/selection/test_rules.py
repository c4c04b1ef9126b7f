"""Every rule and tie rule against plain NumPy, and against the rule's definition in fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_selection import INT32_MAX, splitmix64
from plain_selection import identify as plain_identify

from sparcom.components import ComponentSpace, Site
from sparcom.counting.counted import Counted
from sparcom.errors import InputError
from sparcom.selection.rules import RULES, TIES, Selection, identify
from sparcom.selection.sets import Sets

MOE = ComponentSpace(
    (
        Site("dense", 0, 11, "silu"),
        Site("routed", 1, 5, "silu", experts=6, top_k=2),
        Site("shared", 1, 9, "silu"),
        Site("dense", 1, 4, "silu"),
        Site("routed", 2, 3, "silu", experts=3, top_k=1),
    )
)
VALUES = ("1", "0.5", "0.3", "0.1", "0.07", "1/3", "0.001", "1e-9")


def members(bits: np.ndarray, size: int) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(bits, bitorder="little")[:size]).tolist())


def place_of(space: ComponentSpace, family: str) -> list[tuple[str, int, Fraction]]:
    """(kind, layer, uniform frequency) of every component of a family."""
    if family == "neurons":
        places = (space.describe_neuron(i) for i in range(space.neurons))
        return [(kind, layer, Fraction(0)) for layer, kind, _, _ in places]
    return [
        ("experts", s.layer, Fraction(s.top_k, s.experts))
        for s in space.sites
        for _ in range(s.experts)
    ]


def brute(
    counts: list[int], total: int, places: list, rule: str, ties: str, pool: bool
) -> set[int]:
    """The set by the definition of the rule, in fractions, component by component."""
    kind, _, text = rule.partition(":")
    value = Fraction(text)
    frequency = [Fraction(c, total) if total else Fraction(0) for c in counts]
    some = {i for i, c in enumerate(counts) if c > 0}
    if kind == "fixed":
        return {i for i in some if frequency[i] >= value}
    if kind == "lift":
        return {i for i in some if frequency[i] > value * places[i][2]}
    groups: dict[tuple, list[int]] = {}
    for i, (family, layer, _) in enumerate(places):
        key = ("all" if pool else family, layer if kind == "per-layer" else None)
        groups.setdefault(key, []).append(i)
    chosen: set[int] = set()
    for group in groups.values():
        size = max(1, math.ceil(value * len(group)))
        ranked = sorted(group, key=lambda i: (-counts[i], int(splitmix64(np.array([i]))[0])))
        cut = counts[ranked[size - 1]]
        if ties == "inclusive":
            chosen |= {i for i in group if counts[i] >= cut}
        elif ties == "exclusive":
            chosen |= {i for i in group if counts[i] > cut}
        else:
            chosen |= set(ranked[:size])
    return chosen & some


@st.composite
def counted_rows(draw: st.DrawFn) -> Counted:
    """Counts of two instructions, with few values, so that there are many ties."""
    tokens = draw(st.lists(st.integers(0, 12), min_size=2, max_size=2))

    def counts(width: int) -> np.ndarray:
        rows = [draw(st.lists(st.integers(0, t), min_size=width, max_size=width)) for t in tokens]
        return np.array(rows, np.int32)

    return Counted(("a", "b"), np.array(tokens), counts(MOE.neurons), counts(MOE.experts))


@settings(max_examples=300)
@given(
    counted_rows(),
    st.tuples(st.sampled_from(("top", "per-layer", "fixed")), st.sampled_from(VALUES)),
    st.tuples(
        st.sampled_from(("top", "per-layer", "fixed", "lift")), st.sampled_from((*VALUES, "1"))
    ),
    st.sampled_from(TIES),
    st.booleans(),
)
def test_sets_follow_the_definition_of_the_rule(counted, rule, expert_rule, ties, pool) -> None:
    selection = Selection(":".join(rule), ":".join(expert_rule), ties, pool)
    sets = identify(counted, MOE, selection)
    assert sets.ids == counted.ids
    assert sets.tokens.tolist() == counted.tokens.tolist()
    for row, total in enumerate(counted.tokens):
        for family, rule_text, counts, bits, sizes, size in (
            ("neurons", selection.rule, counted.neurons, sets.neurons, sets.sizes, MOE.neurons),
            ("experts", selection.expert_rule, counted.experts, sets.experts, sets.expert_sizes,
             MOE.experts),
        ):  # fmt: skip
            expected = brute(
                counts[row].tolist(), int(total), place_of(MOE, family), rule_text, ties, pool
            )
            found = members(bits[row], size)
            assert found == expected
            assert sizes[row].sum() == len(found)


@st.composite
def spaces(draw: st.DrawFn) -> ComponentSpace:
    """Models of a few layers, each with a dense MLP, or routed experts and perhaps a shared one."""
    sites = []
    for layer in range(draw(st.integers(1, 5))):
        width = draw(st.integers(1, 70))
        if draw(st.booleans()):
            sites.append(Site("dense", layer, width, "silu"))
            continue
        experts = draw(st.integers(1, 9))
        top_k = draw(st.integers(1, experts))
        sites.append(Site("routed", layer, width, "silu", experts=experts, top_k=top_k))
        if draw(st.booleans()):
            sites.append(Site("shared", layer, draw(st.integers(1, 90)), "silu"))
    return ComponentSpace(tuple(sites))


TOTALS = (0, 1, 12, 254, 255, 256, 300, 65_535, 65_536, 70_000, INT32_MAX - 1)


@settings(max_examples=400, deadline=None)
@given(
    space=spaces(),
    tokens=st.lists(st.sampled_from(TOTALS), max_size=5),
    shape=st.sampled_from(("skewed", "few values", "high", "none")),
    rule=st.tuples(st.sampled_from(RULES[:-1]), st.sampled_from(VALUES)),
    expert_rule=st.tuples(st.sampled_from(RULES), st.sampled_from((*VALUES, "1"))),
    ties=st.sampled_from(TIES),
    pool=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_array_is_that_of_plain_numpy(
    space, tokens, shape, rule, expert_rule, ties, pool, seed
) -> None:
    rng = np.random.default_rng(seed)
    total = np.array(tokens, np.int64)

    def counts(width: int) -> np.ndarray:
        share = rng.beta(0.3, 1.5, (len(total), width))
        if shape == "few values":
            share = rng.integers(0, 3, share.shape) / 2
        if shape == "high":
            share = 1 - share / 1000
        if shape == "none":
            share[:] = 0
        return np.floor(share * total[:, None]).astype(np.int32)

    ids = tuple(f"i{n}" for n in range(len(total)))
    counted = Counted(ids, total, counts(space.neurons), counts(space.experts))
    selection = Selection(":".join(rule), ":".join(expert_rule), ties, pool)
    found, expected = identify(counted, space, selection), plain_identify(counted, space, selection)
    assert found.ids == expected.ids
    for name in ("tokens", "neurons", "cuts", "sizes", "experts", "expert_cuts", "expert_sizes"):
        ours, plain = getattr(found, name), getattr(expected, name)
        assert ours.dtype == plain.dtype
        np.testing.assert_array_equal(ours, plain, name)


@given(counted_rows(), st.sampled_from(TIES), st.sampled_from(("top:0.3", "fixed:0.2")))
def test_padding_bits_are_zero(counted, ties, rule) -> None:
    sets = identify(counted, MOE, Selection(rule, ties=ties))
    assert sets.neurons.shape == (2, -(-MOE.neurons // 8))
    assert np.unpackbits(sets.neurons, axis=1, bitorder="little")[:, MOE.neurons :].sum() == 0


@given(counted_rows(), st.sampled_from(TIES), st.sampled_from(("top:0.3", "per-layer:0.3")))
def test_a_count_is_selected_from_the_cut_on(counted, ties, rule) -> None:
    selection = Selection(rule, ties=ties, pool=True)
    sets = identify(counted, MOE, selection)
    layers = (0, 1, 2) if rule.startswith("per") else (None,)
    for row in range(2):
        chosen = members(sets.neurons[row], MOE.neurons)
        for group, layer in enumerate(layers):
            of = [i for i in range(MOE.neurons) if layer in (None, MOE.neuron_layers[i])]
            held = [i for i in of if i in chosen]
            reach = [i for i in of if counted.neurons[row, i] >= sets.cuts[row, group]]
            assert sets.sizes[row, group] == len(held)
            assert held == reach or (ties == "exact" and set(held) < set(reach))
            if not held:
                assert sets.cuts[row, group] == 1 + max(counted.neurons[row, i] for i in of)
            if ties == "exact" and held != reach:  # of the surplus, only ties at the cut are left
                left = {int(counted.neurons[row, i]) for i in set(reach) - set(held)}
                assert left == {int(sets.cuts[row, group])}


# -- tie rules ------------------------------------------------------------------------------------


def uniform_model(layers: int = 40, width: int = 100) -> ComponentSpace:
    return ComponentSpace(tuple(Site("dense", j, width, "silu") for j in range(layers)))


def one_row(space: ComponentSpace, counts: np.ndarray, tokens: int) -> Counted:
    routed = np.zeros((1, space.experts), np.int32)
    return Counted(("a",), np.array([tokens]), counts[None].astype(np.int32), routed)


def exact_set(space: ComponentSpace, counts: np.ndarray, rule: str = "top:0.25") -> Sets:
    return identify(one_row(space, counts, 9), space, Selection(rule, ties="exact"))


def test_exact_picks_exactly_k_and_favours_no_layer() -> None:
    """All 4,000 neurons are tied and 1,000 are chosen: 25 of each layer by chance (sd 4.3)."""
    space = uniform_model()
    chosen = members(exact_set(space, np.full(space.neurons, 3)).neurons[0], space.neurons)
    assert len(chosen) == 1000
    per_layer = np.bincount([i // 100 for i in chosen], minlength=40)
    assert per_layer.min() >= 10
    assert per_layer.max() <= 40
    statistic = ((per_layer - 25) ** 2 / (25 * 0.75)).sum()  # chi square, 39 degrees of freedom
    assert 15 < statistic < 75
    units = np.bincount([i % 100 for i in chosen], minlength=100)  # nor a unit of a layer
    assert ((units - 10) ** 2 / 7.5).sum() < 160


def test_exact_is_the_same_choice_for_every_instruction_and_every_run() -> None:
    space = uniform_model()
    first = exact_set(space, np.full(space.neurons, 3)).neurons
    again = exact_set(space, np.full(space.neurons, 7)).neurons
    assert (first == again).all()


def test_exact_breaks_ties_only_at_the_cut() -> None:
    space = uniform_model()
    counts = np.ones(space.neurons, np.int32)
    counts[::8] = 5  # these 500 are certain
    chosen = members(exact_set(space, counts).neurons[0], space.neurons)
    assert len(chosen) == 1000
    assert set(range(0, space.neurons, 8)) <= chosen


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "tokens"), [("0.1", 30), ("0.3", 10), ("0.7", 10), ("0.07", 100), ("1/3", 9),
                             ("0.57", 100), ("0.29", 100)],
)  # fmt: skip
def test_fixed_is_exact_where_floating_point_is_not(fraction: str, tokens: int) -> None:
    """0.57 * 100 is 56.99999999999999 in floating point, and 0.07 * 100 is 7.000000000000001."""
    space = uniform_model(1, 101)
    counts = np.arange(101).clip(max=tokens)
    sets = identify(one_row(space, counts, tokens), space, Selection(f"fixed:{fraction}"))
    lowest = Fraction(fraction) * tokens
    assert lowest.denominator == 1  # the frequency itself occurs, and belongs to the set
    assert sets.cuts[0, 0] == lowest
    assert members(sets.neurons[0], 101) == {i for i in range(101) if counts[i] >= lowest}


def test_lift_exceeds_the_bound() -> None:
    space = ComponentSpace((Site("routed", 0, 2, "silu", experts=10, top_k=3),))
    routed = np.array([[3, 4, 6, 0, 0, 0, 0, 0, 0, 17]], np.int32)
    counted = Counted(("a",), np.array([10]), np.zeros((1, 20), np.int32), routed)
    sets = identify(counted, space, Selection(expert_rule="lift:1"))
    assert members(sets.experts[0], 10) == {1, 2, 9}  # 3 of 10 tokens is uniform: no lift
    sets = identify(counted, space, Selection(expert_rule="lift:2"))
    assert members(sets.experts[0], 10) == {9}
    sets = identify(counted, space, Selection(expert_rule="lift:1e10"))  # beyond int32
    assert sets.expert_cuts.tolist() == [[INT32_MAX]]
    assert sets.expert_sizes.tolist() == [[0]]


def test_pool_ranks_kinds_together_and_the_default_does_not() -> None:
    """Routed neurons fire rarely: pooled, the always-on shared ones displace them."""
    counts = np.ones(MOE.neurons, np.int32)
    shared = MOE.neuron_slices("shared")[0]
    counts[shared] = 9
    counted = Counted(("a",), np.array([9]), counts[None], np.zeros((1, MOE.experts), np.int32))
    apart = identify(counted, MOE, Selection("top:0.1", ties="exact"))
    assert apart.sizes.shape == (1, 3)  # dense, routed, shared
    assert apart.sizes[0].tolist() == [2, 4, 1]  # ceil of a tenth of 15, 39 and 9
    pooled = identify(counted, MOE, Selection("top:0.1", ties="exact", pool=True))
    assert pooled.sizes.tolist() == [[7]]  # of 63, all from the nine shared ones
    assert members(pooled.neurons[0], MOE.neurons) <= set(range(shared.start, shared.stop))


def test_per_layer_gives_every_layer_its_share() -> None:
    space = uniform_model(4, 50)
    counts = np.repeat([9, 5, 2, 1], 50)
    top = identify(one_row(space, counts, 9), space, Selection("top:0.1", ties="exact"))
    each = identify(one_row(space, counts, 9), space, Selection("per-layer:0.1", ties="exact"))
    assert np.bincount([i // 50 for i in members(top.neurons[0], 200)], minlength=4).tolist() == [
        20, 0, 0, 0,
    ]  # fmt: skip
    assert each.sizes.tolist() == [[5, 5, 5, 5]]


def test_a_dense_model_has_no_expert_sets() -> None:
    space = uniform_model(2, 10)
    sets = identify(one_row(space, np.ones(20), 4), space, Selection())
    assert sets.experts.shape == (1, 0)
    assert sets.expert_cuts.shape == sets.expert_sizes.shape == (1, 0)


def test_no_instruction_gives_empty_sets_of_the_right_widths() -> None:
    neurons, experts = np.zeros((0, MOE.neurons), np.int32), np.zeros((0, MOE.experts), np.int32)
    counted = Counted((), np.zeros(0, int), neurons, experts)
    sets = identify(counted, MOE, Selection())
    assert sets.neurons.shape == (0, 8)
    assert sets.cuts.shape == (0, 3)


@pytest.mark.parametrize(
    "rule", ["top", "top:", "top:0", "top:-0.1", "top:1.01", "top:nan", "top:inf", "fixed:x",
             "best:1", "lift:2", "top:1/0", "", "top:1e-99999999", "top:0." + "1" * 5000],
)  # fmt: skip
def test_a_malformed_rule_says_what_is_allowed(rule: str) -> None:
    with pytest.raises(InputError, match="expected top:NUMBER or per-layer:NUMBER or fixed:NUMBER"):
        Selection(rule)


@pytest.mark.parametrize("rule", ["lift:0", "lift:-1", "shift:2"])
def test_a_malformed_expert_rule_says_what_is_allowed(rule: str) -> None:
    with pytest.raises(InputError, match=f"or lift:NUMBER.*got '{rule}'"):
        Selection(expert_rule=rule)


def test_an_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(
        InputError, match="ties: expected inclusive, exclusive, exact, got 'random'"
    ):
        Selection(ties="random")


def test_counts_are_read_in_place_and_never_converted() -> None:
    counts = np.ones((2, MOE.neurons * 2), np.int32)
    experts = np.ones((2, MOE.experts), np.int32)
    for wrong in (counts[:, ::2], counts[:, : MOE.neurons].astype(np.int64)):
        with pytest.raises(InputError, match=r"select: counts must be \[rows, components\] int32"):
            identify(Counted(("a", "b"), np.array([4, 4]), wrong, experts), MOE, Selection())


def test_more_tokens_than_a_count_holds_are_refused() -> None:
    counted = one_row(uniform_model(1, 5), np.zeros(5), INT32_MAX)
    with pytest.raises(InputError, match="identify: T must be below 2147483647"):
        identify(counted, uniform_model(1, 5), Selection("fixed:1"))
