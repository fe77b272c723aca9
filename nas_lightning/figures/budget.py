"""What a search would have picked, by the epochs it trains: one panel a quantity, one line a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from nas_lightning.figures.picture import add_legend, grid_of, label_axes, new_figure, open_axes, settle

COLOURS = ("#0072B2", "#D55E00", "#009E73")
"""Colours of budgets in turn: Okabe and Ito's, which colour-blind readers tell apart."""
REFERENCE_COLOUR = "#4D4D4D"
LONG_TRAINING = 50
"""A training of more epochs has a logarithmic axis: most happens early."""
_PANEL_WIDTH = 2.9
_PANEL_HEIGHT = 2.2


@dataclass(frozen=True, eq=False)
class BudgetLine:
    """A quantity of the pick by epoch.

    Attributes:
        name: Entry in the legend; empty for a line that has none.
        colour: Place in :data:`COLOURS`.
        epochs: Numbers of epochs, rising.
        values: Values, NaN where there is none.
        band: Epochs of the interval, and its lower and upper ends; None without a band.
        dashed: Whether the line is dashed.
    """

    name: str
    colour: int
    epochs: Float[np.ndarray, " epochs"]
    values: Float[np.ndarray, " epochs"]
    band: Float[np.ndarray, "3 points"] | None = None
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class BudgetPanel:
    """Lines of one quantity.

    Attributes:
        label: Name of the quantity with its unit.
        lines: The lines; the last is on top.
        reference: Mean of the pool; None where the quantity has none.
    """

    label: str
    lines: Sequence[BudgetLine]
    reference: float | None = None


def is_long(panels: Sequence[BudgetPanel]) -> bool:
    """Whether the axis of the epochs is logarithmic."""
    return max(float(line.epochs[-1]) for panel in panels for line in panel.lines) > LONG_TRAINING


def few_epochs(epochs: int) -> list[int]:
    """Numbers of the epochs of a training, or of a long one :data:`LONG_TRAINING` at most, dense early on."""
    if epochs <= LONG_TRAINING:
        return list(range(1, epochs + 1))
    chosen: list[int] = np.unique(np.geomspace(1, epochs, LONG_TRAINING).round().astype(int)).tolist()
    return chosen


def draw_budget(panels: Sequence[BudgetPanel], *, reference: str = "mean of the pool") -> Figure:
    """Draw what is picked after each epoch; bands are intervals, grey lines the mean of the pool.

    Of a training longer than :data:`LONG_TRAINING` epochs, so many are drawn, evenly in the logarithm: lines
    of all of them would cover one another.

    Args:
        panels: The quantities.
        reference: What the grey line is called.

    Returns:
        The figure: three panels side by side, and one legend below.

    Raises:
        ValueError: If there are no panels.
    """
    across, down = grid_of(len(panels), None, default=3)
    figure = new_figure(across * _PANEL_WIDTH, down * _PANEL_HEIGHT + 0.35)
    handles: dict[str, Line2D] = {}
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        if panel.reference is not None:
            look: dict[str, Any] = {
                "color": REFERENCE_COLOUR,
                "linestyle": (0.0, (4.0, 3.0)),
                "linewidth": 1.0,
            }
            handles.setdefault(reference, axes.axhline(panel.reference, **look))
        for line in panel.lines:
            handle = _draw_line(axes, line, thin=bool(line.name) and line.band is None and not line.dashed)
            if line.name:
                handles.setdefault(line.name, handle)
        _set_epochs(axes, logarithmic=is_long(panels))
        open_axes(axes, "y")
        label_axes(axes, "", "epochs" if index + across >= len(panels) else "", panel.label)
    add_legend(figure, handles, ncols=len(handles) if across > 1 else 1)
    return settle(figure)


def _draw_line(axes: Axes, line: BudgetLine, *, thin: bool) -> Line2D:
    colour = COLOURS[line.colour % len(COLOURS)]
    places = np.asarray(few_epochs(len(line.epochs))) - 1
    if line.band is not None:
        epochs, low, high = line.band
        axes.fill_between(epochs, low, high, color=colour, alpha=0.16, linewidth=0)
    (drawn,) = axes.plot(
        line.epochs[places],
        line.values[places],
        color=colour,
        linestyle=(0.0, (2.5, 1.2)) if line.dashed else "-",
        linewidth=0.8 if thin else 1.6,
        zorder=2.0 if thin else 2.5,
        marker="o" if len(places) == 1 else "",
    )
    return drawn


def _set_epochs(axes: Axes, *, logarithmic: bool) -> None:
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
