"""Flat indices, and shards that cover a model exactly once."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.components import (
    ComponentSpace,
    LocalSite,
    Shard,
    Site,
    merge_shards,
    shards_of,
)
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
    places = by_hand(space)
    assert space.neuron_layers.tolist() == [layer for layer, *_ in places]
    pairs = [(s, e) for s in space.sites for e in range(s.experts)]
    assert space.experts == len(pairs)
    of_expert = [pairs[e] if e >= 0 else None for e in space.neuron_experts]
    for (layer, kind, expert, _), found in zip(places, of_expert, strict=True):
        assert (found is None) == (kind != "routed")
        assert found is None or (found[0].layer, found[1]) == (layer, expert)


@given(spaces(), st.sampled_from((None, "dense", "routed", "shared")))
def test_slices_hold_the_neurons_of_their_kind(space: ComponentSpace, kind: str | None) -> None:
    found = [i for part in space.neuron_slices(kind) for i in range(part.start, part.stop)]
    assert found == [i for i, place in enumerate(by_hand(space)) if kind in (None, place[1])]


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
        ({"kind": "mlp"}, "kind must be one of dense, routed, shared, got 'mlp'"),
        ({"kind": "routed"}, "only routed sites have experts; got 0 at layer0.routed"),
        ({"kind": "dense", "experts": 8, "top_k": 2}, "got 8 at layer0.dense"),
    ],
)
def test_a_site_that_cannot_be_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Site(**arguments, layer=0, width=4, activation="silu")


def test_a_site_stands_once_in_a_space() -> None:
    site = Site("dense", 0, 4, "silu")
    with pytest.raises(InputError, match=r"each site once, got \['layer0.dense', 'layer0.dense'\]"):
        ComponentSpace((site, site))


# -- shards ---------------------------------------------------------------------------------------


def split_everything(space: ComponentSpace, seed: int) -> list[list[LocalSite]]:
    """Workers of two tensor-parallel halves times any split of the experts, in any order."""
    rng = np.random.default_rng(seed)
    workers: dict[tuple[int, int], list[LocalSite]] = {}
    for site in space.sites:
        middle = int(rng.integers(0, site.width + 1))
        experts = rng.permutation(site.experts)
        cut = int(rng.integers(0, site.experts + 1))
        for half, units in enumerate(((0, middle), (middle, site.width))):
            if not site.experts:
                workers.setdefault((half, 0), []).append(LocalSite(site, units))
                continue
            for group, some in enumerate((experts[:cut], experts[cut:])):
                if len(some):
                    local = LocalSite(site, units, tuple(int(e) for e in some))
                    workers.setdefault((half, group), []).append(local)
    return list(workers.values())


def whole(space: ComponentSpace) -> list[LocalSite]:
    """What a worker has that has everything."""
    return [LocalSite(site, (0, site.width), tuple(range(site.experts))) for site in space.sites]


def places_of(worker: list[LocalSite]) -> list[tuple[int, str, int, int]]:
    """(layer, kind, expert, unit) of a worker's neurons, by counting up."""
    return [
        (local.site.layer, local.site.kind, expert, unit)
        for local in worker
        for expert in (local.experts or (-1,))
        for unit in range(*local.units)
    ]


@given(spaces(), st.integers(0, 1000))
def test_shards_put_together_are_the_model(space: ComponentSpace, seed: int) -> None:
    workers = split_everything(space, seed)
    shards = shards_of(workers)
    merged = merge_shards(shards)
    assert set(merged.sites) == set(space.sites)
    counts = np.full((1, merged.neurons), -1)
    for worker, shard in zip(workers, shards, strict=True):
        indices = shard.neuron_indices()
        counted = sum(local.as_counted.neurons for local in worker)
        assert counted == len(indices)  # what a worker counts is what it places
        assert [merged.describe_neuron(int(i)) for i in indices] == places_of(worker)
        shard.put_neurons(indices[None], counts)
    assert counts[0].tolist() == list(range(merged.neurons))


@given(spaces(), st.integers(0, 1000))
def test_sites_lie_by_layer_and_kind_whoever_names_them_first(
    space: ComponentSpace, seed: int
) -> None:
    workers = split_everything(space, seed)
    kinds = ("dense", "routed", "shared")
    found = merge_shards(shards_of(workers)).sites
    assert list(found) == sorted(space.sites, key=lambda s: (s.layer, kinds.index(s.kind)))
    assert merge_shards(shards_of(workers[::-1])).sites == found


@given(spaces())
def test_a_worker_with_everything_counts_the_space_itself(space: ComponentSpace) -> None:
    shard = Shard(space, tuple(whole(space)))
    assert tuple(local.as_counted for local in shard.sites) == space.sites
    assert not any(local.partial for local in shard.sites)
    assert shard.neuron_indices().tolist() == list(range(space.neurons))
    assert shard.expert_indices().tolist() == list(range(space.experts))


def test_experts_keep_the_order_of_their_worker() -> None:
    local = LocalSite(MOE.sites[1], (1, 3), (3, 0))
    shard = Shard(MOE, (local,))
    assert shard.expert_indices().tolist() == [3, 0]
    places = [MOE.describe_neuron(int(i)) for i in shard.neuron_indices()]
    assert [(expert, unit) for _, _, expert, unit in places] == [(3, 1), (3, 2), (0, 1), (0, 2)]
    counted = local.as_counted
    assert (counted.experts, counted.width, counted.top_k, local.partial) == (2, 2, 2, True)


@pytest.mark.parametrize("site", MOE.sites[:2])
def test_a_local_site_survives_json(site: Site) -> None:
    local = LocalSite(site, (1, 3), (3, 0) if site.experts else ())
    assert LocalSite.from_json(json.loads(json.dumps(local.to_json()))) == local


def test_a_neuron_that_belongs_to_nobody_or_to_two_is_named() -> None:
    everything = whole(MOE)
    with pytest.raises(InputError, match=r"neuron \(0, 'dense', -1, 0\) belongs to 2 shards"):
        merge_shards(shards_of([everything, everything[:1]]))
    with pytest.raises(InputError, match=r"neuron \(2, 'routed', 0, 0\) belongs to 0 shards"):
        merge_shards([Shard(MOE, tuple(everything[:3]))])


@pytest.mark.parametrize(
    ("site", "experts", "message"),
    [
        (0, (1,), "layer0.dense has 0 experts, but the worker's part of it names 1"),
        (1, (), "layer1.routed has 4 experts, .* names 0; leave out a site of which it has none"),
    ],
)
def test_a_part_without_its_experts_is_refused(site: int, experts: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LocalSite(MOE.sites[site], (0, 3), experts)


def test_shards_of_other_models_do_not_merge() -> None:
    other = ComponentSpace(MOE.sites[:1])
    with pytest.raises(InputError, match="different models"):
        merge_shards([Shard(MOE, tuple(whole(MOE))), Shard(other, tuple(whole(other)))])
    with pytest.raises(InputError, match="at least one shard"):
        merge_shards([])
    with pytest.raises(InputError, match="layer1.routed is no site of the model"):
        Shard(other, tuple(whole(MOE)))


def test_workers_that_name_one_site_differently_are_refused() -> None:
    wide = Site("dense", 0, 6, "silu")
    with pytest.raises(InputError, match="each site once"):
        shards_of([[LocalSite(MOE.sites[0], (0, 5))], [LocalSite(wide, (0, 6))]])
