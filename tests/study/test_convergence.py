from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_lightning.study.convergence import (
    area_under,
    convergence_statistics,
    epochs_to,
    has_diverged,
    oscillation,
)

NAN, INF = math.nan, math.inf
CURVES = st.lists(st.floats(0, 10), min_size=1, max_size=30)


def test_epochs_count_from_one_and_the_threshold_itself_counts() -> None:
    assert epochs_to([0.9, 0.1], 0.9, rising=True) == 1
    assert epochs_to([0.1, 0.5, 0.3, 0.7], 0.5, rising=True) == 2
    assert epochs_to([3.0, 1.0, 0.4], 0.5, rising=False) == 3
    assert math.isnan(epochs_to([0.1, 0.2], 0.5, rising=True))
    assert math.isnan(epochs_to([], 0.5, rising=True))


def test_float32_rounding_does_not_hide_that_a_threshold_is_reached() -> None:
    assert float(np.float32(342) / np.float32(360)) < 0.95
    assert epochs_to(np.array([341, 342], np.float32) / np.float32(360), 0.95, rising=True) == 2
    assert epochs_to([0.5 + 1e-5, float(np.float32(0.5) + np.float32(6e-8))], 0.5, rising=False) == 2


def test_what_is_no_number_reaches_nothing() -> None:
    assert epochs_to([NAN, INF, 0.2], 0.5, rising=False) == 3
    assert epochs_to([NAN, 0.6], 0.5, rising=True) == 2
    assert math.isnan(epochs_to([NAN, NAN], 0.5, rising=False))


@given(CURVES, st.floats(0, 10))
def test_falling_is_rising_upside_down_and_harder_thresholds_take_longer(
    curve: list[float], threshold: float
) -> None:
    falling = epochs_to(curve, threshold, rising=False)
    mirrored = epochs_to([-value for value in curve], -threshold, rising=True)
    assert falling == mirrored or (math.isnan(falling) and math.isnan(mirrored))
    slow = next((epoch for epoch, value in enumerate(curve, start=1) if value <= threshold * (1 + 1e-6)), NAN)
    assert falling == slow or (math.isnan(falling) and math.isnan(slow))
    harder = epochs_to(curve, threshold / 2, rising=False)
    assert math.isnan(harder) or falling <= harder


def test_steps_are_epochs_times_the_steps_of_one() -> None:
    curves = {"loss": [2.0, 0.4], "accuracy": [0.1, 0.9], "train_loss": [2.0, 0.4]}
    statistics = convergence_statistics(curves, 10, 29)
    assert statistics["steps_to_loss_0.5"] == statistics["steps_to_accuracy_0.9"] == 58
    assert math.isnan(statistics["steps_to_loss_0.2"])
    with pytest.raises(ValueError, match=r"`steps_per_epoch` \(=0\) must be at least 1"):
        convergence_statistics(curves, 10, 0)


@pytest.mark.parametrize("epochs", [1, 2, 7, 600])
def test_area_of_a_straight_line_and_of_a_geometric_decay(epochs: int) -> None:
    epoch = np.arange(1, epochs + 1)
    assert area_under(3.0 - 0.004 * epoch) == pytest.approx(3.0 - 0.004 * (epochs + 1) / 2, rel=1e-12)
    decay = 0.9
    expected = decay * (1 - decay**epochs) / (1 - decay) / epochs
    assert area_under(decay**epoch) == pytest.approx(expected, rel=1e-12)


def test_area_is_cut_at_the_ceiling_and_keeps_what_is_no_number() -> None:
    assert area_under([14.5, 1.0, 0.5], 2.0) == pytest.approx(3.5 / 3)
    assert area_under([INF, 1.0], 2.0) == 1.5
    assert area_under([INF, 1.0]) == INF
    assert math.isnan(area_under([NAN, 1.0], 2.0))
    assert math.isnan(area_under([]))


def test_oscillation_is_the_standard_deviation_of_white_noise_on_a_line() -> None:
    noise = np.random.default_rng(0).normal(0, 0.03, 200_000)
    assert oscillation(noise + np.linspace(5, -5, noise.size)) == pytest.approx(0.03, rel=0.01)


@given(st.integers(3, 50), st.floats(-1, 1), st.floats(-5, 5))
def test_oscillation_of_a_line_is_zero(epochs: int, slope: float, offset: float) -> None:
    assert oscillation(offset + slope * np.arange(epochs)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("epochs", [3, 4, 5, 6, 100])
def test_oscillation_of_a_zigzag_and_of_a_parabola(epochs: int) -> None:
    epoch = np.arange(epochs)
    assert oscillation(0.2 * (-1.0) ** epoch) == pytest.approx(0.2 * math.sqrt(8 / 3))
    assert oscillation(0.5 * epoch**2) == pytest.approx(1 / math.sqrt(6))


def test_oscillation_is_that_of_the_second_half() -> None:
    flat = np.zeros(10)
    flat[:5] = [50.0, NAN, INF, -7.0, 3.0]
    assert oscillation(flat) == 0
    flat[5] = 1.0  # the first of the last five epochs: second differences 1, 0, 0
    assert oscillation(flat) == pytest.approx(math.sqrt(1 / 3 / 6))
    flat[7] = INF
    assert math.isnan(oscillation(flat))
    assert math.isnan(oscillation([1.0, 2.0]))


@pytest.mark.parametrize(
    ("loss", "train_loss", "accuracy", "classes", "diverged"),
    [
        (0.5, 0.1, 0.9, 10, False),
        (9.0, 0.1, 0.6, 10, False),  # overconfident, but it classifies
        (0.5, math.log(10), 0.9, 10, True),
        (0.5, math.log(10) - 1e-9, 0.9, 10, False),
        (2.3, 2.302, 0.15, 10, True),
        (2.3, 2.302, 0.1501, 10, False),
        (4.6, 4.0, 0.0151, 100, False),
        (4.6, 4.6052, 0.02, 100, True),
        (NAN, 0.1, 0.9, 10, True),
        (INF, 0.1, 0.9, 10, True),
        (0.5, NAN, 0.9, 10, True),
        (0.5, 0.1, NAN, 10, True),
    ],
)
def test_divergence(loss: float, train_loss: float, accuracy: float, classes: int, diverged: bool) -> None:
    assert has_diverged(loss, train_loss, accuracy, classes) is diverged


def test_measures_of_a_run_worked_out_by_hand() -> None:
    curves = {
        "loss": [14.0, 0.9, 0.5, 0.1],
        "accuracy": [0.1, 0.5, 0.85, 0.96],
        "train_loss": [2.0, 1.0, 0.5, 0.2],
    }
    statistics = convergence_statistics(curves, num_classes=10, steps_per_epoch=5)
    expected = {
        **{"epochs_to_accuracy_0.5": 2, "epochs_to_accuracy_0.8": 3},
        **{"epochs_to_accuracy_0.9": 4, "epochs_to_accuracy_0.95": 4},
        **{"steps_to_accuracy_0.5": 10, "steps_to_accuracy_0.8": 15},
        **{"steps_to_accuracy_0.9": 20, "steps_to_accuracy_0.95": 20},
        **{"epochs_to_loss_1": 2, "epochs_to_loss_0.5": 3, "epochs_to_loss_0.2": 4},
        **{"steps_to_loss_1": 10, "steps_to_loss_0.5": 15, "steps_to_loss_0.2": 20},
        "area_under_loss": 15.5 / 4,
        "area_under_loss_clipped": (math.log(10) + 1.5) / 4,
        "mean_error": 1 - 2.41 / 4,
        # The last three values: one second difference.
        "oscillation_loss": abs(0.1 - 2 * 0.5 + 0.9) / math.sqrt(6),
        "oscillation_accuracy": abs(0.96 - 2 * 0.85 + 0.5) / math.sqrt(6),
        "diverged": False,
    }
    assert statistics.keys() == expected.keys()
    assert statistics == pytest.approx(expected, abs=1e-12)
    assert convergence_statistics(pd.DataFrame(curves), 10, 5) == statistics


def test_epochs_without_an_evaluation_are_left_out_and_keep_their_numbers() -> None:
    curves = {
        "loss": [NAN, 0.8, NAN, 0.4, NAN],
        "accuracy": [NAN, 0.7, NAN, 0.9, NAN],
        "train_loss": [2.0, 1.5, 1.0, 0.5, 0.4],
    }
    statistics = convergence_statistics(curves, 10, 3)
    assert statistics["epochs_to_accuracy_0.8"] == 4
    assert statistics["steps_to_loss_1"] == 6
    assert statistics["area_under_loss"] == pytest.approx(0.6)
    assert statistics["mean_error"] == pytest.approx(0.2)
    assert statistics["diverged"] is False


def test_a_loss_of_nan_stays_visible() -> None:
    """A network whose outputs are NaN has an accuracy: the first class wins."""
    curves = {"loss": [1.0, NAN, NAN], "accuracy": [0.6, 0.1, 0.1], "train_loss": [1.0, NAN, NAN]}
    statistics = convergence_statistics(curves, 10, 3)
    assert statistics["diverged"] is True
    assert math.isnan(statistics["area_under_loss"])
    assert statistics["area_under_loss_clipped"] == pytest.approx((1.0 + 2 * math.log(10)) / 3)
    assert math.isnan(statistics["oscillation_loss"])
    assert statistics["epochs_to_loss_1"] == 1
    assert statistics["mean_error"] == pytest.approx(1 - 0.8 / 3)


@pytest.mark.parametrize(("train_loss", "diverged"), [(0.5, False), (2.4, True), (NAN, True)])
def test_a_run_that_was_never_evaluated_is_judged_by_its_training_loss(
    train_loss: float, diverged: bool
) -> None:
    statistics = convergence_statistics({"loss": [NAN], "accuracy": [NAN], "train_loss": [train_loss]}, 10, 3)
    assert statistics.pop("diverged") is diverged
    assert all(math.isnan(value) for value in statistics.values())


def test_curves_that_do_not_fit_are_refused() -> None:
    curves = {"loss": [1.0, 2.0], "accuracy": [0.5], "train_loss": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"2 \(`loss`\), 1 \(`accuracy`\) and 2 \(`train_loss`\) epochs"):
        convergence_statistics(curves, 10, 3)
    with pytest.raises(ValueError, match="this array has the shape"):
        area_under([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"`num_classes` \(=1\) must be at least 2"):
        has_diverged(0.1, 0.1, 0.9, 1)
