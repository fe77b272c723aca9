"""Steps along a direction, and the order of a grid's points."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from nas_lightning.analysis.grid import axis, coarse_to_fine, lattices


@pytest.mark.parametrize("resolution", [2, 3, 4, 21, 51, 101])
@pytest.mark.parametrize("extent", [1, 0.1, 0.7, (-1, 2.5)])
def test_axis_is_even_and_holds_zero(resolution: int, extent: float | tuple[float, float]) -> None:
    steps = axis(resolution, extent)
    low, high = extent if isinstance(extent, tuple) else (-extent, extent)
    assert steps[0] == low
    assert steps[-1] == high
    assert len(steps) == resolution
    np.testing.assert_allclose(np.diff(steps), (high - low) / (resolution - 1), rtol=1e-12)
    if low == -high:
        assert np.array_equal(steps, -steps[::-1])
        assert (0.0 in steps) == (resolution % 2 == 1)


@pytest.mark.parametrize(
    ("resolution", "extent", "message"),
    [
        (1, 1.0, r"`resolution` \(=1\) must be at least 2"),
        (-3, 1.0, r"`resolution` \(=-3\)"),
        (5, 0.0, r"`extent` \(=0.0\)"),
        (5, -1.0, r"`extent` \(=-1.0\)"),
        (5, (1.0, -1.0), r"`extent` \(=\(1.0, -1.0\)\)"),
        (5, math.inf, r"`extent` \(=inf\)"),
        (5, (0.0, math.nan), r"`extent` \(=\(0.0, nan\)\)"),
        (5, (0.0, 1.0, 2.0), r"`extent` \(=\(0.0, 1.0, 2.0\)\)"),
    ],
)
def test_axis_refuses(resolution: int, extent: float | tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        axis(resolution, extent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 3), (5, 4), (9, 9), (21, 51), (51, 51)])
def test_every_point_comes_once_from_coarse_to_fine(shape: tuple[int, int]) -> None:
    order = coarse_to_fine(*shape)
    assert sorted(order) == [(row, column) for row in range(shape[0]) for column in range(shape[1])]
    reached = 0
    gaps: list[int] = []
    for rows, columns in lattices(*shape):
        points = {(row, column) for row in rows.tolist() for column in columns.tolist()}
        assert set(order[: len(points)]) == points  # a level begins when the one before it is done
        assert order[reached : len(points)] == sorted(order[reached : len(points)])  # row by row
        assert (rows[0], rows[-1]) == (0, shape[0] - 1)
        assert (columns[0], columns[-1]) == (0, shape[1] - 1)
        if shape[0] % 2:
            assert shape[0] // 2 in rows
        reached = len(points)
        gaps.append(max([1, *np.diff(rows).tolist(), *np.diff(columns).tolist()]))
    assert gaps[-1] == 1
    assert all(after <= math.ceil(before / 2) for before, after in pairwise(gaps))
