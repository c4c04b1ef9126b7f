"""Findings from effects: figures, verdicts, and no claim where there is none to make."""

import numpy as np
import pytest

from sparcom.ablation.ablation import Dose, Measured, Scored, summarise
from sparcom.ablation.how import parse_how
from sparcom.ablation.matching import Balance
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.scoring import Effects
from sparcom.ablation.target import CrossTarget, Target
from sparcom.errors import InputError

CATEGORIES = ("A", "B", "C")
CODES = np.repeat([0, 1, 2], [8, 6, 10])
SCORED = Scored(CATEGORIES, CODES, np.array([f"k{i // 2}" for i in range(24)]), np.full(24, 2.0))
FAIR = Balance(0.5, 0.5, 0.01, 1.0, 1.0, -0.02)
(ZERO,) = parse_how("zero")
UNFAIR = Balance(0.998, 0.064, 3.2, 5.0, 1.0, 2.0)


def effects(loss: np.ndarray) -> Effects:
    return Effects(loss, np.abs(loss), np.full_like(loss, np.nan))


def measured(
    target: np.ndarray,
    draws: np.ndarray,
    category: str | None = "A",
    name: str = "t",
    found: Balance = FAIR,
    stopped: bool = False,
) -> Measured:
    one = Target(name, "neurons", np.arange(5))
    return Measured(
        target=CrossTarget(name, "neurons", category, (one, one)),
        doses=(Dose(how=ZERO, effects=effects(target), draws=effects(draws)),),
        stopped=stopped,
        balance=found,
    )


def sets(rng: np.random.Generator, n: int) -> np.ndarray:
    """[n, 24] effects of random sets: each set has a strength of its own in each category."""
    return rng.standard_normal((n, 3))[:, CODES] + 0.3 * rng.standard_normal((n, 24))


def test_figures_are_plain_means() -> None:
    rng = np.random.default_rng(0)
    loss, draws = rng.standard_normal(24), sets(rng, 99)
    result = summarise(SCORED, [measured(loss, draws)], AblationOptions())
    a, b, c = (loss[code == CODES].mean() for code in range(3))
    one, total = result.of("t", "A"), result.of("t", "all")
    assert one.effect == pytest.approx(a)
    assert one.selectivity == pytest.approx(a - (b + c) / 2)
    assert total.effect == pytest.approx((a + b + c) / 3)
    assert total.selectivity is total.verdict is result.of("t", "B").verdict is None
    means = np.stack([draws[:, code == CODES].mean(1) for code in range(3)], 1)
    assert one.random == pytest.approx(means[:, 0].mean())
    selectivity = means[:, 0] - means[:, 1:].mean(1)
    low, high = np.quantile(selectivity, [0.025, 0.975], method="weibull")
    found = (one.selectivity_random_low, one.selectivity_random_high)
    assert found == pytest.approx((low, high))
    assert one.p == pytest.approx((1 + (selectivity >= one.selectivity).sum()) / 100)
    assert one.kl == pytest.approx(np.abs(loss[CODES == 0]).mean())
    assert one.changed is one.changed_random is None
    assert (one.instructions, one.clusters, total.instructions) == (8, 4, 24)
    assert result.table().num_rows == 4


def test_what_matters_and_what_does_not() -> None:
    rng = np.random.default_rng(1)
    draws = sets(rng, 119)
    strong = np.where(CODES == 0, 5.0, 0)
    eased = np.where(CODES == 0, -1.0, -9.0)  # the others gain more than A: A needs nothing
    given = [
        measured(strong, draws, name="strong"),
        measured(draws[0], draws[1:], name="one of them"),
        measured(eased, draws, name="eased"),
        measured(np.full(24, 9.0), draws, name="harms all alike"),
        measured(np.full(24, 9.0), draws, None, name="no category"),
        measured(strong, draws[:0], name="unfair", found=UNFAIR),
    ]
    result = summarise(SCORED, given, AblationOptions())
    verdict = {one.target: one.verdict for one in result.findings if one.category == "A"}
    assert verdict == {
        "strong": "matters",
        "one of them": "not shown",
        "eased": "not shown",
        "harms all alike": "not shown",
        "no category": "not shown",
        "unfair": "no fair comparison",
    }
    assert result.of("no category", "all").verdict == "matters"
    assert result.of("unfair", "A").p is result.of("unfair", "A").random_high is None
    assert {one.sets_needed for one in result.findings} == {99}  # five are tested


@pytest.mark.parametrize(("n", "verdict"), [(18, "undetermined"), (38, "undetermined"),
                                            (39, "matters")])  # fmt: skip
def test_no_claim_without_the_interval_that_shows_it(n: int, verdict: str) -> None:
    strong = np.where(CODES == 0, 50.0, 0)
    result = summarise(
        SCORED, [measured(strong, sets(np.random.default_rng(2), n))], AblationOptions()
    )
    one = result.of("t", "A")
    assert (one.verdict, one.sets_needed) == (verdict, 39)
    assert (one.p is None) == (one.selectivity_random_low is None) == (verdict == "undetermined")


def test_one_category_has_no_selectivity() -> None:
    zeros = np.zeros(8, np.int64)
    scored = Scored(("A",), zeros, np.array([f"k{i}" for i in range(8)]), np.ones(8))
    draws = np.random.default_rng(3).standard_normal((99, 8))
    given = [measured(np.full(8, 9.0), draws), measured(np.full(8, 9.0), draws, None, "list")]
    result = summarise(scored, given, AblationOptions())
    assert [one.verdict for one in result.findings] == [None, None, None, "matters"]
    assert {one.selectivity for one in result.findings} == {None}


def dosed(losses: list[np.ndarray], draws: list[np.ndarray], how: str) -> Measured:
    """A target meant for A at several doses; losses: [n] each, draws: [sets, n] each."""
    one = Target("t", "neurons", np.arange(5))
    doses = [
        Dose(how=one_way, effects=effects(loss), draws=effects(some))
        for one_way, loss, some in zip(parse_how(how), losses, draws, strict=True)
    ]
    target = CrossTarget("t", "neurons", "A", (one, one))
    return Measured(target=target, doses=tuple(doses), stopped=False, balance=FAIR)


def test_doses_are_corrected_together_and_amplifying_has_two_sides() -> None:
    """p by hand: the rank of each standardised figure among the largest of each random set."""
    rng = np.random.default_rng(5)
    draws = [0.5 * sets(rng, 99), sets(rng, 99), 0.7 * sets(rng, 99)]
    falls = np.where(CODES == 0, -6.0, 0.0)
    given = dosed([draws[0][0], 0.3 * falls, falls], draws, "scale:0,0.5,2")
    result = summarise(SCORED, [given], AblationOptions(how="scale:0,0.5,2"))
    tested = [one for one in result.findings if one.category == "A"]
    assert [(one.how, one.factor) for one in tested] == [
        ("scale:0", 0.0), ("scale:0.5", 0.5), ("scale:2", 2.0),
    ]  # fmt: skip
    weights = np.where(CODES == 0, 1 / 8, np.where(CODES == 1, -1 / 12, -1 / 20))
    losses = [dose.effects.loss for dose in given.doses]
    figures = np.stack([
        np.append(loss @ weights, some @ weights)
        for loss, some in zip(losses, draws, strict=True)
    ])  # fmt: skip
    figures[2] = np.abs(figures[2])
    z = (figures - figures.mean(1, keepdims=True)) / figures.std(1, keepdims=True)
    largest = z[:, 1:].max(0)
    expected = [(1 + (largest >= own - 1e-12).sum()) / 100 for own in z[:, 0]]
    np.testing.assert_allclose([one.p for one in tested], expected)
    # The loss falls by 6: shown when amplified, never "matters" when it is made weaker.
    assert [one.verdict for one in tested] == ["not shown", "not shown", "matters"]
    assert tested[2].effect == pytest.approx(-6)
    assert {one.sets_needed for one in tested} == {39}  # doses need no further sets
    with pytest.raises(InputError, match=r"got 3 \(ablated: t \(scale:0\), t \(scale:0.5\)"):
        result.of("t", "A")
    assert result.of("t", "A", "scale:2") is tested[2]


def test_exchangeable_doses_are_rarely_said_to_matter() -> None:
    """Doses of one set are alike, as in a model: the same strengths, times the dose."""
    rng, hits = np.random.default_rng(6), 0
    for _ in range(200):
        rows = sets(rng, 40)
        some = [rows + 0.3 * rng.standard_normal(rows.shape), rows, -rows]
        given = dosed([one[0] for one in some], [one[1:] for one in some], "scale:0,0.5,2")
        found = summarise(SCORED, [given], AblationOptions(how="scale:0,0.5,2")).findings
        hits += any(one.verdict == "matters" for one in found)
    assert hits / 200 <= 0.09


def test_exchangeable_targets_are_rarely_said_to_matter() -> None:
    """The whole way from effects per instruction to verdicts, three targets of six categories."""
    rng, hits = np.random.default_rng(4), 0
    for _ in range(200):
        given = []
        for number, category in enumerate(("A", "B", None)):
            rows = sets(rng, 60)
            given.append(measured(rows[0], rows[1:], category, str(number)))
        found = summarise(SCORED, given, AblationOptions()).findings
        hits += any(one.verdict == "matters" for one in found)
    assert hits / 200 <= 0.09  # 0.05 + 2.6 standard errors
