"""The points of a surface: steps along the directions, and the order in which points are measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

DIMENSIONS = ("direction_seed", "alpha", "beta")
"""Dimensions of what is measured at every point."""

MOST_STEPS = 10_000
"""Limit along one direction: a file of this many squared takes gigabytes."""
FARTHEST_STEP = 1e6
"""Limit of a step; filter normalisation makes a step of 1 as long as the weights."""


def axis(resolution: int, extent: float | int | Sequence[float | int]) -> Float[np.ndarray, " steps"]:
    """Space steps evenly along a direction.

    Args:
        resolution: Number of steps, at least 2; an odd number includes the middle.
        extent: Last step, the first being its negative; or (first, last).

    Returns:
        The steps, increasing. With an odd resolution and a symmetric extent the middle is exactly 0.

    Raises:
        ValueError: If there are fewer than two steps, or the ends are not finite or not increasing.

    Example:
        >>> axis(5, 1)
        array([-1. , -0.5,  0. ,  0.5,  1. ])
        >>> axis(3, (0, 1))
        array([0. , 0.5, 1. ])
    """
    if not isinstance(resolution, int) or isinstance(resolution, bool) or not 2 <= resolution <= MOST_STEPS:
        raise ValueError(
            f"`resolution` (={resolution}) must be at least 2, since a surface needs both ends, and at most"
            f" {MOST_STEPS}"
        )
    ends = [-extent, extent] if isinstance(extent, int | float) else list(extent)
    if len(ends) != 2 or not all(abs(end) <= FARTHEST_STEP for end in ends) or not ends[0] < ends[1]:
        raise ValueError(
            f"`extent` (={extent}) must be a positive number, or two with the lower one first, within"
            f" {FARTHEST_STEP:g}"
        )
    low, high = ends
    steps = np.linspace(low, high, resolution)
    # linspace is not symmetric to the last bit.
    return (steps - steps[::-1]) / 2 if low == -high else steps


def check_axis(
    name: str, values: Float[np.ndarray, " steps"] | Iterable[float | int]
) -> Float[np.ndarray, " steps"]:
    """Convert the steps along a direction to float64; they must be finite and increasing, at least one."""
    steps = np.array(values if hasattr(values, "__array__") else list(values), dtype=np.float64)
    if steps.ndim != 1 or not len(steps) or not np.isfinite(steps).all() or not (np.diff(steps) > 0).all():
        raise ValueError(f"`{name}` (={steps.tolist()}) must be finite, increasing numbers, at least one")
    return steps


def check_seeds(name: str, seeds: Iterable[int]) -> list[int]:
    """Check that the file format can hold seeds: different ones, at least one, each within 32 bits.

    Raises:
        ValueError: With `name` and the seed that is refused.
    """
    chosen = list(seeds) if isinstance(seeds, Iterable) else []
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`{name}` (={seeds}) must be a list of different numbers, at least one")
    for seed in chosen:
        if not -(2**31) <= seed < 2**31:
            raise ValueError(f"`{name}` (={seed}) must fit into 32 bits, the file format's integers")
    return chosen


def lattices(rows: int, columns: int) -> list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]]:
    """Divide a grid into nested sub-grids, from the ends and the middle of both axes to all steps.

    Each pair of increasing rows and columns holds the sub-grids before it; the last is the grid.
    """
    levels: list[tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]] = []
    parts = 1
    while parts < max(rows, columns) - 1 or not levels:
        parts *= 2
        levels.append((_evenly(rows, parts), _evenly(columns, parts)))
    return levels


def coarse_to_fine(rows: int, columns: int) -> list[tuple[int, int]]:
    """Order all points of a grid: the coarser sub-grids of :func:`lattices` first, each row by row.

    Example:
        >>> coarse_to_fine(2, 3)
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    order: dict[tuple[int, int], None] = {}
    for chosen_rows, chosen_columns in lattices(rows, columns):
        order |= dict.fromkeys((r, c) for r in chosen_rows.tolist() for c in chosen_columns.tolist())
    return list(order)


def measured_variables(dataset: xr.Dataset) -> tuple[str, ...]:
    """Names of the variables over (direction_seed, alpha, beta), except ``done``."""
    return tuple(
        str(name)
        for name, variable in dataset.data_vars.items()
        if variable.dims == DIMENSIONS and name != "done"
    )


def _evenly(steps: int, parts: int) -> Int[np.ndarray, " a"]:
    """Steps at the borders of equal parts; in whole numbers, so that finer parts contain the coarser."""
    return np.unique(np.arange(parts + 1) * (steps - 1) // parts)
