"""The loss along random directions: a mean curve an architecture, with a band of its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves

if TYPE_CHECKING:
    import xarray as xr

RADIUS = "radius (in norms of the filters)"
"""Name of the horizontal axis."""
PARABOLA = "parabola of the second derivative at w*"
"""Name of the dotted lines."""


def finished_losses(profile: xr.Dataset) -> Float[np.ndarray, "direction radius"]:
    """Losses of the directions that are measured completely, of the dataset of a loss profile."""
    done = profile["done"].transpose("direction_seed", "radius").values.astype(bool).all(axis=1)
    losses: np.ndarray = profile["loss"].transpose("direction_seed", "radius").values[done]
    return losses.astype(np.float64)


def profile_curve(
    runs: Sequence[Float[np.ndarray, "_ radius"]],
    radii: Float[np.ndarray, " radius"],
    name: str,
    *,
    width: float | int = 0,
    label: str = "",
    curvature: tuple[float, float] | None = None,
) -> Curve:
    """The mean loss of an architecture's runs along their directions, and one standard error around it.

    The mean is that of the runs' means over directions. Its standard error comes from the spread of these
    means, which holds the noise of the directions too; for a single run from the spread over directions. A
    band does not reach below the smallest loss, so that a logarithmic scale can show it. Where a loss is not
    finite, neither is the mean.

    Args:
        runs: Losses of each run, over directions and radii.
        radii: Increasing.
        name: The architecture, see :class:`Curve`.
        width: Width of the cell, which orders the colours.
        label: Name in the legend; ``name`` by default.
        curvature: Second derivative c at radius 0 and its standard error, of a single run: the parabola
            s(0) + c r^2 / 2 is drawn beside the mean.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        rows = np.stack([losses.mean(axis=0) for losses in runs]) if len(runs) > 1 else runs[0]
        mean = rows.mean(axis=0)
        error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(len(radii))
        low = np.maximum(mean - error, rows.min(axis=0))
        high = mean + error
    known = np.isfinite(mean)
    mean, low, high = (np.where(known, values, np.nan) for values in (mean, low, high))
    places = np.asarray(radii, dtype=np.float64)
    guide = None if curvature is None else _parabola(float(mean[0]), *curvature, places)
    return Curve(name, places, mean, low, high, width=width, label=label, guide=guide)


def read_curvature(profile: xr.Dataset) -> tuple[float, float] | None:
    """Second derivative at radius 0 and its standard error; None where a file does not have them."""
    if "second_derivative" not in profile:
        return None
    return float(profile["second_derivative"]), float(profile["second_derivative_standard_error"])


def _parabola(
    start: float, curvature: float, error: float, radii: Float[np.ndarray, " radius"]
) -> Float[np.ndarray, "3 radius"]:
    """s(0) + c r^2 / 2, with c one standard error lower, as it is, and one higher."""
    margin = error if np.isfinite(error) else 0.0
    return np.stack([start + (curvature + side * margin) * radii**2 / 2 for side in (-1, 0, 1)])


def draw_profiles(curves: Sequence[Curve], title: str = "", note: str = "") -> Figure:
    """Draw the profiles of some architectures in one panel; a ValueError if there is none."""
    return draw_curves([CurvePanel(curves, title, "loss (nat)")], x_label=RADIUS, note=note, guide=PARABOLA)
