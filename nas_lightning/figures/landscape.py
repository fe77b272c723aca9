"""Loss contours after figures 6 and 17 to 20 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from nas_lightning.figures.panels import (
    BELOW,
    LABEL_POINTS,
    NOTE_POINTS,
    RIGHT,
    TICK_POINTS,
    SurfacePanel,
    add_legend,
    mark_center,
    mark_values,
    plane_figure,
    set_plane,
    settle,
)

LOSS_LEVELS: tuple[float, ...] = tuple(round(0.1 + 0.5 * step, 1) for step in range(20))
"""Levels of the lines, in nat: 0.1, 0.6, ..., 9.6, that is from 0.1 up to 10 by 0.5."""
LABELLED_LEVELS: tuple[float, ...] = LOSS_LEVELS[::4]
LOSS_NORM = Normalize(0.1, 10.0)
"""The same colours for every surface of every run."""
# Lighter is larger, as in the paper; the lightest tenth would not show on white.
LOSS_COLOURS = LinearSegmentedColormap.from_list("loss", colormaps["viridis"](np.linspace(0.0, 0.9, 256)))
"""From dark (small loss) to light (large loss), in an order that colour-blind readers see."""
_STEEP = 20.0


def draw_loss_contours(
    surfaces: Sequence[SurfacePanel], *, columns: int | None = None, title: str = ""
) -> Figure:
    """Draw the level lines of loss surfaces side by side (figure 6).

    Lines stand at ``LOSS_LEVELS``, every fourth with its value, and mean the same loss in every picture of
    every run. Where the loss is beyond the last line, infinite included, the plane stays blank, as in the
    paper. Points that are NaN are hatched, points not measured yet are grey; a cross marks the trained
    weights. A coarse grid is drawn as what it is: fewer points.

    Args:
        surfaces: Loss in nat.
        columns: How many stand side by side; all of them up to four by default.
        title: What stands above all of them.

    Returns:
        The figure, with one colour bar.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    figure, planes = plane_figure(surfaces, columns, title)
    for axes, surface in zip(planes, surfaces, strict=True):
        draw_contour(axes, surface)
    add_loss_bar(figure, planes)
    add_legend(figure)
    return settle(figure, planes=planes)


def draw_contour(axes: Axes, surface: SurfacePanel) -> None:
    """Draw the level lines of one loss surface.

    Args:
        axes: Where to draw.
        surface: Loss in nat.
    """
    set_plane(axes, (surface.alphas[0], surface.alphas[-1]), (surface.betas[0], surface.betas[-1]))
    mark_values(axes, surface, infinite=False)
    # A level line between a point and one of extreme loss would cling to the former's grid line. Cut at twice
    # the last level, the line moves by less than one step of the grid; infinity lies beyond every line too.
    known = surface.is_measured & ~np.isnan(surface.values)
    losses = np.where(known, np.clip(surface.values, -_STEEP, _STEEP), np.nan)
    levels = [level for level in LOSS_LEVELS if known.any() and np.nanmin(losses) < level < np.nanmax(losses)]
    if levels:
        lines = axes.contour(
            surface.alphas,
            surface.betas,
            np.ma.masked_invalid(losses.T),
            levels=levels,
            cmap=LOSS_COLOURS,
            norm=LOSS_NORM,
            linewidths=0.9,
            corner_mask=True,
        )
        labelled = [level for level in levels if level in LABELLED_LEVELS]
        labels = axes.clabel(lines, labelled, inline=False, fmt="%.1f", fontsize=NOTE_POINTS - 0.5)
        for text in labels:
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
            text.set_clip_on(True)
    mark_center(axes)


def add_loss_bar(figure: Figure, planes: Sequence[Axes], below: bool = False) -> None:
    """Add the colour bar of the loss, the same in every figure.

    Args:
        figure: The figure.
        planes: What the bar belongs to.
        below: Whether it stands below their first column, not right of them all.
    """
    place = BELOW if below else RIGHT
    bar = figure.colorbar(
        ScalarMappable(LOSS_NORM, LOSS_COLOURS),
        ax=list(planes),
        ticks=[*LABELLED_LEVELS, LOSS_LEVELS[-1]],
        **place,
    )
    bar.set_label("loss (nat); blank: beyond 9.6", fontsize=LABEL_POINTS)
    bar.ax.tick_params(labelsize=TICK_POINTS)
