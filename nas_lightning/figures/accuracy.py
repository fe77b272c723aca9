"""Accuracy at convergence of a base cell and its variants, after figure 9 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas_lightning.figures.picture import (
    TICK_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
    wrap,
)

_ORIGINAL_COLOUR = "#000000"
_VARIANT_COLOUR = "#0072B2"
_SEED_COLOUR = "#8C8C8C"
_PANEL_WIDTH = 4.2
_PANEL_HEIGHT = 2.5
_NAME_WIDTH = 1.5


@dataclass(frozen=True, eq=False)
class AccuracyPanel:
    """One base cell and its variants.

    Attributes:
        indices: Place of each architecture along x; 0 is the base cell.
        names: Name at each place.
        values: Accuracy of every seed in percent, one array per architecture.
        title: Title of the panel.
    """

    indices: Sequence[int]
    names: Sequence[str]
    values: Sequence[Float[np.ndarray, " _seed"]]
    title: str = ""


def mean_and_deviation(values: Float[np.ndarray, " seed"]) -> tuple[float, float]:
    """Mean and standard deviation (divided by n - 1) of the finite values; NaN of none, or of one."""
    finite = values[np.isfinite(values)]
    mean = float(finite.mean()) if len(finite) else float("nan")
    return mean, float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def draw_accuracy(
    panels: Sequence[AccuracyPanel],
    *,
    y_label: str = "test accuracy (%)",
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Draw the accuracy of base cells (index 0) and of their variants (figure 9).

    A dot is the mean over seeds, its bar one standard deviation up and down, small grey dots single seeds; a
    dashed line marks the base cell's mean. All panels have one scale.

    Args:
        panels: The base cells, from left to right and from top to bottom.
        y_label: Name of the values, with their unit.
        columns: Panels side by side; two by default.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, down = grid_of(len(panels), columns, default=2)
    rotated = any(not _is_number(name) for panel in panels for name in panel.names)
    figure = new_figure(across * _PANEL_WIDTH, down * (_PANEL_HEIGHT + 0.5 * rotated) + 0.4, title)
    ends = [end for panel in panels for values in panel.values for end in _ends(values)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 100.0)
    room = 0.06 * (high - low) or 0.5
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, place + 1)
        _draw_panel(axes, panel)
        label_axes(axes, panel.title, "", "" if place % across else y_label)
        axes.set_ylim(low - room, high + room)
    several = any(len(values) > 1 for panel in panels for values in panel.values)
    variant = "variant, ± standard deviation over seeds" if several else "variant"
    handles = {
        "original cell": _marker(_ORIGINAL_COLOUR, "D", 5),
        "its accuracy": Line2D([], [], color=_ORIGINAL_COLOUR, linestyle=(0, (4, 2)), linewidth=1),
        variant: _marker(_VARIANT_COLOUR, "o", 5),
    }
    if several:
        handles["one seed"] = _marker(_SEED_COLOUR, "o", 2.5)
    add_legend(figure, handles, ncols=len(handles) if across > 1 else 2)
    return settle(figure)


def _ends(values: Float[np.ndarray, " seed"]) -> list[float]:
    """Values that must be in sight: every finite seed's, and the ends of the bar."""
    mean, deviation = mean_and_deviation(values)
    ends = [*values.tolist(), mean - deviation, mean + deviation]
    return [end for end in ends if np.isfinite(end)]


def _marker(colour: str, marker: str, size: float | int) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markersize=size, linestyle="")


def _draw_panel(axes: Axes, panel: AccuracyPanel) -> None:
    for index, values in zip(panel.indices, panel.values, strict=True):
        mean, deviation = mean_and_deviation(values)
        colour = _VARIANT_COLOUR if index else _ORIGINAL_COLOUR
        if not index and np.isfinite(mean):
            axes.axhline(mean, color=colour, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
        if len(values) > 1:
            beside = np.full(len(values), index + 0.22)
            axes.plot(beside, values, "o", color=_SEED_COLOUR, markersize=2.5, markeredgewidth=0, zorder=2)
        bar = None if np.isnan(deviation) else [deviation]
        style: dict[str, Any] = {"markersize": 5, "elinewidth": 1.1, "capsize": 2.5, "zorder": 3}
        axes.errorbar([index], [mean], bar, fmt="o" if index else "D", color=colour, **style)
    names = ["\n".join(wrap(name, _NAME_WIDTH, TICK_POINTS)) for name in panel.names]
    rotation = 0 if all(map(_is_number, panel.names)) else 90
    axes.set_xticks(list(panel.indices), names, rotation=rotation, parse_math=False)
    axes.set_xlim(min(panel.indices, default=0) - 0.6, max(panel.indices, default=0) + 0.6)
    open_axes(axes, "y")


def _is_number(name: str) -> bool:
    """Whether a name is a number, with a mark or without; such names need no rotation."""
    return name.rstrip("*").isdigit()
