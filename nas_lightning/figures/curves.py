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
    TICK_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
    text_width,
)

LineStyle: TypeAlias = tuple[float, tuple[float, ...]]

ORIGINAL_COLOUR = "#000000"
SOLID: LineStyle = (0.0, ())
LINE_STYLES = (SOLID, (0.0, (5.0, 1.6)), (0.0, (1.0, 1.3)), (0.0, (5.0, 1.4, 1.0, 1.4)))
MARKERS = ("o", "s", "^", "D", "X")
"""Styles and markers of variants, in turn: twenty lines differ without their colours."""
_MARKS = 6
"""Markers on a line, about."""
_MAP = colormaps["plasma"]
# The darkest would pass for the original's black, the lightest would not show on white.
_MAP_RANGE = (0.12, 0.84)
_WIDE = 20.0
_BEYOND = 300.0
_PANEL_WIDTH = 3.5
_ALONE_WIDTH = 4.6
_PANEL_HEIGHT = 2.5
_GUIDE: LineStyle = (0.0, (1.0, 1.6))
_NOT_FINITE = "not finite from here on"
_LEGEND: Mapping[str, Any] = {"handlelength": 3.4, "labelspacing": 0.35}
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
        guide: Lower, middle and upper values of a faint dotted line beside the mean, such as its parabola at
            the first place; None for none. It sets no limits of the panel.
    """

    name: str
    x: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    width: float | int = 0
    label: str = ""
    guide: Float[np.ndarray, "3 points"] | None = None

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


@dataclass(frozen=True)
class Look:
    """How a line looks; no two lines of a figure share all three.

    Attributes:
        colour: Hexadecimal.
        dash: Style of the line.
        marker: Its marker; empty for none.
        place: Place among the lines of one base cell, from 0; that of a black line is 0 too.
    """

    colour: str
    dash: LineStyle
    marker: str
    place: int = 0

    @property
    def is_original(self) -> bool:
        """Whether the line stands out as that of an original cell."""
        return not self.marker

    @property
    def width(self) -> float:
        """Width of the line in points."""
        return 2.0 if self.is_original else 1.2


def architecture_looks(
    names: Sequence[str], widths: Sequence[float | int], *, together: bool = False
) -> dict[str, Look]:
    """Looks of architectures: original cells black and solid, variants with a colour, dashes and a marker.

    The colours of the variants of one base cell run evenly from dark (wide) to light (narrow), in the order
    of their width, equal ones in the order given; dashes and markers follow in turn. Where several original
    cells stand ``together`` in a panel, all architectures are in one order.
    """
    low, high = _MAP_RANGE
    looks = {}
    for name, (place, count) in _places(names, widths, together).items():
        share = place / (count - 1) if count > 1 else 0.5
        colour = to_hex(_MAP(low + (high - low) * share))
        dash, marker = LINE_STYLES[place % len(LINE_STYLES)], MARKERS[place % len(MARKERS)]
        looks[name] = Look(colour, dash, marker, place) if count else Look(ORIGINAL_COLOUR, SOLID, "")
    return looks


def looks_of(panels: Sequence[CurvePanel]) -> dict[str, Look]:
    """Looks of the curves of a figure, by name."""
    curves = {curve.name: curve for panel in panels for curve in panel.curves}
    together = any(sum(base_of(name) == name for name in _names(panel)) > 1 for panel in panels)
    return architecture_looks(list(curves), [curve.width for curve in curves.values()], together=together)


def _names(panel: CurvePanel) -> set[str]:
    return {curve.name for curve in panel.curves}


def _places(
    names: Sequence[str], widths: Sequence[float | int], together: bool
) -> dict[str, tuple[int, int]]:
    """Place of every variant among those of its base cell, widest first; (0, 0) for original cells."""
    places = dict.fromkeys(names, (0, 0))
    known = dict(zip(names, widths, strict=True))
    if together:
        groups = [list(known)]
    else:
        bases = dict.fromkeys(map(base_of, names))
        groups = [[name for name in known if base_of(name) == base != name] for base in bases]
    for group in groups:
        ordered = sorted(group, key=lambda name: -known[name])
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
    note: str = "",
    guide: str = "",
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
        note: Stands below the figure in small letters.
        guide: What the curves' faint dotted lines are, for the legend.

    Returns:
        The figure. Its legend stands below the panels, or beside each where a label means different lines.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    if not any(len(curve.x) for panel in panels for curve in panel.curves):
        raise ValueError("there must be at least one curve to draw")
    across, down = grid_of(len(panels), columns, default=2)
    curves = [curve for panel in panels for curve in panel.curves]
    looks = looks_of(panels)
    entries = {(curve.shown, looks[curve.name]): curve for curve in curves}
    shared = len({entry[0] for entry in entries}) == len(entries)
    handles: dict[str, Artist] = {name: Line2D([], [], **_style(look)) for name, look in looks.items()}

    panel_width = _ALONE_WIDTH if across == 1 else _PANEL_WIDTH
    width = across * panel_width + 0.3 if shared else across * (panel_width + 1.5)
    longest = max(text_width(curve.shown, TICK_POINTS) for curve in curves)
    legend_columns = max(1, min(len(entries), int(width / (longest + 0.55))))
    legend_rows = -(-(len(entries) + 1) // legend_columns) if shared else 0
    figure = new_figure(width, down * _PANEL_HEIGHT + 0.17 * legend_rows + 0.3, title)
    broken = False
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        broken |= _draw_panel(axes, panel, looks)
        peers = (other.curves for other in panels if other.y_label == panel.y_label)
        set_scales(axes, panel.scale, list(chain.from_iterable(peers)))
        open_axes(axes, "both")
        below = x_label if index + across >= len(panels) else ""
        label_axes(axes, panel.title, below, panel.y_label)
        if not shared:
            labels = {curve.shown: handles[curve.name] for curve in panel.curves}
            add_legend(axes, labels, **_BESIDE)
    explained = {curve.shown: handles[curve.name] for curve in entries.values()} if shared else {}
    if broken:
        explained[_NOT_FINITE] = Line2D([], [], color="black", marker="x", markersize=5, linestyle="")
    if guide and any(curve.guide is not None for curve in curves):
        explained[guide] = Line2D([], [], color="#595959", linestyle=_GUIDE, linewidth=1.0)
    if explained:
        add_legend(figure, explained, ncols=legend_columns, **_LEGEND)
    return settle(figure, note=note)


def _style(look: Look) -> dict[str, Any]:
    """A look as matplotlib's line takes it."""
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": look.width}
    return style | {
        "marker": look.marker,
        "markersize": 4,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def _draw_panel(axes: Axes, panel: CurvePanel, looks: Mapping[str, Look]) -> bool:
    """Draw the curves of a panel; returns whether a line ends at a value that is not finite."""
    broken = False
    for order, curve in enumerate(panel.curves):
        mean = np.where(np.isfinite(curve.mean), curve.mean, np.nan)
        finite = np.isfinite(mean)
        alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
        depth = 3 + 0.9 * (len(panel.curves) - order) / len(panel.curves)
        look = looks[curve.name]
        # The markers of neighbouring lines stand at different places.
        step = max(1, len(curve.x) // _MARKS)
        marks = (look.place * step // len(MARKERS) % step, step)
        axes.plot(curve.x, mean, label=curve.shown, zorder=depth, markevery=marks, **_style(look))
        colour = look.colour
        if alone.any():  # a line of one point would not show
            dot: dict[str, Any] = {"markersize": 3, "label": "_alone"}
            axes.plot(curve.x[alone], mean[alone], "o", color=colour, zorder=depth, **dot)
        if not np.array_equal(curve.low, curve.high, equal_nan=True):
            low, high = (np.where(finite, bound, np.nan) for bound in (curve.low, curve.high))
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=depth - 1)
        if curve.guide is not None:
            low, middle, high = curve.guide
            dotted: dict[str, Any] = {"linestyle": _GUIDE, "linewidth": 1.0, "label": "_guide"}
            axes.plot(curve.x, middle, color=colour, zorder=depth - 1, **dotted)
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.08, linewidth=0, zorder=depth - 1.5)
        ends = finite & ~np.r_[finite[1:], True]
        if ends.any():
            last: dict[str, Any] = {"markersize": 5, "label": "_last finite"}
            axes.plot(curve.x[ends], mean[ends], "x", color=colour, zorder=depth, **last)
        broken |= bool((~finite).any())
    return broken


def set_scales(axes: Axes, scale: str, curves: Sequence[Curve]) -> None:
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
            rising = np.nansum([curve.mean[-1] - curve.mean[0] for curve in curves]) > 0
            corner: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
            corner |= {"x": 0.01, "ha": "left"} if rising else {"x": 0.99, "ha": "right"}
            axes.text(y=0.98, s=f"the largest value is {high:.2g}", fontsize=NOTE_POINTS, **corner)
    else:
        room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        axes.set_ylim(low - room, high + room)


def _finite(curves: Iterable[Curve]) -> Float[np.ndarray, " values"]:
    """All finite values of the curves and their bands."""
    parts = [part for curve in curves for part in (curve.mean, curve.low, curve.high)]
    values = np.concatenate([np.empty(0), *parts])
    return np.asarray(values[np.isfinite(values)])
