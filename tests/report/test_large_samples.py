from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from nas_lightning.report import effects
from nas_lightning.report.effects import RankBlock, rank_association


def made_up_blocks(sizes: tuple[int, ...] = (120, 30), *, strength: float = 0.1) -> list[RankBlock]:
    """Two settings each that share a part of an architecture; the second lacks some of them."""
    rng = np.random.default_rng(0)
    blocks = []
    for size in sizes:
        x = rng.integers(0, 8, size).astype(float)
        y = strength * x + rng.normal(size=size) + rng.normal(size=(2, size))
        y[1, : size // 6] = math.nan
        blocks.append(RankBlock(x, np.round(y, 1)))
    return blocks


def test_formulas_agree_with_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    by_formula = rank_association(made_up_blocks())
    monkeypatch.setattr(effects, "LARGE", 1000)
    resampled = rank_association(made_up_blocks())
    assert by_formula.test == "normal approximation of all permutations"
    assert by_formula.effect == pytest.approx(resampled.effect)
    assert by_formula.group_effects == pytest.approx(resampled.group_effects)
    assert by_formula.p_value == pytest.approx(resampled.p_value, abs=0.008)  # Monte Carlo: 0.003
    assert (by_formula.low, by_formula.high) == pytest.approx((resampled.low, resampled.high), abs=0.015)


def test_the_variance_is_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 150).astype(float), np.round(rng.normal(size=150), 1)
    expected = stats.kendalltau(x, y, method="asymptotic")
    result = rank_association([RankBlock(x, y[None])])
    assert result.effect == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)


def test_the_jackknife_leaves_out_one_architecture_after_the_other() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, 101).astype(float), rng.normal(size=101)
    without = [float(stats.kendalltau(np.delete(x, i), np.delete(y, i)).statistic) for i in range(101)]
    error = math.sqrt(100 / 101 * np.sum((np.array(without) - np.mean(without)) ** 2))
    result = rank_association([RankBlock(x, y[None])])
    assert result.high - result.low == pytest.approx(2 * stats.norm.isf(0.025) * error)


def test_noise_of_directions_widens_the_interval() -> None:
    blocks = made_up_blocks(strength=1.0)
    jittered = [RankBlock(one.predictor, one.values, np.full(one.values.shape, 3.0)) for one in blocks]
    sharp, noisy = rank_association(blocks), rank_association(jittered)
    assert (noisy.effect, noisy.p_value) == (sharp.effect, sharp.p_value)
    assert noisy.high - noisy.low > 1.2 * (sharp.high - sharp.low)


def test_without_differences_there_is_no_effect() -> None:
    result = rank_association([RankBlock(np.ones(101), np.arange(101.0)[None])])
    assert math.isnan(result.effect)
    assert math.isnan(result.p_value)


def test_five_thousand_cells_take_seconds_and_a_part_of_their_pairs_at_a_time() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, 5000).astype(float), rng.normal(size=(1, 5000))
    tracemalloc.start()
    start = time.perf_counter()
    result = rank_association([RankBlock(x, y)])
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 20
    assert peak < 25e6 * 8  # the pairs in float64
    assert abs(result.effect) < 0.05
