"""The barrier of a path between two networks: how far the loss rises above the straight line of its ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together


@dataclass(frozen=True)
class Barrier:
    """The height of a barrier, in the unit of the values, and the position t where it is reached."""

    height: float
    position: float


def barrier(
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    values: Float[np.ndarray, " position"] | Iterable[float | int],
    *,
    is_gain: bool = False,
) -> Barrier:
    """Compute the barrier of a path, max_t [s(t) - ((1 - t) s(0) + t s(1))] over the positions in [0, 1].

    The ends count, so the barrier is at least 0; it is 0 where s is convex. Between the positions s may be
    higher: the barrier is a lower bound. Sources: Entezari et al., *The role of permutation invariance in
    linear mode connectivity of neural networks* (ICLR 2022), equation 1. Frankle et al., *Linear mode
    connectivity and the lottery ticket hypothesis* (ICML 2020), section 2, subtract the mean of the ends,
    which is the same where these are equal.

    Args:
        positions: Increasing, with 0 and 1 among them; those beyond do not count.
        values: s at the positions.
        is_gain: Whether a larger value is better, as of an accuracy. The barrier is then how far it falls:
            that of -s.

    Returns:
        Height and position: of equal heights the first position. Infinite where s is; NaN where s is NaN
        somewhere, or not finite at an end.

    Raises:
        ValueError: If the positions lack an end, or are not as many as the values.

    Example:
        >>> barrier([0, 0.25, 0.5, 1], [1, 3, 2, 2])
        Barrier(height=1.75, position=0.25)
    """
    places = np.asarray(positions, dtype=np.float64)
    signed = np.asarray(values, dtype=np.float64) * (-1 if is_gain else 1)
    if places.shape != signed.shape or places.ndim != 1:
        raise ValueError(
            f"`values` (of shape {signed.shape}) must be one for each of {places.size} positions"
        )
    if not {0.0, 1.0} <= set(places.tolist()):
        raise ValueError(f"`positions` (={places.tolist()}) must hold 0 and 1, the ends of the path")
    inside = (places >= 0) & (places <= 1)
    places, signed = places[inside], signed[inside]
    order = np.argsort(places, kind="stable")
    places, signed = places[order], signed[order]
    unknown = np.isnan(signed)
    if unknown.any() or not np.isfinite(signed[[0, -1]]).all():
        return Barrier(math.nan, float(places[int(unknown.argmax())]) if unknown.any() else math.nan)
    heights = signed - ((1 - places) * signed[0] + places * signed[-1])
    highest = int(heights.argmax())
    return Barrier(float(heights[highest]), float(places[highest]))


def barrier_scalars(path: xr.Dataset) -> xr.Dataset:
    """Compute the barriers of every path and every split.

    Args:
        path: ``SPLIT_loss`` and ``SPLIT_accuracy`` over (pair, position), whatever the first dimension is
            called.

    Returns:
        Over the first dimension: ``SPLIT_barrier``, that of the loss (nat), ``SPLIT_accuracy_barrier``, how
        far the accuracy falls below the straight line (a fraction), and for each of them
        ``..._position``.

    Raises:
        ValueError: If the positions lack an end.
    """
    import xarray as xr

    found = {}
    for name, variable in path.data_vars.items():
        split, _, kind = str(name).rpartition("_")
        if "position" not in variable.dims or variable.ndim != 2 or kind not in ("loss", "accuracy"):
            continue
        [rows] = [dimension for dimension in variable.dims if dimension != "position"]
        is_gain = kind == "accuracy"
        values = variable.transpose(rows, "position").values
        barriers = [barrier(path["position"].values, row, is_gain=is_gain) for row in values]
        stem = f"{split}_accuracy_barrier" if is_gain else f"{split}_barrier"
        what = f"barrier of the {split} {kind}"
        unit = variable.attrs.get("units", "1")
        found[stem] = (rows, [one.height for one in barriers], {"long_name": what, "units": unit})
        where = {"long_name": f"position of the {what}", "units": "1"}
        found[f"{stem}_position"] = (rows, [one.position for one in barriers], where)
    return xr.Dataset(found)
