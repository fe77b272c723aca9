from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_lightning.report.partial import PartialBlock, partial_association
from nas_lightning.report.resampling import TestResult as Result
from tests.oracles.partial_rank import freedman_lane_p, partial_rank_correlation


def test_effect_and_p_value_are_those_of_least_squares_and_all_permutations() -> None:
    rng = np.random.default_rng(0)
    x, z = [1.5, 2.0, 2.0, 2.5, 3.0, 3.5, 3.5], rng.normal(size=7)
    y = rng.normal(size=7) + 2 * z
    result = partial_association([PartialBlock(np.array(x), z[None, None], y[None])], resamples=99)
    assert result.effect == pytest.approx(partial_rank_correlation(x, [z.tolist()], y.tolist()))
    assert result.test == "all 5040 exchanges of residuals"
    assert result.p_value == pytest.approx(freedman_lane_p(x, [z.tolist()], y.tolist()))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_monotone_transforms_of_the_statistic_and_shifts_of_a_covariate_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, z, y = rng.integers(0, 5, 13).astype(float), rng.normal(size=(2, 1, 13)), rng.normal(size=(1, 13))
    before = partial_association([PartialBlock(x, z, y)], resamples=99)
    after = partial_association([PartialBlock(np.exp(x), 3 * z - 7, np.exp(y))], resamples=99)
    assert numbers(after) == pytest.approx(numbers(before))
    mirrored = partial_association([PartialBlock(x, z, -y)], resamples=99)
    assert mirrored.effect == pytest.approx(-before.effect)
    assert mirrored.p_value == pytest.approx(before.p_value)


def numbers(result: Result) -> tuple[float, float, float, float]:
    return result.effect, result.low, result.high, result.p_value


def test_what_a_covariate_tells_is_taken_off_and_what_it_leaves_is_found() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=60)
    x = z + 0.5 * rng.normal(size=60)
    through = partial_association([PartialBlock(x, z[None, None], (z + 0.3 * rng.normal(size=60))[None])])
    beside = partial_association([PartialBlock(x, z[None, None], (x + 0.3 * rng.normal(size=60))[None])])
    assert through.p_value > 0.05
    assert beside.p_value < 0.001
    assert beside.low > 0.3


def test_a_covariate_is_held_fixed_within_groups_and_architectures_move_as_a_whole() -> None:
    rng = np.random.default_rng(2)
    x, z, y = rng.normal(size=13), rng.normal(size=(1, 2, 13)), rng.normal(size=(2, 13))
    both = partial_association([PartialBlock(x, z, y)], resamples=99)
    alone = [
        partial_association([PartialBlock(x, z[:, [group]], y[[group]])], resamples=99) for group in (0, 1)
    ]
    assert both.group_effects == pytest.approx([one.effect for one in alone])
    # A second group that repeats the first is no more evidence.
    once = partial_association([PartialBlock(x, z[:, [0]], y[[0]])], resamples=499)
    twice = partial_association([PartialBlock(x, z[:, [0, 0]], y[[0, 0]])], resamples=499)
    assert numbers(twice) == pytest.approx(numbers(once))


def test_architectures_without_a_value_or_a_covariate_do_not_count() -> None:
    rng = np.random.default_rng(3)
    x, z, y = rng.normal(size=13), rng.normal(size=(1, 1, 13)), rng.normal(size=(1, 13))
    x[2], z[0, 0, 5], y[0, 7] = math.nan, math.nan, math.nan
    known = np.delete(np.arange(13), [2, 5, 7])
    part = PartialBlock(x, z, y)
    whole = PartialBlock(x[known], z[:, :, known], y[:, known])
    results = [partial_association([one], resamples=1999) for one in (part, whole)]
    assert results[0].effect == pytest.approx(results[1].effect)
    assert results[0].p_value == pytest.approx(results[1].p_value, abs=0.05)
    assert part.weights == pytest.approx(whole.weights)


@pytest.mark.parametrize(
    ("predictor", "covariate"),
    [
        ([2.0] * 9, range(9)),  # no differences
        (range(9), range(9)),  # the covariate tells all
    ],
)
def test_nothing_is_left_to_test(predictor: list[float], covariate: list[float]) -> None:
    x, z = np.array(predictor, float), np.array(covariate, float)
    y = np.random.default_rng(0).normal(size=(1, 9))
    result = partial_association([PartialBlock(x, z[None, None], y)], resamples=9)
    assert math.isnan(result.effect)
    assert math.isnan(result.p_value)


@pytest.mark.parametrize(("size", "tested"), [(6, False), (7, True)])
def test_a_group_needs_five_architectures_more_than_columns(size: int, tested: bool) -> None:
    rng = np.random.default_rng(4)
    block = PartialBlock(rng.normal(size=size), rng.normal(size=(1, 1, size)), rng.normal(size=(1, size)))
    assert math.isnan(partial_association([block], resamples=9).effect) != tested


def test_a_constant_covariate_holds_nothing_fixed() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=9), rng.normal(size=(1, 9))
    constant = partial_association([PartialBlock(x, np.full((1, 1, 9), 0.1), y)], resamples=99)
    scores = stats.norm.ppf((stats.rankdata(y[0]) - 0.5) / 9)
    assert constant.effect == pytest.approx(np.corrcoef(stats.rankdata(x), scores)[0, 1])


def test_noise_of_directions_widens_the_interval_and_nothing_else() -> None:
    rng = np.random.default_rng(6)
    x = np.arange(40.0)
    z, y = rng.normal(size=(1, 1, 40)), (x + rng.normal(size=40))[None]
    sharp = partial_association([PartialBlock(x, z, y)], resamples=499)
    noisy = partial_association([PartialBlock(x, z, y, np.full((1, 40), 8.0))], resamples=499)
    assert (noisy.effect, noisy.p_value) == (sharp.effect, sharp.p_value)
    assert noisy.low < sharp.low
    assert noisy.high - noisy.low > 1.5 * (sharp.high - sharp.low)
