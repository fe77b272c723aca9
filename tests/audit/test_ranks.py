from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from nas_lightning.audit.ranks import (
    Better,
    Measure,
    compare,
    difference_from_controls,
    rank_among,
    search_picks,
)
from tests.oracles.trained_ranks import counted_opposite_p, counted_p, counted_rank, listed_picks

NAN, INF = math.nan, math.inf
LOSS = Measure("convergence", "mean loss", "nat", "area_under_loss", "smaller")
ACCURACY = Measure("accuracy", "final accuracy", "%", "final_accuracy", "larger", 100.0)
VALUES = (
    [0.3, 0.1, 0.2, 0.5, 0.4],
    [0.3, 0.3, 0.2, 0.5, 0.5, 0.5],
    [1.0] * 4,
    [0.2, NAN, 0.3, INF, 0.3],
    [*np.random.RandomState(0).randint(0, 6, size=20).astype(float).tolist()],
)


@pytest.mark.parametrize("better", ["larger", "smaller"])
@pytest.mark.parametrize("values", VALUES, ids=str)
def test_whichever_cell_is_audited_p_is_at_most_a_in_a_share_a_of_the_choices(
    values: list[float], better: Better
) -> None:
    p_values = []
    for audited, own in enumerate(values):
        others = np.array(values[:audited] + values[audited + 1 :])
        found = rank_among(own, others, better)
        assert found.rank == counted_rank(own, others.tolist(), better == "larger")
        assert found.p_value == pytest.approx(float(counted_p(own, others.tolist(), better == "larger")))
        opposite = float(counted_opposite_p(own, others.tolist(), better == "larger"))
        assert found.p_value_of_the_opposite == pytest.approx(opposite)
        p_values.append(found.p_value)
    for level in {*p_values, *np.linspace(0, 1, 41)}:
        assert np.mean(np.array(p_values) <= level) <= level + 1e-12
    if len(set(values)) == len(values) == 5 and np.isfinite(values).all():
        assert sorted(p_values) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_p_is_exact_when_seeds_are_averaged() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        # Few images: means over seeds tie. Seeds have effects of their own, which all cells share.
        accuracy = generator.integers(90, 96, (8, 3)) + generator.integers(0, 9, 3)
        p_values = []
        for audited in range(8):
            cells = {f"cell {i}": dict(enumerate(map(float, row))) for i, row in enumerate(accuracy)}
            own = cells.pop(f"cell {audited}")
            p_values.append(compare(ACCURACY, own, cells).rank.p_value)
        for level in np.arange(1, 9) / 8:
            assert np.mean(np.array(p_values) <= level) <= level


def test_means_that_differ_by_rounding_alone_are_ties() -> None:
    own, other = (np.array(right, np.float32) / np.float32(360) for right in ([330, 333], [331, 332]))
    own, other = own.astype(float).mean(), other.astype(float).mean()
    assert own != other
    found = rank_among(own, np.array([other, 0.9, 0.99]), "larger")
    assert (found.rank, found.of, found.tied) == (3, 4, 1)
    assert found.beaten == pytest.approx(1.5 / 3)
    # One image of three times ten thousand is a difference.
    assert rank_among(0.95, np.array([0.95 - 1 / 30000]), "larger").rank == 1


def test_the_share_that_is_beaten_has_the_interval_of_clopper_and_pearson() -> None:
    found = rank_among(0.5, np.array([0.1, 0.2, 0.3, 0.6, NAN]), "larger")
    ends = stats.binomtest(4, 5).proportion_ci(0.95, method="exact")
    assert (found.beaten, found.low, found.high) == pytest.approx((0.8, ends.low, ends.high))
    with pytest.raises(ValueError, match="no controls"):
        rank_among(0.5, np.array([]), "larger")


def test_the_interval_of_the_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    truth, covered, repeats = 0.7, 0, 1000
    for _ in range(repeats):
        cells = np.append(truth, generator.normal(0, 1.0, 19))
        trained = cells[:, None] + generator.normal(0, 0.8, (20, 3))
        pooled = float(np.sqrt(trained.var(axis=1, ddof=1).mean()))
        found = difference_from_controls(trained[0].mean(), 3, trained[1:].mean(axis=1), pooled, 40)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / repeats <= 0.97


def test_with_one_seed_the_spread_between_controls_stands_in() -> None:
    controls = np.array([1.0, 2.0, 4.0, 5.0])
    found = difference_from_controls(4.5, 1, controls, NAN, 0)
    half = stats.t.ppf(0.975, 3) * math.sqrt(controls.var(ddof=1) * (1 + 1 / 4))
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5 - half, 1.5 + half))
    assert math.isnan(difference_from_controls(4.5, 1, np.array([1.0, NAN]), NAN, 0).low)
    alike = difference_from_controls(2.0, 2, np.ones(3), 0.0, 4)
    assert (alike.low, alike.high) == (1.0, 1.0)


def test_a_quantity_counts_seeds_as_repeats_and_what_is_not_finite_as_last() -> None:
    controls = {"a": {0: 0.5, 1: 0.7}, "b": {0: 0.2, 1: INF}, "c": {1: 0.3}}
    found = compare(LOSS, {0: 0.4, 1: 0.6}, controls)
    assert found.own_mean == pytest.approx(0.5)
    assert list(found.controls.values()) == pytest.approx([0.6, NAN, 0.3], nan_ok=True)
    # Only c is better; b has no mean.
    assert (found.rank.rank, found.rank.of) == (2, 4)
    assert found.ranks_by_seed == (2, 2)
    assert found.seed_sd == pytest.approx(math.sqrt(0.04 / 2))
    record = found.record()
    assert record["difference"] is None
    assert record["controls"][1] is None
    assert compare(LOSS, {0: NAN}, {"a": {0: 0.1}, "b": {0: 0.2}}).rank.rank == 3
    with pytest.raises(ValueError, match=r"^b has no value of area_under_loss$"):
        compare(LOSS, {0: 1.0}, {"a": {0: 1.0}, "b": {}})


def test_the_means_of_the_same_values_are_equal_in_any_order() -> None:
    values = [0.1, 0.2, 0.3, 1e-9]
    for order in itertools.permutations(values):
        found = compare(LOSS, dict(enumerate(values)), {"same": dict(enumerate(order))})
        assert found.own_mean == found.controls["same"]


@pytest.mark.parametrize("seed", range(4))
def test_a_search_keeps_what_listing_says(seed: int) -> None:
    accuracy = np.random.default_rng(seed).integers(1, 9, (6, 5)) / 10
    names = list("abcdef")
    found = search_picks(accuracy, names)
    ranks, picks, regrets = listed_picks(accuracy.tolist())
    assert list(found.rank_by_epoch) == ranks
    assert [list(picked) for picked in found.picked] == [[names[cell] for cell in pick] for pick in picks]
    assert found.regret == pytest.approx(regrets)
    firsts = [epoch for epoch in range(1, 6) if all(rank == 1 for rank in ranks[epoch - 1 :])]
    assert found.picked_from == (firsts[0] if firsts else None)
    assert found.record()["by_epoch"][0]["picked"] == " or ".join(names[cell] for cell in picks[0])


def test_a_search_picks_the_cell_from_when_it_stays_the_best() -> None:
    curves = np.array([[0.1, 0.5, 0.6, 0.9], [0.2, 0.5, 0.5, 0.5], [0.0, NAN, 0.1, 0.2]])
    found = search_picks(curves, ["own", "one", "other"])
    assert found.rank_by_epoch == (2, 2, 1, 1)
    assert found.picked == (("one",), ("own", "one"), ("own",), ("own",))
    assert found.picked_from == 3
    assert found.regret == pytest.approx([40.0, 20.0, 0.0, 0.0])
