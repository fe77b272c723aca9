"""One cell against random controls: the power of its rank, against slow integrals and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_lightning.report.controls import controls_power, controls_table, detectable_difference
from nas_lightning.report.power import Noise
from tests.oracles import controls_power as oracle


@pytest.mark.parametrize(
    ("difference", "architecture", "seed", "controls", "seeds"),
    [(0.5, 0.2, 0.1, 19, 1), (0.3, 0.2, 0.6, 39, 3), (0.0, 1.0, 1.0, 40, 2), (2.0, 1.0, 0.01, 99, 1)],
)
def test_the_power_is_that_of_the_oracle(
    difference: float, architecture: float, seed: float, controls: int, seeds: int
) -> None:
    arguments = (difference, architecture, seed, controls, seeds)
    assert controls_power(*arguments) == pytest.approx(oracle.controls_power(*arguments), abs=1e-8)


def test_without_seed_noise_all_controls_must_lie_below() -> None:
    assert controls_power(1.5, 1.0, 0.0, 19) == pytest.approx(stats.norm.cdf(1.5) ** 19, rel=1e-9)


@pytest.mark.parametrize("controls", [19, 20, 38, 39, 99])
def test_a_cell_like_its_controls_is_found_at_the_rate_of_its_ranks(controls: int) -> None:
    """Without a spread of architectures all k + 1 are alike, and every rank is as likely."""
    ranks = math.floor((controls + 1) / 20)
    assert controls_power(0.0, 1e-9, 1.0, controls) == pytest.approx(ranks / (controls + 1), rel=1e-6)


def test_the_power_is_that_of_simulated_audits() -> None:
    rng, studies = np.random.default_rng(0), 20_000
    cell = 0.4 + 0.2 * rng.normal(size=(studies, 2)).mean(axis=1)
    controls = 0.2 * rng.normal(size=(studies, 19)) + 0.2 * rng.normal(size=(studies, 19, 2)).mean(axis=2)
    p_values = (1 + (controls >= cell[:, None]).sum(axis=1)) / 20
    error = 4 * math.sqrt(0.25 / studies)
    assert controls_power(0.4, 0.2, 0.2, 19, 2) == pytest.approx(np.mean(p_values <= 0.05), abs=error)


def test_fewer_than_nineteen_controls_detect_nothing() -> None:
    assert controls_power(100.0, 1.0, 1.0, 18) == 0
    assert math.isnan(detectable_difference(Noise(1.0, 1.0), 18))


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 5), st.floats(0, 1), st.floats(0, 3), st.sampled_from([19, 39, 60]), st.integers(1, 9))
def test_power_rises_with_the_difference_and_once_likely_with_seeds(
    difference: float, more: float, seed: float, controls: int, seeds: int
) -> None:
    power = controls_power(difference, 1.0, seed, controls, seeds)
    assert 0 <= power <= 1
    assert controls_power(difference + more, 1.0, seed, controls, seeds) >= power - 1e-9
    if power > 0.5:
        assert controls_power(difference, 1.0, seed, controls, seeds + 1) >= power - 1e-6


def test_the_table_has_the_difference_that_gives_the_power() -> None:
    noise = Noise(seed=0.1, architecture=0.2)
    table = controls_table(noise, (19, 99), (1, 4))
    for controls, row in table.items():
        for seeds, difference in row.items():
            assert controls_power(difference, 0.2, 0.1, controls, seeds) == pytest.approx(0.8, abs=1e-3)
    assert table[99][4] < table[99][1] < table[19][1]


def test_without_seed_noise_the_difference_is_that_of_the_best_of_the_controls() -> None:
    expected = stats.norm.ppf(0.8 ** (1 / 19))
    assert detectable_difference(Noise(0.0, 3.0), 19) / 3 == pytest.approx(expected, abs=1e-4)
    assert detectable_difference(Noise(0.0, 1.0), 39, alpha=0.025) == pytest.approx(
        stats.norm.ppf(0.8 ** (1 / 39)), abs=1e-4
    )
    with pytest.raises(ValueError, match=r"`power` \(=1\) must lie between 0 and 1"):
        detectable_difference(Noise(0.0, 1.0), 19, power=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 0.0, 0.1, 19, 1), r"`architecture` \(=0\)"),
        ((0.1, 0.2, -0.1, 19, 1), r"`seed` \(=-0\.1\)"),
        ((0.1, 0.2, 0.1, 0, 1), r"`controls` \(=0\)"),
        ((0.1, 0.2, 0.1, 19, 0), r"`seeds` \(=0\)"),
    ],
)
def test_bad_numbers_are_named(arguments: tuple[float, float, float, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        controls_power(*arguments)
