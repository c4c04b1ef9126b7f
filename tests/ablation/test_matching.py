"""Random sets that are like a target, and how far they are from it."""

import numpy as np
import pytest

from sparcom.ablation.matching import WORST, balance, matched_sets, worst_of
from sparcom.ablation.target import Target
from sparcom.ablation.use import Use
from sparcom.components import ComponentSpace, Site
from sparcom.errors import InputError

SPACE = ComponentSpace(tuple(Site("dense", layer, 500, "silu") for layer in range(4)))


def random_use(rng: np.random.Generator) -> Use:
    return Use(rng.beta(0.5, 1, SPACE.neurons), rng.lognormal(0, 2, SPACE.neurons))


def chosen(rng: np.random.Generator, use: Use, size: int = 60) -> Target:
    """A target that fires and contributes far more than most neurons."""
    weight = use.frequency * np.log1p(use.contribution)
    index = rng.choice(SPACE.neurons, size, replace=False, p=weight / weight.sum())
    return Target("t", "neurons", np.sort(index))


def standardised(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Rubin's: difference of means over the square root of the mean variance."""
    return (ours.mean() - theirs.mean()) / np.sqrt((ours.var() + theirs.var()) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_sets_match_site_by_site_and_on_average(seed: int) -> None:
    rng = np.random.default_rng(seed)
    use = random_use(rng)
    target = chosen(rng, use)
    sets = matched_sets(target, use, SPACE, 99, rng)
    assert sets.shape == (99, 60)
    per_site = np.bincount(target.index // 500, minlength=4)
    for one in sets:
        assert len(np.unique(one)) == 60
        assert not np.isin(one, target.index).any()
        np.testing.assert_array_equal(np.bincount(one // 500, minlength=4), per_site)
    found = balance(target, sets, use, SPACE)
    drawn = sets.reshape(-1)
    log = np.log(use.contribution)
    frequency = standardised(use.frequency[target.index], use.frequency[drawn])
    assert found.frequency_difference == pytest.approx(frequency)
    contribution = standardised(log[target.index], log[drawn])
    assert found.contribution_difference == pytest.approx(contribution)
    assert found.fair
    unmatched = rng.choice(np.setdiff1d(np.arange(SPACE.neurons), target.index), (99, 60))
    assert not balance(target, unmatched, use, SPACE).fair
    assert found.contribution_random == pytest.approx(use.contribution[drawn].mean())
    assert len(np.unique(drawn)) > 150  # they differ


def test_always_on_neurons_have_no_fair_comparison() -> None:
    rng = np.random.default_rng(0)
    use = Use(np.where(np.arange(SPACE.neurons) % 10 == 0, 0.999, 0.06), np.ones(SPACE.neurons))
    target = Target("general", "neurons", np.arange(0, SPACE.neurons, 10))
    found = balance(target, matched_sets(target, use, SPACE, 9, rng), use, SPACE)
    assert found.frequency_difference > WORST
    assert not found.fair
    assert (found.frequency, found.frequency_random) == pytest.approx((0.999, 0.06))
    both = worst_of([found, balance(target, target.index[None], use, SPACE)])
    assert both.frequency_difference == found.frequency_difference
    assert both.frequency_random == pytest.approx((0.06 + 0.999) / 2)


def test_equal_components_are_balanced() -> None:
    use = Use(np.full(SPACE.neurons, 0.5), np.zeros(SPACE.neurons))
    target = Target("t", "neurons", np.array([3]))
    sets = matched_sets(target, use, SPACE, 200, np.random.default_rng(1))
    found = balance(target, sets, use, SPACE)
    assert (found.frequency_difference, found.contribution_difference, found.fair) == (0, 0, True)
    assert len(np.unique(sets)) > 100  # any other of the site


def test_experts_are_matched_within_their_layer() -> None:
    routed = (Site("routed", layer, 4, "silu", experts=20, top_k=2) for layer in (0, 1))
    space = ComponentSpace((Site("dense", 2, 8, "silu"), *routed))
    rng = np.random.default_rng(2)
    use = Use(rng.random(40), rng.random(40))
    target = Target("t", "experts", np.array([1, 5, 25]))
    for one in matched_sets(target, use, space, 20, rng):
        assert (one // 20).tolist() == [0, 0, 1]
        assert not np.isin(one, target.index).any()


def test_a_site_that_is_taken_whole_has_none_to_match() -> None:
    use = random_use(np.random.default_rng(3))
    target = Target("t", "neurons", np.arange(500, 760))
    with pytest.raises(InputError, match="holds 260 of 500 neurons of layer1.dense: too few"):
        matched_sets(target, use, SPACE, 1, np.random.default_rng(3))
