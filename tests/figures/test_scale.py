from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm

from nas_lightning.figures.scale import beyond, colour_scale, power_of_ten
from tests.figures.surfaces import bowl


def test_the_scale_is_the_data_s_or_the_given_one() -> None:
    values = [bowl(5, 1.0).values, np.array([np.nan, np.inf, 4.0])]
    assert (colour_scale(values).vmin, colour_scale(values).vmax) == (0, 4)
    given = colour_scale(values, vmin=1, vmax=3)
    assert (given.vmin, given.vmax) == (1, 3)
    assert beyond(given, values) == "both"
    assert [
        beyond(colour_scale(values, vmin=low, vmax=high), values) for low, high in ((0, 3), (1, 5), (0, 5))
    ] == [
        "max",
        "min",
        "neither",
    ]
    # One value does not stretch the scale of all: from 30 medians on it is logarithmic.
    wide = [np.array([0.0, 1.0, 1.0, 2.0, 29.0])], [np.array([0.0, 1.0, 1.0, 2.0, 2000.0])]
    assert [isinstance(colour_scale(data), LogNorm) for data in wide] == [False, True]
    assert (colour_scale(wide[1]).vmin, colour_scale(wide[1]).vmax) == (1, 2000)
    assert not isinstance(colour_scale(wide[1], "linear"), LogNorm)
    assert not isinstance(colour_scale(wide[1], vmax=20), LogNorm)


def test_large_numbers_are_divided_by_a_power_of_ten_that_is_named() -> None:
    assert power_of_ten(234567.0) == (5, " / 10⁵")
    assert power_of_ten(9999.0) == (0, "")
    assert power_of_ten(0.005) == (-3, " / 10⁻³")
    assert power_of_ten(0.0) == (0, "")
