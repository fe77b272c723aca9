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
    """
    with np.errstate(invalid="ignore", over="ignore"):
        rows = np.stack([losses.mean(axis=0) for losses in runs]) if len(runs) > 1 else runs[0]
        mean = rows.mean(axis=0)
        error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(len(radii))
        low = np.maximum(mean - error, rows.min(axis=0))
        high = mean + error
    known = np.isfinite(mean)
    mean, low, high = (np.where(known, values, np.nan) for values in (mean, low, high))
    return Curve(name, np.asarray(radii, dtype=np.float64), mean, low, high, width=width, label=label)


def draw_profiles(curves: Sequence[Curve], title: str = "", note: str = "") -> Figure:
    """Draw the profiles of some architectures in one panel; a ValueError if there is none."""
    return draw_curves([CurvePanel(curves, title, "loss (nat)")], x_label=RADIUS, note=note)
