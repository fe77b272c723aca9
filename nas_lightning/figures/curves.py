"""Curves of a training, after figures 3 to 5 and 12 to 16 of the paper: one line an architecture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from nas_lightning.cells import published_variants
from nas_lightning.figures.picture import (
    NOTE_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
)

LineStyle: TypeAlias = tuple[float, tuple[float, ...]]

ORIGINAL_COLOUR = "#000000"
SOLID: LineStyle = (0.0, ())
LINE_STYLES = (SOLID, (0.0, (5.0, 1.6)), (0.0, (1.0, 1.3)), (0.0, (5.0, 1.4, 1.0, 1.4)))
"""Styles of variants, in turn, so that neighbouring colours differ in grey print too."""
_MAP = colormaps["plasma"]
# The darkest would pass for the original's black, the lightest would not show on white.
_MAP_RANGE = (0.12, 0.84)
_WIDE = 20.0
_BEYOND = 300.0
_PANEL_WIDTH = 3.5
_ALONE_WIDTH = 4.6
_PANEL_HEIGHT = 2.5
_NOT_FINITE = "not finite from here on"
_LEGEND: Mapping[str, Any] = {"handlelength": 2.6, "labelspacing": 0.35}
_BESIDE = {**_LEGEND, "loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0, "ncols": 1}
"""Right of its panel."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One architecture's statistic during training, over seeds.

    Attributes:
        name: The architecture; one without a colon is an original cell.
        x: Increasing places of the values, such as numbers of epochs.
        mean: Mean over the seeds; NaN where a seed has no finite value.
        low: Lower end of the band: by default, the smallest value of a seed.
        high: Upper end, the largest value of a seed; equal to ``low`` where there is no band.
        width: Width of the cell in units of c, which orders the colours.
        label: Its name in the legend; ``name`` by default.
    """

    name: str
    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    width: float | int = 0
    label: str = ""

    @property
    def shown(self) -> str:
        """Entry in the legend."""
        name = self.label or self.name
        return name if np.isfinite(self.mean).any() else f"{name}: no finite value"


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """Curves that stand in one panel.

    Attributes:
        curves: The curves; the first is drawn on top.
        title: Title of the panel.
        y_label: Name of the statistic with its unit; panels with the same one have the same scale.
        scale: ``"auto"`` is logarithmic where the largest value is 20 times the smallest or more.
    """

    curves: Sequence[Curve]
    title: str = ""
    y_label: str = "test loss (nat)"
    scale: Literal["auto", "linear", "log"] = "auto"


def base_of(name: str) -> str:
    """Base cell of an architecture: that of a published variant, or what stands before a name's colon."""
    variant = published_variants().get(name)
    return name.partition(":")[0] if variant is None else variant.variant_of


def architecture_colours(names: Sequence[str], widths: Sequence[float | int]) -> dict[str, str]:
    """Colours of architectures: original cells black, variants from dark (wide) to light (narrow).

    The variants of one base cell are spread evenly over the lightness, in the order of their width, equal
    ones in the order given.
    """
    low, high = _MAP_RANGE
    colours = {}
    for name, (place, count) in _places(names, widths).items():
        share = place / (count - 1) if count > 1 else 0.5
        colours[name] = to_hex(_MAP(low + (high - low) * share)) if count else ORIGINAL_COLOUR
    return colours


def architecture_styles(names: Sequence[str], widths: Sequence[float | int]) -> dict[str, LineStyle]:
    """Line styles of architectures: original cells solid, variants in turn in the order of their colours."""
    return {
        name: LINE_STYLES[place % len(LINE_STYLES)] if count else SOLID
        for name, (place, count) in _places(names, widths).items()
    }


def _places(names: Sequence[str], widths: Sequence[float | int]) -> dict[str, tuple[int, int]]:
    """Place of every variant among those of its base cell, widest first; (0, 0) for original cells."""
    places = dict.fromkeys(names, (0, 0))
    known = dict(zip(names, widths, strict=True))
    for base in dict.fromkeys(map(base_of, names)):
        variants = [name for name in known if base_of(name) == base != name]
        ordered = sorted(variants, key=lambda name: -known[name])
        places |= {name: (place, len(ordered)) for place, name in enumerate(ordered)}
    return places


def is_logarithmic(curves: Iterable[Curve]) -> bool:
    """Whether curves need a logarithmic axis: all values positive, the largest 20 times the smallest."""
    values = _finite(curves)
    return bool(len(values) and values.min() > 0 and values.max() >= _WIDE * values.min())


def draw_curves(
    panels: Sequence[CurvePanel],
    *,
    x_label: str = "epochs",
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Draw curves of trainings (figures 3 to 5 and 12 to 16).

    A line is the mean over seeds; its band reaches from the smallest to the largest value of a seed. Panels
    with the same statistic share one scale. Values beyond 300 medians of a logarithmic scale leave the panel
    at the top, and a note names the largest. Lines break where a value is not finite; a cross marks the last
    value before that.

    Args:
        panels: The panels, from left to right and from top to bottom.
        x_label: Name of the horizontal axis.
        columns: Panels side by side; two by default.
        title: Title of the whole figure.

    Returns:
        The figure. Its legend stands below the panels, or beside each where a label means different lines.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    if not any(len(curve.x) for panel in panels for curve in panel.curves):
        raise ValueError("there must be at least one curve to draw")
    across, down = grid_of(len(panels), columns, default=2)
    curves = [curve for panel in panels for curve in panel.curves]
    names, widths = [curve.name for curve in curves], [curve.width for curve in curves]
    colours, styles = architecture_colours(names, widths), architecture_styles(names, widths)
    entries = {(curve.shown, colours[curve.name], styles[curve.name]): curve for curve in curves}
    shared = len({entry[0] for entry in entries}) == len(entries)
    handles: dict[str, Artist] = {
        name: Line2D([], [], color=colours[name], linestyle=styles[name], linewidth=_line_width(name))
        for name in dict.fromkeys(names)
    }

    panel_width = _ALONE_WIDTH if across == 1 else _PANEL_WIDTH
    width = across * panel_width + 0.3 if shared else across * (panel_width + 1.5)
    longest = max(len(curve.shown) for curve in curves)
    legend_columns = max(1, min(len(entries), int(width / (0.062 * longest + 0.55))))
    legend_rows = -(-(len(entries) + 1) // legend_columns) if shared else 0
    figure = new_figure(width, down * _PANEL_HEIGHT + 0.17 * legend_rows + 0.3, title)
    broken = False
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        broken |= _draw_panel(axes, panel, colours, styles)
        peers = (other.curves for other in panels if other.y_label == panel.y_label)
        _set_scales(axes, panel.scale, list(chain.from_iterable(peers)))
        open_axes(axes, "both")
        below = x_label if index + across >= len(panels) else ""
        label_axes(axes, panel.title, below, panel.y_label, _PANEL_WIDTH)
        if not shared:
            labels = {curve.shown: handles[curve.name] for curve in panel.curves}
            add_legend(axes, labels, **_BESIDE)
    explained = {curve.shown: handles[curve.name] for curve in entries.values()} if shared else {}
    if broken:
        explained[_NOT_FINITE] = Line2D([], [], color="black", marker="x", markersize=5, linestyle="")
    if explained:
        add_legend(figure, explained, ncols=legend_columns, **_LEGEND)
    return settle(figure)


def _line_width(name: str) -> float:
    return 2.0 if base_of(name) == name else 1.2


def _draw_panel(axes: Axes, panel: CurvePanel, colours: dict[str, str], styles: dict[str, LineStyle]) -> bool:
    """Draw the curves of a panel; returns whether a line ends at a value that is not finite."""
    broken = False
    for order, curve in enumerate(panel.curves):
        mean = np.where(np.isfinite(curve.mean), curve.mean, np.nan)
        finite = np.isfinite(mean)
        alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
        depth = 3 + 0.9 * (len(panel.curves) - order) / len(panel.curves)
        colour = colours[curve.name]
        look: dict[str, Any] = {"linestyle": styles[curve.name], "linewidth": _line_width(curve.name)}
        look |= {"marker": "o", "markersize": 3, "markevery": np.flatnonzero(alone).tolist()}
        axes.plot(curve.x, mean, color=colour, label=curve.shown, zorder=depth, **look)
        if not np.array_equal(curve.low, curve.high, equal_nan=True):
            low, high = (np.where(finite, bound, np.nan) for bound in (curve.low, curve.high))
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=depth - 1)
        ends = finite & ~np.r_[finite[1:], True]
        if ends.any():
            last: dict[str, Any] = {"markersize": 5, "label": "_last finite"}
            axes.plot(curve.x[ends], mean[ends], "x", color=colour, zorder=depth, **last)
        broken |= bool((~finite).any())
    return broken


def _set_scales(axes: Axes, scale: str, curves: Sequence[Curve]) -> None:
    """Set both scales for all curves that share them."""
    places = np.concatenate([curve.x for curve in curves])
    left, right = float(places.min()), float(places.max())
    room = 0.02 * (right - left) or 0.5
    axes.set_xlim(left - room, right + room)
    axes.xaxis.set_major_locator(
        MaxNLocator(6, integer=bool((places == places.round()).all()), min_n_ticks=1)
    )
    values = _finite(curves)
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if (scale == "log" and low > 0) or (scale == "auto" and is_logarithmic(curves)):
        axes.set_yscale("log")
        top = min(high, _BEYOND * float(np.median(values)))
        axes.set_ylim(low / 1.15, top * 1.15)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top < 300 * low else (1.0,)))
        if low >= 1e-3 and top <= 1e4:
            axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        if high > top:
            corner: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
            axes.text(0.99, 0.98, f"the largest value is {high:.2g}", fontsize=NOTE_POINTS, **corner)
    else:
        room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        axes.set_ylim(low - room, high + room)


def _finite(curves: Iterable[Curve]) -> Float[np.ndarray, " values"]:
    """All finite values of the curves and their bands."""
    parts = [part for curve in curves for part in (curve.mean, curve.low, curve.high)]
    values = np.concatenate([np.empty(0), *parts])
    return np.asarray(values[np.isfinite(values)])
