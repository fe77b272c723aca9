"""Architectures in the plane of width and depth, over the distribution of all wirings of their space."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from nas_lightning.figures.picture import (
    NOTE_POINTS,
    add_colour_bar,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
    wrap,
)
from nas_lightning.figures.scale import Scale, colour_scale

MEASURE_COLOURS = colormaps["viridis"]
"""Lighter is larger, in an order that colour-blind readers see."""

_SQUARE_WIDTH = 0.92
_SQUARE_HEIGHT = 0.74
_SHARE_HEIGHT = 0.16
_LABELLED = 6
_LABEL_POINTS = 6.5
# Greys of the squares, from the rarest place to the most frequent one.
_GREYS = (0.965, 0.78)


@dataclass(frozen=True, eq=False)
class WidthDepthPlane:
    """Architectures of one space.

    Attributes:
        names: Name of each architecture; an empty one is an original cell, drawn as a diamond without a name.
        widths: Width of each in units of c.
        depths: Depth of each.
        values: The statistic that colours each; NaN where it has none.
        counts: Number of wirings of the space at every (width, depth); empty where they are not counted.
        title: Title of the panel.
    """

    names: Sequence[str]
    widths: Sequence[float | int]
    depths: Sequence[int]
    values: Float[np.ndarray, " architecture"]
    counts: Mapping[tuple[float | int, int], int]
    title: str = ""


def draw_width_depth(
    planes: Sequence[WidthDepthPlane],
    *,
    label: str,
    scale: Scale = "auto",
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Draw architectures as marks coloured by a statistic, over all wirings of their space.

    A grey square is a pair of width and depth that some wiring has, with the share of all wirings that have
    it; darker is more frequent. Marks in one square stand side by side; more than six in a square are small
    and have no names. Diamonds are original cells, hollow marks have no value. All panels have one colour
    scale and the same axes.

    Args:
        planes: The spaces, from left to right and from top to bottom.
        label: Name of the statistic, with its unit.
        scale: Scale of the colours: linear, logarithmic, or chosen by the data.
        columns: Panels side by side; one by default.
        title: Title of the whole figure.

    Returns:
        The figure, with one colour bar.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, down = grid_of(len(planes), columns, default=1)
    norm = colour_scale([plane.values for plane in planes], scale)
    left, right, bottom, top = _limits(planes)
    widest, tallest = (right - left) * 2 * _SQUARE_WIDTH, (top - bottom) * _SQUARE_HEIGHT
    figure = new_figure(across * (widest + 0.6) + 0.9, down * (tallest + 0.75) + 0.35, title)
    all_axes = [figure.add_subplot(down, across, index + 1) for index in range(len(planes))]
    for axes, plane in zip(all_axes, planes, strict=True):
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        _draw_plane(axes, plane, norm)
        label_axes(axes, plane.title, "width (c)", "depth")
        axes.tick_params(length=0)
        open_axes(axes)
    if any(np.isfinite(plane.values).any() for plane in planes):
        # As high as two rows at most, at the top of the figure.
        share = min(1.0, 2 / down)
        place = {"pad": 0.02, "aspect": 30, "shrink": share, "anchor": (0.0, 1.0)}
        wrapped = "\n".join(wrap(label, 0.9 * share * down * tallest))
        add_colour_bar(figure, ScalarMappable(norm, MEASURE_COLOURS), all_axes, wrapped, **place)
    names = [name for plane in planes for name in plane.names]
    handles: dict[str, Artist] = {}
    if not all(names):
        handles["original cell"] = _mark("D", 6, "#4D4D4D")
    if any(names):
        handles["variant"] = _mark("o", 7, "#4D4D4D")
    if any(not np.isfinite(plane.values).all() for plane in planes):
        handles["without a value"] = _mark("o", 7, "none")
    if any(plane.counts for plane in planes):
        handles["share of all wirings"] = Rectangle((0, 0), 1, 1, facecolor=str(_GREYS[1]))
    add_legend(figure, handles)
    return settle(figure)


def fan_out(
    widths: Sequence[float | int], depths: Sequence[int]
) -> tuple[Float[np.ndarray, "architecture 2"], list[int]]:
    """Places of marks within their squares: rows of three at most, or as many as a full square needs.

    A place lies within a quarter of c and half a step of depth around (width, depth). Second, how many marks
    the square of each holds.

    Examples:
        >>> places, crowds = fan_out([2.0, 3.0, 3.0], [4, 3, 3])
        >>> crowds, places[0].tolist(), sorted(places[:, 0].tolist())
        ([1, 2, 2], [2.0, 4.0], [2.0, 2.875, 3.125])
    """
    shared: dict[tuple[float, int], list[int]] = defaultdict(list)
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        shared[float(width), depth].append(index)
    places = np.empty((len(widths), 2))
    crowds = [0] * len(widths)
    for (width, depth), indices in shared.items():
        across = _columns(len(indices))
        rows = -(-len(indices) // across)
        for place, index in enumerate(indices):
            row, column = divmod(place, across)
            side = column - (min(across, len(indices) - row * across) - 1) / 2
            height = (rows - 1) / 2 - row
            places[index] = width + side * 0.5 / across, depth + height * 0.72 / max(rows, 2)
            crowds[index] = len(indices)
    return places, crowds


def _columns(count: int) -> int:
    """How many marks of a square stand side by side."""
    return min(count, 3) if count <= _LABELLED else int(np.ceil(np.sqrt(1.5 * count)))


def _limits(planes: Sequence[WidthDepthPlane]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of all panels: the squares of all wirings and of all marks."""
    widths = [float(width) for plane in planes for width in (*plane.widths, *(w for w, _ in plane.counts))]
    depths = [depth for plane in planes for depth in (*plane.depths, *(d for _, d in plane.counts))]
    if not widths:
        return 0.75, 4.25, 1.5, 5.5
    return min(widths) - 0.25, max(widths) + 0.25, min(depths) - 0.5, max(depths) + 0.5


def _draw_plane(axes: Axes, plane: WidthDepthPlane, norm: Normalize) -> None:
    total = sum(plane.counts.values())
    highest = max(plane.counts.values(), default=0)
    note: dict[str, Any] = {"fontsize": NOTE_POINTS - 1, "color": "#595959", "va": "bottom"}
    for (width, depth), count in plane.counts.items():
        # By the square root: a rare place still differs from an impossible one.
        grey = str(_GREYS[0] + (_GREYS[1] - _GREYS[0]) * float(np.sqrt(count / highest)))
        corner = (width - 0.25, depth - 0.5)
        axes.add_patch(Rectangle(corner, 0.5, 1.0, facecolor=grey, edgecolor="white", linewidth=1.2))
        axes.text(width - 0.235, depth - 0.475, _percent(count / total), **note)
    places, crowds = fan_out(plane.widths, plane.depths)
    for (x, y), crowd, name, value in zip(places, crowds, plane.names, plane.values, strict=True):
        labelled = crowd <= _LABELLED
        size = 8.0 if labelled else max(2.5, 8.0 * 3 / _columns(crowd))
        # The share stands at the bottom of the square, the name below its mark.
        height = y + _SHARE_HEIGHT if labelled else y + 0.06
        colour = MEASURE_COLOURS(norm(value)) if np.isfinite(value) else "none"
        mark = _mark("o", size, colour) if name else _mark("D", size * 0.9, colour)
        mark.set(data=([x], [height]), label=name or "original", zorder=3 if name else 4)
        axes.add_line(mark)
        if labelled and name:
            below: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top"}
            below |= {"fontsize": _LABEL_POINTS, "parse_math": False}
            axes.annotate(
                "\n".join(wrap(name, _SQUARE_WIDTH, _LABEL_POINTS)), (x, height), (0, -0.7 * size), **below
            )
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set_xticks(np.arange(np.ceil(2 * left) / 2, right, 0.5))
    axes.set_yticks(range(int(np.ceil(bottom)), int(np.floor(top)) + 1))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _mark(marker: str, size: float | int, colour: Any) -> Line2D:
    style: dict[str, Any] = {"color": "black", "markeredgewidth": 0.7, "linestyle": ""}
    return Line2D([], [], marker=marker, markersize=size, markerfacecolor=colour, **style)
