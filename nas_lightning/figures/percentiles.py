"""Percentiles of published cells among all wirings of their spaces, by year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas_lightning.figures.picture import grid_of, label_axes, new_figure, open_axes, settle

_COLOUR = "#0072B2"
_GOLDEN = 0.618034
_WIDTH = 2.9
_HEIGHT = 2.2


@dataclass(frozen=True, eq=False)
class PercentilePanel:
    """Cells of one kind in one quantity.

    Attributes:
        label: Name of the quantity.
        title: Name of the cells.
        years: Year of each cell.
        percentiles: Mid-percentile of each cell, from 0 to 1.
        means: Mean of a year, for the years that have one.
    """

    label: str
    title: str
    years: Float[np.ndarray, " cells"]
    percentiles: Float[np.ndarray, " cells"]
    means: dict[int, float]


def draw_percentiles(panels: Sequence[PercentilePanel], *, columns: int = 3) -> Figure:
    """Draw a dot a cell by year, and a bar for the mean of a year.

    Raises:
        ValueError: If there are no panels, or ``columns`` is not positive.
    """
    across, down = grid_of(len(panels), columns)
    figure = new_figure(across * _WIDTH, down * _HEIGHT)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        _draw_panel(axes, panel)
        below = "year" if index + across >= len(panels) else ""
        label_axes(axes, panel.title, below, panel.label)
    return settle(figure)


def _draw_panel(axes: Axes, panel: PercentilePanel) -> None:
    axes.axhline(0.5, color="#4D4D4D", linestyle=(0.0, (4.0, 3.0)), linewidth=1.0)
    for year in np.unique(panel.years):
        values = panel.percentiles[panel.years == year]
        # By rank, so that equal ones stand apart.
        ranks = np.argsort(np.argsort(values, kind="stable"))
        beside = ((ranks * _GOLDEN) % 1 - 0.5) * 0.5 if len(values) > 1 else np.zeros(1)
        axes.plot(year + beside, values, "o", color=_COLOUR, markersize=3.5, markeredgewidth=0.0, alpha=0.6)
    for year, mean in panel.means.items():
        axes.plot([year - 0.34, year + 0.34], [mean, mean], color="black", linewidth=1.6)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xticks(np.arange(panel.years.min(), panel.years.max() + 1))
    open_axes(axes, "y")
