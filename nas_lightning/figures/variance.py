"""Surfaces as heat maps, after figure 7 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nas_lightning.figures.facts import shared_note
from nas_lightning.figures.picture import RIGHT, TICK_POINTS, add_colour_bar, settle
from nas_lightning.figures.scale import Scale, beyond, colour_scale
from nas_lightning.figures.surface import (
    SurfacePanel,
    cell_borders,
    explain_marks,
    mark_center,
    mark_values,
    plane_figure,
    set_plane,
)

HEAT_COLOURS = colormaps["viridis"]
"""Lighter is larger, as in the paper, in an order that colour-blind readers see."""


def draw_heat_maps(
    surfaces: Sequence[SurfacePanel],
    *,
    label: str = "standard deviation of the gradient",
    scale: Scale = "auto",
    vmin: float | int | None = None,
    vmax: float | int | None = None,
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Draw surfaces as heat maps side by side under one scale (figure 7).

    One cell per point. NaN is hatched, infinity crossed, points not measured yet are grey; values beyond
    given limits have the colour of the limit, which the end of the colour bar shows. A cross marks the
    trained weights.

    Args:
        surfaces: Values; figure 7 shows the standard deviation, the square root of the variance.
        label: Name of the values, with their unit.
        scale: Linear, logarithmic, or chosen by the data.
        vmin: Lower end of the colours; the smallest finite value by default.
        vmax: Upper end of the colours; the largest finite value by default.
        columns: Panels side by side; up to four by default.
        title: Title of the whole figure.

    Returns:
        The figure, with one colour bar.

    Raises:
        ValueError: If there is nothing to draw, or limits or columns are not valid.
    """
    values = [surface.finite for surface in surfaces]
    norm = colour_scale(values, scale, vmin, vmax)
    figure, planes = plane_figure(surfaces, columns, title)
    for axes, surface in zip(planes, surfaces, strict=True):
        draw_heat_map(axes, surface, norm)
    add_heat_bar(figure, planes, norm, label, values)
    explain_marks(figure)
    return settle(figure, planes=planes, note=shared_note([surface.facts for surface in surfaces]))


def draw_heat_map(axes: Axes, surface: SurfacePanel, norm: Normalize) -> None:
    """Draw one surface as a heat map in the colours of a scale."""
    x, y = cell_borders(surface.alphas), cell_borders(surface.betas)
    set_plane(axes, (x[0], x[-1]), (y[0], y[-1]))
    # A logarithmic scale knows no values of 0 and below: they have the colour of its lower end.
    shown = np.maximum(surface.finite, norm.vmin) if norm.vmin is not None else surface.finite
    axes.pcolormesh(x, y, np.ma.masked_invalid(shown.T), cmap=HEAT_COLOURS, norm=norm)
    mark_values(axes, surface, infinite=True)
    mark_center(axes)


def add_heat_bar(
    figure: Figure,
    planes: Sequence[Axes],
    norm: Normalize,
    label: str,
    values: Sequence[Float[np.ndarray, "..."]],
    place: Mapping[str, Any] = RIGHT,
) -> None:
    """Add the colour bar of heat maps; its ends are pointed where values lie beyond them."""
    colours = ScalarMappable(norm, HEAT_COLOURS)
    bar = add_colour_bar(figure, colours, planes, label, extend=beyond(norm, values), **place)
    bar.ax.yaxis.get_offset_text().set_fontsize(TICK_POINTS)
