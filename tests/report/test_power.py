"""What a study can detect: calibrated without an effect, rising with effects and seeds; the noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas_lightning.report.batched import original_p_values
from nas_lightning.report.effects import RankBlock, SpreadBlock
from nas_lightning.report.original import OriginalBlock
from nas_lightning.report.power import (
    PUBLISHED,
    Effort,
    Noise,
    NoiseEstimate,
    Rate,
    detectable,
    estimate_noise,
    original_rate,
    paired_rate,
    population_tau,
    rank_rate,
    smallest_original_p,
    smallest_paired_p,
    smallest_rank_p,
    smallest_spread_p,
    spread_rate,
)
from tests.oracles.rank_association import pooled_tau

WIDTHS = np.array([2.0, 2, 2.5, 3, 3, 4])
STUDIES = 1000
NOISE = Noise(1.0, 1.0)


def ranks(seeds: float) -> Rate:
    return rank_rate([RankBlock(WIDTHS, np.full((1, 6), seeds))], NOISE, Effort(STUDIES))


def originals(seeds: float) -> Rate:
    blocks = [OriginalBlock(np.full((1, 8), seeds)) for _ in range(3)]
    return original_rate(blocks, NOISE, Effort(STUDIES))


def pairs(seeds: float) -> Rate:
    return paired_rate([np.full((2, 2), seeds) for _ in range(7)], NOISE, Effort(STUDIES))


def kinds(seeds: float) -> Rate:
    first = np.arange(12) < 6
    block = SpreadBlock(first, np.full((1, 12), seeds), np.zeros((1, 12)))
    return spread_rate([block], NOISE, Effort(STUDIES))


DESIGNS = pytest.mark.parametrize(
    ("design", "middle", "largest"),
    [(ranks, 0.9, 1.0), (originals, 1.5, 3.0), (pairs, 1.5, 3.0), (kinds, 1.0, 2.0)],
)
pytest.mark.parametrize(("design", "largest"), [(ranks, 1.0), (originals, 3.0), (pairs, 3.0), (kinds, 2.0)])


@DESIGNS
def test_without_an_effect_at_most_one_study_in_twenty_detects_one(
    design: Callable[[float], Rate], middle: float, largest: float
) -> None:
    error = 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    # The test of spreads is exact but for the kinds' means.
    error += 0.01 if design is kinds else 0.0
    assert 0 < design(1.0)(0.0) <= 0.05 + error


@DESIGNS
def test_power_rises_with_the_effect_and_with_seeds(
    design: Callable[[float], Rate], middle: float, largest: float
) -> None:
    few, many = design(1.0), design(9.0)
    rates = [few(effect) for effect in np.linspace(0, largest, 4)]
    assert all(after > before for before, after in pairwise(rates))
    assert many(middle) > few(middle) + 0.02


def test_originals_that_are_drawn_like_their_variants_are_found_as_rarely() -> None:
    rng, blocks = np.random.default_rng(0), [OriginalBlock(np.ones((1, 8)))] * 3
    p_values = original_p_values(blocks, [rng.normal(size=(STUDIES, 1, 8)) for _ in blocks])
    assert 0 < np.mean(p_values <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)


def test_an_original_among_variants_is_found_if_it_lies_far_above_them() -> None:
    assert originals(1.0)(20.0) == 1


def test_the_population_tau_is_the_mean_of_those_of_drawn_architectures() -> None:
    seeds = np.ones((2, 6))
    seeds[1, :2] = np.nan
    blocks = [RankBlock(WIDTHS, seeds), RankBlock(np.array([1.0, 2, 3]), np.ones((1, 3)))]
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        groups = []
        for block in blocks:
            scores = stats.zscore(stats.rankdata(block.predictor))
            values = 0.6 * scores + 0.8 * rng.normal(size=scores.size)
            for known in np.isfinite(block.values):
                groups.append((block.predictor[known].tolist(), values[known].tolist()))
        found.append(pooled_tau(groups))
    error = float(np.std(found)) / math.sqrt(len(found))
    assert population_tau(blocks, 0.6) == pytest.approx(np.mean(found), abs=3 * error)


def test_the_population_tau_ends_where_ties_end_it() -> None:
    block = RankBlock(WIDTHS, np.ones((1, 6)))
    assert population_tau([block], 0.0) == 0
    # 2 of 15 pairs are tied.
    assert population_tau([block], 1.0) == pytest.approx(math.sqrt(13 / 15))
    assert math.isnan(population_tau([RankBlock(np.ones(4), np.ones((1, 4)))], 0.5))


def test_the_smallest_effect_is_where_the_power_crosses() -> None:
    def rate(effect: float) -> float:
        return float(stats.norm.cdf(4 * effect - 1))

    found = detectable(rate, 1.0, studies=1000)
    margin = stats.norm.isf(0.025) * math.sqrt(0.16 / 1000)
    for value, power in ((found.effect, 0.8), (found.low, 0.8 - margin), (found.high, 0.8 + margin)):
        assert value == pytest.approx((stats.norm.isf(1 - power) + 1) / 4, abs=3e-3)
    never = detectable(lambda effect: effect / 2, 1.0)
    assert math.isnan(never.effect)


def test_a_design_has_a_smallest_p_value() -> None:
    """Two of two widths among four: six arrangements; four cells: one of eight choices and its mirror."""
    four = RankBlock(np.array([2.5, 2.5, 2, 2]), np.ones((1, 4)))
    assert smallest_rank_p([four]) == pytest.approx(2 / 6)
    assert smallest_rank_p([four, four]) == pytest.approx(2 / 36)
    assert smallest_original_p([OriginalBlock(np.ones((2, 8)))]) == pytest.approx(2 / 8)
    three = SpreadBlock(np.arange(6) < 3, np.ones((1, 6)), np.zeros((1, 6)))
    assert smallest_spread_p([three]) == pytest.approx(2 / 20)
    assert smallest_paired_p([np.ones((2, 2))] * 5) == pytest.approx(2 / 32)


def runs(values: np.ndarray, kind: str = "connections") -> pd.DataFrame:
    """Results of architectures (rows) and seeds (columns)."""
    rows = [
        {
            **{"genotype": f"cell {number}", "architecture": f"cell {number}", "kind": kind},
            **{"family": "darts_v2", "data": "CIFAR10", "learning_rate": 0.025, "regularized": False},
            "seed": seed,
            "final_accuracy": value,
        }
        for number, row in enumerate(values)
        for seed, value in enumerate(row)
        if not math.isnan(value)
    ]
    return pd.DataFrame(rows)


def test_the_variance_components_are_those_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    values = 2 * rng.normal(size=(40, 1)) + rng.normal(size=(40, 3))
    within = values.var(axis=1, ddof=1).mean()
    between = values.mean(axis=1).var(ddof=1)
    noise = estimate_noise(runs(values), "final_accuracy", ("connections",)).noise()
    assert noise.seed == pytest.approx(math.sqrt(within))
    assert noise.architecture == pytest.approx(math.sqrt(between - within / 3))


def test_results_that_lack_a_part_take_the_published_ratio() -> None:
    ratio = PUBLISHED.architecture / PUBLISHED.seed
    one_seed = estimate_noise(runs(np.array([[1.0], [2.0], [4.0]])), "final_accuracy", ("connections",))
    assert (one_seed.repeats, one_seed.contrasts) == (0, 2)
    noise = one_seed.noise()
    assert noise.architecture / noise.seed == pytest.approx(ratio)
    assert math.hypot(noise.seed, noise.architecture) == pytest.approx(np.std([1, 2, 4], ddof=1))
    one_cell = estimate_noise(runs(np.array([[1.0, 3.0]])), "final_accuracy", ("connections",))
    assert one_cell.noise().seed == pytest.approx(math.sqrt(2))
    assert one_cell.noise().architecture == pytest.approx(math.sqrt(2) * ratio)
    nothing = estimate_noise(runs(np.empty((0, 1))), "final_accuracy", ("connections",))
    assert nothing.noise().architecture == pytest.approx(PUBLISHED.architecture)
    assert nothing.noise().seed == PUBLISHED.seed
    assert nothing.noise(seed=1.0).architecture == pytest.approx(ratio)


def test_seeds_that_explain_everything_leave_a_twentieth() -> None:
    noise = NoiseEstimate(within=4.0, repeats=3, between=1.0, contrasts=3, per_seed=0.5).noise()
    assert noise.architecture == pytest.approx(math.sqrt(0.05))
