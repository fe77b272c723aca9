"""Curves of many cells drawn from a search space: thin lines coloured by width, and where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from nas_lightning.figures.picture import (
    add_colour_bar,
    add_legend,
    label_axes,
    new_figure,
    open_axes,
    settle,
)

FEWEST = 5
"""Cells of one width from which their mean is drawn."""
# The lightest would not show on white.
_COLOURS = colormaps["plasma"]
_RANGE = (0.0, 0.88)
_PANEL_WIDTH = 4.0
_PANEL_HEIGHT = 2.8


@dataclass(frozen=True, eq=False)
class SampledPanel:
    """Cells of one space.

    Attributes:
        epochs: Numbers of the epochs, rising.
        errors: Error of each cell in percent after every epoch; NaN where it was not measured.
        widths: Width of each cell in units of c.
        title: Name of the space.
    """

    epochs: Float[np.ndarray, " epoch"]
    errors: Float[np.ndarray, "cell epoch"]
    widths: Float[np.ndarray, " cell"]
    title: str = ""


def draw_sampled(panels: Sequence[SampledPanel], *, label: str = "test error (%)", title: str = "") -> Figure:
    """Draw the errors of many cells, one row a space.

    Left, a thin line a cell on logarithmic scales, and a thick line for the mean of all cells of a width,
    if these are at least :data:`FEWEST`. Right, the last error against the width; a bar is the mean of a
    width. Places beside a width mean nothing. Colour: width.

    Args:
        panels: The spaces, from top to bottom.
        label: Name of the error, with its unit.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not panels:
        raise ValueError("there must be at least one space to draw")
    widths = np.concatenate([panel.widths for panel in panels])
    low, high = float(widths.min()), float(widths.max())
    spread = (high - low or 1.0) / (_RANGE[1] - _RANGE[0])
    # The colours of all widths lie in the range.
    norm = Normalize(low - _RANGE[0] * spread, low - _RANGE[0] * spread + spread)
    figure = new_figure(2 * _PANEL_WIDTH + 0.8, len(panels) * _PANEL_HEIGHT + 0.3, title)
    all_axes = figure.subplots(len(panels), 2, squeeze=False)
    for (left, right), panel in zip(all_axes, panels, strict=True):
        _draw_curves(left, panel, norm)
        _draw_ends(right, panel, norm)
        label_axes(left, panel.title, "epoch", label)
        right.set_xlim(low - 0.3, high + 0.3)
        label_axes(right, "", "width (c)", f"{label}, last epoch")
    place = {"shrink": 1 / len(panels), "anchor": (0.0, 1.0)}  # beside the first row
    colours = ScalarMappable(norm, _COLOURS)
    bar = add_colour_bar(figure, colours, all_axes.ravel().tolist(), "width (c)", **place)
    bar.ax.set_ylim(low, high if high > low else low + 1)
    grey = "#4D4D4D"
    handles = {
        "one cell": Line2D([], [], color=grey, linewidth=0.6),
        f"mean of a width ({FEWEST} cells or more)": Line2D([], [], color=grey, linewidth=2.2),
    }
    add_legend(figure, handles)
    return settle(figure)


def _draw_curves(axes: Axes, panel: SampledPanel, norm: Normalize) -> None:
    lines = [np.column_stack([panel.epochs, errors]) for errors in panel.errors]
    colours = _COLOURS(norm(panel.widths))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.5, alpha=0.35, rasterized=True))
    for width, members in _by_width(panel):
        mean = _mean(panel.errors[members])
        axes.plot(
            panel.epochs,
            mean,
            color=_COLOURS(norm(width)),
            linewidth=1.8,
            path_effects=[withStroke(linewidth=3.0, foreground="white")],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(float(panel.epochs[0]), max(float(panel.epochs[-1]), float(panel.epochs[0]) + 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.autoscale_view(scalex=False)
    open_axes(axes, "y")


def _draw_ends(axes: Axes, panel: SampledPanel, norm: Normalize) -> None:
    last = panel.errors[:, -1]
    for width in np.unique(panel.widths):
        members = np.flatnonzero(panel.widths == width)
        # By rank, so that marks of nearly one height stand apart.
        order = np.argsort(np.argsort(last[members], kind="stable"))
        beside = ((order * 0.618034) % 1 - 0.5) * 0.3 if len(members) > 1 else 0.0
        colour = _COLOURS(norm(width))
        style = {"color": colour, "markersize": 3.0, "markeredgewidth": 0.0, "alpha": 0.75}
        axes.plot(width + beside, last[members], "o", **style)
    for width, members in _by_width(panel):
        mean = float(_mean(last[members][:, None])[0])
        axes.plot([width - 0.19, width + 0.19], [mean, mean], color="black", linewidth=1.4)
    axes.set_xticks(np.unique(panel.widths))
    open_axes(axes, "y")


def _by_width(panel: SampledPanel) -> list[tuple[float, np.ndarray]]:
    """Widths with enough cells, and the places of these."""
    found = [(float(width), np.flatnonzero(panel.widths == width)) for width in np.unique(panel.widths)]
    return [(width, members) for width, members in found if len(members) >= FEWEST]


def _mean(errors: Float[np.ndarray, "cell epoch"]) -> Float[np.ndarray, " epoch"]:
    """Mean over cells; NaN where one of them has no value."""
    mean: np.ndarray = errors.mean(axis=0)
    return mean
