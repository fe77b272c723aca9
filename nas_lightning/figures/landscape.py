"""Loss contours after figures 6 and 17 to 20 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text

from nas_lightning.figures.facts import shared_note
from nas_lightning.figures.picture import NOTE_POINTS, RIGHT, add_colour_bar, settle
from nas_lightning.figures.surface import (
    SurfacePanel,
    explain_marks,
    mark_center,
    mark_values,
    plane_figure,
    set_plane,
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
_EDGE = 0.04  # of a panel: half the height of a value


def draw_loss_contours(
    surfaces: Sequence[SurfacePanel], *, columns: int | None = None, title: str = ""
) -> Figure:
    """Draw the level lines of loss surfaces side by side (figure 6).

    Lines stand at ``LOSS_LEVELS``, every fourth with its value, in every picture of every run. Beyond the
    last line, infinity included, the plane stays blank, as in the paper; a plane whose losses lie between two
    levels says so. NaN is hatched, points not measured
    yet are grey; a cross marks the trained weights.

    Args:
        surfaces: Loss in nat.
        columns: Panels side by side; up to four by default.
        title: Title of the whole figure.

    Returns:
        The figure, with one colour bar.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    figure, planes = plane_figure(surfaces, columns, title)
    for axes, surface in zip(planes, surfaces, strict=True):
        draw_contour(axes, surface)
    add_loss_bar(figure, planes)
    explain_marks(figure)
    return settle(figure, planes=planes, note=shared_note([surface.facts for surface in surfaces]))


def draw_contour(axes: Axes, surface: SurfacePanel, *, center: bool = True) -> None:
    """Draw the level lines of one loss surface, in nat, and mark its ``center`` (0, 0)."""
    set_plane(axes, (surface.alphas[0], surface.alphas[-1]), (surface.betas[0], surface.betas[-1]))
    mark_values(axes, surface, infinite=False)
    # A level line next to a point of extreme loss would cling to its neighbour's grid line. With losses cut
    # at twice the last level it moves by less than one step of the grid; infinity lies beyond every line.
    known = surface.is_measured & ~np.isnan(surface.values)
    losses = np.where(known, np.clip(surface.values, -_STEEP, _STEEP), np.nan)
    levels = [level for level in LOSS_LEVELS if known.any() and np.nanmin(losses) < level < np.nanmax(losses)]
    if levels:
        shown = np.ma.masked_invalid(losses.T)
        style: dict[str, Any] = {"cmap": LOSS_COLOURS, "norm": LOSS_NORM, "linewidths": 0.9}
        lines = axes.contour(surface.alphas, surface.betas, shown, levels, corner_mask=True, **style)
        labelled = [level for level in levels if level in LABELLED_LEVELS]
        values = axes.clabel(lines, labelled, inline=False, fmt="%.1f", fontsize=NOTE_POINTS - 0.5)
        for text in values:
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
        _remove_unreadable(axes, values)
    else:
        _say_range(axes, losses[np.isfinite(surface.values) & known])
    if center:
        mark_center(axes)


def _say_range(axes: Axes, losses: Float[np.ndarray, " points"]) -> None:
    """Write the losses of a plane without lines: it is not blank because they lie beyond the last one."""
    if losses.size == 0 or losses.min() > LOSS_LEVELS[-1]:
        return
    ends = list(dict.fromkeys(f"{end:.4g}" for end in (losses.min(), losses.max())))
    text = f"loss {' to '.join(ends)}:\nno line"
    axes.text(0.5, 0.25, text, transform=axes.transAxes, ha="center", va="center", fontsize=NOTE_POINTS)


def _remove_unreadable(axes: Axes, values: Sequence[Text]) -> None:
    """Remove the values of lines that the frame would cut, or that would cover one another."""
    kept: list[np.ndarray] = []
    for text in values:
        place = axes.transAxes.inverted().transform(axes.transData.transform(text.get_position()))
        is_inside = bool((place > _EDGE).all() and (place < 1 - _EDGE).all())
        if is_inside and all(np.hypot(*(place - other)) > 2 * _EDGE for other in kept):
            kept.append(place)
        else:
            text.remove()


def add_loss_bar(figure: Figure, planes: Sequence[Axes], place: Mapping[str, Any] = RIGHT) -> None:
    """Add the colour bar of the loss, the same in every figure."""
    ticks = [*LABELLED_LEVELS, LOSS_LEVELS[-1]]
    label = "loss (nat); blank: beyond 9.6"
    add_colour_bar(figure, ScalarMappable(LOSS_NORM, LOSS_COLOURS), planes, label, ticks=ticks, **place)
