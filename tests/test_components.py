"""Flat indices, and shards that cover a model exactly once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.components import ComponentSpace, Shard, ShardSite, Site, merge_shards
from sparcom.errors import InputError

MOE = ComponentSpace(
    (
        Site("dense", 0, 5, "silu"),
        Site("routed", 1, 3, "silu", experts=4, top_k=2),
        Site("shared", 1, 7, "silu"),
        Site("routed", 2, 3, "silu", experts=2, top_k=1),
    )
)


@st.composite
def spaces(draw: st.DrawFn) -> ComponentSpace:
    """Any model of up to four layers, with all kinds of site."""
    sites = []
    for layer in range(draw(st.integers(1, 4))):
        for kind in draw(st.sets(st.sampled_from(("dense", "routed", "shared")), min_size=1)):
            experts = draw(st.integers(1, 4)) if kind == "routed" else 0
            top_k = draw(st.integers(1, experts)) if experts else 0
            width = draw(st.integers(1, 9))
            sites.append(Site(kind, layer, width, "silu", experts=experts, top_k=top_k))
    return ComponentSpace(tuple(sites))


def by_hand(space: ComponentSpace) -> list[tuple[int, str, int, int]]:
    """`describe_neuron` of every index, by counting up."""
    return [
        (site.layer, site.kind, expert if site.experts else -1, unit)
        for site in space.sites
        for expert in range(max(site.experts, 1))
        for unit in range(site.width)
    ]


@given(spaces())
def test_every_index_has_one_place_and_every_place_one_index(space: ComponentSpace) -> None:
    places = by_hand(space)
    assert space.neurons == len(places)
    assert [space.describe_neuron(i) for i in range(space.neurons)] == places
    assert [space.neuron_index(*place) for place in places] == list(range(space.neurons))


@given(spaces())
def test_vectors_agree_with_the_description_of_each_neuron(space: ComponentSpace) -> None:
    kinds = ("dense", "routed", "shared")
    places = by_hand(space)
    assert space.neuron_layers.tolist() == [layer for layer, *_ in places]
    assert [kinds[k] for k in space.neuron_kinds] == [kind for _, kind, *_ in places]
    pairs = [(s, e) for s in space.sites for e in range(s.experts)]
    assert space.experts == len(pairs)
    assert space.expert_layers.tolist() == [site.layer for site, _ in pairs]
    of_expert = [pairs[e] if e >= 0 else None for e in space.neuron_experts]
    for (layer, kind, expert, _), found in zip(places, of_expert, strict=True):
        assert (found is None) == (kind != "routed")
        assert found is None or (found[0].layer, found[1]) == (layer, expert)


@given(spaces(), st.sampled_from((None, "dense", "routed", "shared")))
def test_slices_hold_the_neurons_of_their_kind(space: ComponentSpace, kind: str | None) -> None:
    held = [i for part in space.neuron_slices(kind) for i in range(part.start, part.stop)]
    assert held == [i for i, place in enumerate(by_hand(space)) if kind in (None, place[1])]


@given(spaces())
def test_a_space_survives_json(space: ComponentSpace) -> None:
    assert ComponentSpace.from_json(space.to_json()) == space


def test_a_model_without_sites_is_empty() -> None:
    space = ComponentSpace(())
    assert (space.neurons, space.experts, space.layers, space.kinds) == (0, 0, 0, ())
    assert len(space.neuron_experts) == 0


@pytest.mark.parametrize("index", [-1, MOE.neurons])
def test_an_index_outside_the_model_is_refused(index: int) -> None:
    with pytest.raises(InputError, match=rf"\[0, {MOE.neurons}\), got {index}"):
        MOE.describe_neuron(index)


@pytest.mark.parametrize(
    "place",
    [
        (0, "dense", -1, 5),  # one unit too many
        (0, "dense", -1, -1),
        (0, "dense", 1, 0),  # a dense MLP has no experts
        (1, "routed", 4, 0),  # one expert too many
        (1, "routed", -1, 0),  # which expert?
        (0, "shared", -1, 0),  # no such site
        (3, "dense", -1, 0),
    ],
)
def test_a_neuron_that_the_model_does_not_have_is_refused(place: tuple) -> None:
    with pytest.raises(InputError, match=f"no neuron .layer {place[0]}, {place[1]}"):
        MOE.neuron_index(*place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mlp", 0, 4, "silu"), "kind must be one of dense, routed, shared, got 'mlp'"),
        (("routed", 0, 4, "silu"), "only routed sites have experts; got 0 at layer0.routed"),
        (("dense", 0, 4, "silu", True, 8, 2), "got 8 at layer0.dense"),
    ],
)
def test_a_site_that_cannot_be_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Site(*arguments)


def test_a_site_stands_once_in_a_space() -> None:
    site = Site("dense", 0, 4, "silu")
    with pytest.raises(InputError, match=r"each site once, got \['layer0.dense', 'layer0.dense'\]"):
        ComponentSpace((site, site))


# -- shards ---------------------------------------------------------------------------------------


def split_everything(space: ComponentSpace, seed: int) -> list[Shard]:
    """Shards of two tensor-parallel halves times any split of the experts, in any order."""
    rng = np.random.default_rng(seed)
    parts: dict[tuple[int, int], list[ShardSite]] = {}
    for at, site in enumerate(space.sites):
        middle = int(rng.integers(0, site.width + 1))
        experts = rng.permutation(site.experts)
        cut = int(rng.integers(0, site.experts + 1))
        for half, units in enumerate(((0, middle), (middle, site.width))):
            if not site.experts:
                parts.setdefault((half, 0), []).append(ShardSite(at, units))
                continue
            for group, held in enumerate((experts[:cut], experts[cut:])):
                if len(held):
                    part = ShardSite(at, units, tuple(int(e) for e in held))
                    parts.setdefault((half, group), []).append(part)
    return [Shard(space, tuple(held)) for held in parts.values()]


@given(spaces(), st.integers(0, 1000))
def test_shards_put_together_are_the_model(space: ComponentSpace, seed: int) -> None:
    shards = split_everything(space, seed)
    assert merge_shards(shards) == space
    counts = np.full(space.neurons, -1)
    for shard in shards:
        local = [n for site in shard.local_sites() for n in range(site.neurons)]
        indices = shard.neuron_indices()
        assert len(local) == len(indices)  # what a worker counts is what it places
        counts[indices] = indices
    assert counts.tolist() == list(range(space.neurons))


@given(spaces())
def test_the_whole_shard_is_the_space(space: ComponentSpace) -> None:
    whole = Shard.whole(space)
    assert tuple(whole.local_sites()) == space.sites
    assert whole.neuron_indices().tolist() == list(range(space.neurons))
    assert whole.expert_indices().tolist() == list(range(space.experts))


def test_experts_keep_the_order_of_their_worker() -> None:
    shard = Shard(MOE, (ShardSite(1, (1, 3), (3, 0)),))
    assert shard.expert_indices().tolist() == [3, 0]
    places = [MOE.describe_neuron(int(i)) for i in shard.neuron_indices()]
    assert [(expert, unit) for _, _, expert, unit in places] == [(3, 1), (3, 2), (0, 1), (0, 2)]
    (site,) = shard.local_sites()
    assert (site.experts, site.width, site.top_k) == (2, 2, 2)


def test_a_neuron_that_nobody_or_two_hold_is_named() -> None:
    whole = Shard.whole(MOE)
    with pytest.raises(InputError, match=r"neuron \(0, 'dense', -1, 0\) is held by 2 shards"):
        merge_shards([whole, Shard(MOE, whole.parts[:1])])
    with pytest.raises(InputError, match=r"neuron \(2, 'routed', 0, 0\) is held by 0 shards"):
        merge_shards([Shard(MOE, whole.parts[:3])])


def test_shards_of_other_models_do_not_merge() -> None:
    other = ComponentSpace(MOE.sites[:1])
    with pytest.raises(InputError, match="different models"):
        merge_shards([Shard(MOE, Shard.whole(MOE).parts), Shard.whole(other)])
    with pytest.raises(InputError, match="at least one shard"):
        merge_shards([])
