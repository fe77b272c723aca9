from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from nas_lightning.report import resampling
from nas_lightning.report.original import OriginalBlock, original_rank


def original(*groups: list[float]) -> OriginalBlock:
    return OriginalBlock(np.array(groups, float))


@pytest.mark.parametrize(
    ("value", "percentile", "p_value"),
    [(9.0, 1.0, 2 / 6), (0.0, 0.0, 2 / 6), (3.0, 0.5, 1.0), (3.5, 0.6, 1.0)],
)
def test_the_rank_among_five_variants(value: float, percentile: float, p_value: float) -> None:
    result = original_rank([original([value, 1, 2, 3, 4, 5])])
    assert result.effect == pytest.approx(percentile)
    assert result.p_value == pytest.approx(p_value)
    assert result.test == "all 6 choices of the original"
    assert result.low <= percentile <= result.high


def test_base_cells_are_combined_by_all_choices() -> None:
    rng = np.random.default_rng(0)
    cells = [rng.normal(size=(2, 5)), rng.normal(size=(1, 4)), rng.normal(size=(1, 6))]
    result = original_rank([OriginalBlock(values) for values in cells])

    def mean(choice: tuple[int, ...]) -> float:
        total = weight = 0.0
        for values, chosen in zip(cells, choice, strict=True):
            for group in values:
                others = np.delete(group, chosen)
                total += len(others) * (
                    np.mean(others < group[chosen]) + np.mean(others == group[chosen]) / 2
                )
                weight += len(others)
        return total / weight

    every = [mean(choice) for choice in product(*(range(values.shape[1]) for values in cells))]
    assert result.effect == pytest.approx(mean((0, 0, 0)))
    far = np.abs(np.array(every) - 0.5) >= abs(result.effect - 0.5) - 1e-9
    assert result.p_value == pytest.approx(far.mean())
    assert result.arrangements == len(every) == 5 * 4 * 6


def test_random_choices_come_near_all(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [original([4.5, 1, 2, 3, 4, 5, 6]), original([2.5, 1, 2, 3, 4])]
    exact = original_rank(blocks).p_value
    monkeypatch.setattr(resampling, "EXACT_LIMIT", 1)
    assert original_rank(blocks, resamples=4999).p_value == pytest.approx(exact, abs=0.03)


def test_settings_of_one_base_cell_are_no_more_evidence() -> None:
    values = [5.5, 1, 2, 3, 4, 5, 6]
    once, thrice = original_rank([original(values)]), original_rank([original(values, values, values)])
    for name in ("effect", "low", "high", "p_value"):
        assert getattr(thrice, name) == pytest.approx(getattr(once, name))


def test_a_group_without_its_original_does_not_count() -> None:
    values = [5.5, 1, 2, 3, 4, 5, 6]
    without = original_rank([original(values, [math.nan, *values[1:]])])
    assert without.effect == pytest.approx(original_rank([original(values)]).effect)
    assert math.isnan(without.group_effects[1])
    assert math.isnan(original_rank([original([math.nan, 1, 2, 3])]).effect)
    assert math.isnan(original_rank([]).p_value)


def test_the_interval_is_that_of_a_share() -> None:
    """Clopper and Pearson: 13 of 13 gives 0.025 ** (1 / 13)."""
    best = original_rank([original([99.0, *range(13)])])
    assert (best.low, best.high) == pytest.approx((0.025 ** (1 / 13), 1.0))
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        share = rng.uniform()
        result = original_rank([OriginalBlock(np.array([[share, *rng.uniform(size=13)]]))])
        held += result.low <= share <= result.high
    assert held >= 0.95 * 300 - 6
