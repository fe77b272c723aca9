from __future__ import annotations

import math
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_lightning.report import resampling
from nas_lightning.report.effects import (
    RankBlock,
    SpreadBlock,
    paired_difference,
    rank_association,
    spread_ratio,
)
from nas_lightning.report.resampling import holm, interval, trusted_interval
from tests.oracles.rank_association import paired_p, permutation_p, pooled_tau, tau_b

WIDTHS = [3.5, 2.0, 2.5, 2.5, 3.0]


def block(predictor: Any, *measures: Any) -> RankBlock:
    return RankBlock(np.array(predictor, float), np.array(measures, float))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=3, max_size=6))
def test_tau_b_is_that_of_the_definition_and_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    result = rank_association([block(x, y)], resamples=50)
    assert result.effect == pytest.approx(tau_b(x, y), nan_ok=True)
    assert result.effect == pytest.approx(float(stats.kendalltau(x, y).statistic), nan_ok=True)


def test_p_value_is_the_share_of_all_permutations_as_far_from_zero() -> None:
    measure = [1.0, 5.0, 3.0, 3.0, 2.0]
    result = rank_association([block(WIDTHS, measure)], resamples=50)
    assert result.test == "all 120 permutations"
    assert result.p_value == pytest.approx(permutation_p([(WIDTHS, [measure])]))
    of_scipy = stats.permutation_test(
        (np.array(WIDTHS),),
        lambda x: abs(float(stats.kendalltau(x, measure).statistic)),
        permutation_type="pairings",
        alternative="greater",
        vectorized=False,
        n_resamples=np.inf,
    )
    assert result.p_value == pytest.approx(of_scipy.pvalue)


def test_groups_of_one_base_cell_are_permuted_together_and_base_cells_apart() -> None:
    families = [
        (WIDTHS[:4], [[1.0, 4.0, 2.0, 3.0], [2.0, 4.0, 1.0, 3.0]]),
        ([5.0, 3.0, 4.0], [[2.0, 3.0, 1.0]]),
    ]
    result = rank_association([block(x, *measures) for x, measures in families], resamples=50)
    groups = [(x, y) for x, measures in families for y in measures]
    assert result.effect == pytest.approx(pooled_tau(groups))
    assert result.group_effects == pytest.approx([tau_b(x, y) for x, y in groups])
    assert result.test == f"all {24 * 6} permutations"
    assert result.p_value == pytest.approx(permutation_p(families))


@pytest.mark.parametrize("measure", [[1, 2, 3, 4, 5], [1, 1, 1, 1, 2], [1, 1, 2, 2, 2]])
def test_the_smallest_p_value_is_that_of_the_best_order(measure: list[int]) -> None:
    orders = [rank_association([block(WIDTHS, order)], resamples=9) for order in permutations(measure)]
    best = min(result.p_value for result in orders)
    assert [result.smallest_p for result in orders] == pytest.approx([best] * 120)
    kinds = [[*chosen, *(i for i in range(7) if i not in chosen)] for chosen in combinations(range(7), 3)]
    values = np.array([0.0, 1.5, -2.0, 3.0, 0.2, 0.1, -0.4])
    ratios = [spread_ratio([variants(values[order[:3]], values[order[3:]])], resamples=9) for order in kinds]
    assert all(result.smallest_p <= result.p_value for result in ratios)
    assert paired_difference(CELLS, resamples=9).smallest_p == 2 / 32


def test_of_random_permutations_ties_and_their_number_limit_the_smallest_p_value() -> None:
    x = np.arange(13.0)
    assert rank_association([block(x, x)], resamples=999).smallest_p == 1 / 1000
    few = rank_association([block(x >= 11, x)], resamples=999)
    assert few.smallest_p == pytest.approx(2 / 78, abs=0.01)
    assert few.smallest_p <= few.p_value


@pytest.mark.parametrize(
    ("predictor", "reason"),
    [([1, 2, 3, 4, 5, 6], "all draws"), ([0, 0, 0, 0, 0, 1], "ties leave 3"), ([1, 2, 3], "ties leave 1")],
)
def test_an_interval_that_ties_break_is_left_out(predictor: list[float], reason: str) -> None:
    result = rank_association([block(predictor, np.arange(len(predictor)))], resamples=999)
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert result.no_interval.startswith(reason)
    assert result.p_value < 1


def test_an_interval_beside_its_effect_is_left_out() -> None:
    assert trusted_interval(0.5, (0.1, 0.4))[2] == "ties move the bootstrap's interval away from the effect"
    assert trusted_interval(0.3, (0.1, 0.4)) == (0.1, 0.4, "")


def test_random_permutations_come_near_the_exact_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [block([1, 2, 3, 4, 5, 6], [2, 1, 3, 6, 4, 5])]
    exact = rank_association(blocks, resamples=50).p_value
    monkeypatch.setattr(resampling, "EXACT_LIMIT", 1)
    random = rank_association(blocks, resamples=4999)
    assert random.test == "4999 random permutations"
    assert random.p_value == pytest.approx(exact, abs=3 * math.sqrt(exact / 4999))
    assert (random.p_value * 5000) == pytest.approx(round(random.p_value * 5000))


def test_a_p_value_of_random_permutations_is_never_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "EXACT_LIMIT", 1)
    ordered = np.arange(20.0)
    assert rank_association([block(ordered, ordered)], resamples=199).p_value == 1 / 200


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_monotone_transforms_and_shifts_of_a_group_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 6))
    x = rng.integers(0, 4, 6).astype(float)
    before = rank_association([block(x, first, second)], resamples=99)
    after = rank_association([block(2 * x + 1, np.exp(first), second**3 + 100.0)], resamples=99)
    np.testing.assert_equal(
        (after.effect, after.low, after.high, after.p_value),
        (before.effect, before.low, before.high, before.p_value),
    )


def test_a_reversed_measure_gives_the_negative_effect_and_the_same_p_value() -> None:
    x, y = [*WIDTHS, 4.0, 1.0, 2.0], np.array([1.0, 5.0, 3.0, 3.5, 2.0, 0.5, 2.5, 4.0])
    one, other = (rank_association([block(x, s * y)], resamples=199) for s in (1, -1))
    assert one.low < one.effect < one.high
    assert other.effect == -one.effect
    assert other.p_value == one.p_value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_architectures_that_a_group_lacks_do_not_count_there() -> None:
    full, part = [1.0, 5.0, 3.0, 3.0, 2.0], [1.0, math.nan, 2.0, math.nan, 1.5]
    result = rank_association([block(WIDTHS, full, part)], resamples=99)
    in_part = tau_b([3.5, 2.5, 3.0], [1.0, 2.0, 1.5])
    assert result.effect == pytest.approx((5 * tau_b(WIDTHS, full) + 3 * in_part) / 8)


@pytest.mark.parametrize(
    ("predictor", "measure"),
    [([3, 3, 3, 3], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 5, 5, 5]), ([1], [2]), ([], [])],
)
def test_without_differences_there_is_no_effect(predictor: list[float], measure: list[float]) -> None:
    result = rank_association([block(predictor, measure)], resamples=20)
    assert math.isnan(result.effect)
    assert math.isnan(result.p_value)
    assert result.arrangements == 1


def test_without_blocks_there_is_no_effect() -> None:
    for result in (rank_association([]), spread_ratio([]), paired_difference([])):
        assert math.isnan(result.effect)
        assert math.isnan(result.p_value)


def test_two_architectures_have_an_effect_but_two_arrangements() -> None:
    result = rank_association([block([1, 2], [3, 4])], resamples=20)
    assert (result.effect, result.p_value, result.arrangements) == (1.0, 1.0, 2)


def test_arrangements_count_what_ties_leave() -> None:
    assert rank_association([block([2, 2, 3, 3, 3], [1, 2, 3, 4, 5])], resamples=9).arrangements == 10


def test_p_values_are_uniform_where_width_means_nothing() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(250):
        shared = rng.normal(size=6)  # what an architecture brings to both of its groups
        y = shared + 0.3 * rng.normal(size=(2, 6))
        p_values.append(
            rank_association([RankBlock(rng.permutation(6.0 * np.arange(6)), y)], resamples=9).p_value
        )
    for level in (0.05, 0.1, 0.2, 0.5):
        share = np.mean(np.array(p_values) <= level)
        assert share <= level + 3 * math.sqrt(level * (1 - level) / 250)
    # Exact with 720 permutations and few ties, so that the test is not needlessly cautious either.
    assert np.mean(np.array(p_values) <= 0.5) >= 0.4


def test_a_strong_signal_is_found_and_its_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(1)
    rho, held, found = 0.8, 0, 0
    truth = 2 / math.pi * math.asin(rho)
    for _ in range(60):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 20).T
        result = rank_association([RankBlock(x, y[None])], resamples=299)
        held += result.low <= truth <= result.high
        found += result.p_value <= 0.05
    assert found >= 55
    assert 52 <= held <= 60  # 57 of 60 are expected; fewer than 52 happen once in 300 studies


def variants(connections: Any, operations: Any, noise: float = 0.0) -> SpreadBlock:
    values = np.array([*connections, *operations], float)[None]
    return SpreadBlock(np.arange(values.size) < len(connections), values, np.full(values.shape, noise))


def test_spread_ratio_is_the_log_ratio_of_standard_deviations() -> None:
    wide, narrow = [0.0, 1.0, 2.0, 5.0], [3.0, 3.1, 3.3, 3.2]
    result = spread_ratio([variants(wide, narrow)], resamples=99)
    assert result.effect == pytest.approx(math.log(np.std(wide, ddof=1) / np.std(narrow, ddof=1)))
    assert spread_ratio([variants(narrow, wide)], resamples=99).effect == pytest.approx(-result.effect)
    assert result.test == "all 70 exchanges of kinds"


def test_seed_noise_is_taken_off_down_to_a_twentieth() -> None:
    wide, narrow = [0.0, 1.0, 2.0, 5.0], [3.0, 3.1, 3.3, 3.2]
    noise = 0.01
    taken = spread_ratio([variants(wide, narrow, noise)], resamples=99).effect
    expected = 0.5 * math.log((np.var(wide, ddof=1) - noise) / (np.var(narrow, ddof=1) - noise))
    assert taken == pytest.approx(expected)
    floor = spread_ratio([variants(wide, narrow, 1.0)], resamples=99).effect
    expected = 0.5 * math.log((np.var(wide, ddof=1) - 1.0) / (0.05 * np.var(narrow, ddof=1)))
    assert floor == pytest.approx(expected)


def test_spread_p_value_is_the_share_of_all_exchanges_of_kinds() -> None:
    values = np.array([0.0, 1.5, -2.0, 3.0, 0.2, 0.1, -0.4])
    centered = values - np.repeat([values[:4].mean(), values[4:].mean()], [4, 3])

    def statistic(chosen: tuple[int, ...]) -> float:
        first = np.isin(np.arange(7), chosen)
        return abs(math.log(centered[first].std(ddof=1) / centered[~first].std(ddof=1)))

    every = [statistic(chosen) for chosen in combinations(range(7), 4)]
    expected = np.mean([value >= statistic((0, 1, 2, 3)) - 1e-9 for value in every])
    for shift in (0.0, 7.0):
        result = spread_ratio([variants(values[:4] + shift, values[4:])], resamples=99)
        assert result.p_value == pytest.approx(expected)


def test_means_are_taken_off_in_each_group_and_of_what_was_measured_there() -> None:
    values = [[0.0, 1.5, -2.0, 3.0, 0.2, 1.1, -1.4, 0.3], [1.0, 4.0, math.nan, 2.0, 3.0, 4.5, math.nan, 3.2]]
    first = np.arange(8) < 4
    shifts = np.array([[5.0, -1.0], [-2.0, 9.0]])  # by group and kind
    moved = np.array(values) + np.where(first, shifts[:, :1], shifts[:, 1:])
    noise = np.zeros((2, 8))
    before = spread_ratio([SpreadBlock(first, np.array(values), noise)], resamples=99)
    after = spread_ratio([SpreadBlock(first, moved, noise)], resamples=99)
    assert 0.1 < before.p_value < 0.9
    assert after.p_value == before.p_value
    assert after.group_effects == pytest.approx(before.group_effects)


@pytest.mark.parametrize("shift", [0.0, 3.0, 10.0])
def test_spread_test_is_calibrated_and_has_power(shift: float) -> None:
    rng = np.random.default_rng(2)
    null, strong = [], []
    for _ in range(100):
        a, b = rng.normal(size=13), rng.normal(size=10)
        null.append(spread_ratio([variants(a + shift, b)], resamples=99).p_value)
        strong.append(spread_ratio([variants(30 * a + shift, b)], resamples=99).p_value)
    assert np.mean(np.array(null) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)
    assert np.mean(np.array(strong) <= 0.05) >= 0.95


CELLS = [np.array(cell) for cell in ([0.3, -0.1], [0.4], [0.2, 0.05, 0.1], [-0.15], [0.6, 0.2])]


def test_paired_difference_changes_the_signs_of_whole_cells() -> None:
    result = paired_difference(CELLS, resamples=99)
    assert result.effect == pytest.approx(np.mean(np.concatenate(CELLS)))
    assert result.group_effects == pytest.approx(np.concatenate(CELLS))
    assert result.p_value == pytest.approx(paired_p([cell.tolist() for cell in CELLS]))
    assert (result.arrangements, result.test) == (32, "all 32 changes of sign of base cells")


def test_more_data_sets_of_the_same_cells_are_no_more_evidence() -> None:
    once = paired_difference(CELLS, resamples=499)
    thrice = paired_difference([np.tile(cell, 3) for cell in CELLS], resamples=499)
    for name in ("effect", "low", "high", "p_value", "arrangements"):
        assert getattr(thrice, name) == pytest.approx(getattr(once, name))


def test_paired_test_is_calibrated_where_data_sets_agree_within_a_cell() -> None:
    rng = np.random.default_rng(4)
    p_values, held = [], 0
    for _ in range(300):
        cells = list(rng.normal(size=(7, 1)) + 0.1 * rng.normal(size=(7, 3)))
        result = paired_difference(cells, resamples=299)
        p_values.append(result.p_value)
        held += result.low <= 0 <= result.high
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert held >= 0.9 * 300


def test_random_changes_of_sign_come_near_the_exact_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = paired_difference(CELLS, resamples=99).p_value
    monkeypatch.setattr(resampling, "EXACT_LIMIT", 1)
    random = paired_difference(CELLS, resamples=4999)
    assert random.test == "4999 random changes of sign of base cells"
    assert random.p_value == pytest.approx(exact, abs=3 * math.sqrt(exact / 4999))


def test_widened_interval_covers_the_mean_of_few_samples_better_than_percentiles() -> None:
    rng = np.random.default_rng(3)
    plain = widened = 0
    for _ in range(300):
        sample = rng.normal(size=6)
        draws = sample[rng.integers(0, 6, (499, 6))].mean(axis=1)
        low, high = interval(draws)
        plain += low <= 0 <= high
        low, high = interval(draws, widened_for=6)
        widened += low <= 0 <= high
    assert plain < widened
    assert widened >= 0.9 * 300


def test_an_interval_without_draws_is_nan() -> None:
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()
    assert np.isnan(interval(np.array([1.0, 2.0]), widened_for=1)).all()


def test_holm_by_hand() -> None:
    # 0.01 x 3 = 0.03, 0.02 x 2 = 0.04, 0.03 x 1 would fall below it.
    assert holm([0.02, math.nan, 0.01, 0.03]) == pytest.approx([0.04, math.nan, 0.03, 0.04], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
