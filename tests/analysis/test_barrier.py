"""The barrier of a path between two networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from nas_lightning.analysis.barrier import Barrier, barrier, barrier_scalars

T = np.linspace(0, 1, 9)


def test_a_convex_path_has_no_barrier() -> None:
    assert barrier(T, 3 * (T - 0.3) ** 2).height == 0
    assert barrier(T, 2 * T + 1).height == pytest.approx(0, abs=1e-15)


def test_the_barrier_of_a_double_well_is_that_of_its_formula() -> None:
    # Two minima at the ends: s(t) = 16 t^2 (1 - t)^2 + t rises by 1 in the middle, above the chord t.
    assert barrier(T, 16 * T**2 * (1 - T) ** 2 + T) == Barrier(1.0, 0.5)
    assert barrier(T, -16 * T**2 * (1 - T) ** 2 + 5, is_gain=True) == Barrier(1.0, 0.5)


def test_positions_beyond_the_ends_do_not_count() -> None:
    places = np.array([-0.5, 0.0, 0.5, 1.0, 1.5])
    assert barrier(places, [9.0, 1.0, 2.0, 1.0, 9.0]) == Barrier(1.0, 0.5)


@given(st.lists(st.integers(-64, 64), min_size=3, max_size=9), st.integers(-8, 8), st.integers(-8, 8))
def test_a_barrier_turns_with_its_path_and_ignores_a_slope(values: list[int], slope: int, rise: int) -> None:
    places = np.arange(len(values)) / (len(values) - 1)
    path = np.array(values, dtype=np.float64)
    height = barrier(places, path).height
    assert barrier(1 - places, path).height == pytest.approx(height, abs=1e-12)
    assert barrier(places, path + slope * places + rise).height == pytest.approx(height, abs=1e-12)
    assert height >= 0


def test_values_that_are_not_finite_stay() -> None:
    assert barrier(T[::4], [1.0, math.inf, 1.0]) == Barrier(math.inf, 0.5)
    unknown = barrier(T[::4], [1.0, math.nan, 1.0])
    assert math.isnan(unknown.height)
    assert unknown.position == 0.5
    assert math.isnan(barrier(T[::4], [math.inf, 1.0, 1.0]).height)


def test_a_path_without_its_ends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`positions` \(=\[0.0, 0.5\]\) must hold 0 and 1"):
        barrier([0, 0.5], [1, 2])
    with pytest.raises(ValueError, match="one for each of 2 positions"):
        barrier([0, 1], [1, 2, 3])


def test_every_pair_and_split_has_its_barriers() -> None:
    losses = np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]])
    path = xr.Dataset(
        {
            "test_loss": (("pair", "position"), losses, {"units": "nat"}),
            "test_accuracy": (("pair", "position"), [[0.9, 0.5, 0.9], [0.5, 0.7, 0.9]]),
            "distance": ("pair", [1.0, 2.0]),
        },
        {"pair": [0, 1], "position": [0.0, 0.5, 1.0]},
    )
    found = barrier_scalars(path)
    assert set(found.data_vars) == {
        *("test_barrier", "test_barrier_position"),
        *("test_accuracy_barrier", "test_accuracy_barrier_position"),
    }
    assert found["test_barrier"].values.tolist() == [1.5, 0.0]
    assert found["test_barrier"].attrs["units"] == "nat"
    assert found["test_accuracy_barrier"].values == pytest.approx([0.4, 0.0])
    assert found["test_accuracy_barrier_position"].values[0] == 0.5
