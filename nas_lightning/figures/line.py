"""Loss and accuracy along lines and curves through weight space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas_lightning.figures.curves import LINE_STYLES, Curve, LineStyle, set_scales
from nas_lightning.figures.picture import (
    NOTE_POINTS,
    QUIET_COLOUR,
    TICK_POINTS,
    TITLE_POINTS,
    add_legend,
    label_axes,
    new_figure,
    open_axes,
    settle,
    text_width,
)

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of the paths, in turn."""
_DASHES: Mapping[str, LineStyle] = {"train": LINE_STYLES[1], "val": LINE_STYLES[3]}
"""Of the splits; that of the test split is solid."""
_WIDTH = 3.5
_HEIGHT = 2.7
_NOT_FINITE = "not finite"


@dataclass(frozen=True, eq=False)
class LineCurve:
    """A statistic of one split along one path.

    Attributes:
        name: The path, such as ``"straight line"``; it has one colour in all panels.
        split: The split, which has one dash: ``"train"`` dashed, ``"test"`` solid.
        positions: Increasing.
        rows: Values of each direction or pair at the positions: the line is their mean. NaN and infinity
            break it.
    """

    name: str
    split: str
    positions: Float[np.ndarray, " position"]
    rows: Float[np.ndarray, "row position"]

    @property
    def curve(self) -> Curve:
        """The mean over the rows, with a band of its standard error; one row has no band."""
        rows = np.asarray(self.rows, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = rows.mean(axis=0)
            error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else 0 * mean
            # A logarithmic scale has no place for a band below the smallest value.
            low, high = np.maximum(mean - error, rows.min(axis=0)), mean + error
        known = np.isfinite(mean)
        mean, low, high = (np.where(known, values, np.nan) for values in (mean, low, high))
        return Curve(self.name, np.asarray(self.positions, dtype=np.float64), mean, low, high)


@dataclass(frozen=True, eq=False)
class LinePanel:
    """Curves of one statistic.

    Attributes:
        curves: Those that stand in the panel.
        y_label: The statistic, with its unit.
        title: Title of the panel; says the barriers.
        is_gain: Whether a larger value is better, as of an accuracy: the barrier then lies below the chord.
    """

    curves: Sequence[LineCurve]
    y_label: str
    title: str = ""
    is_gain: bool = False


def draw_lines(
    panels: Sequence[LinePanel],
    *,
    x_label: str,
    marks: Mapping[float, str] | None = None,
    chords: bool = False,
    each_row: bool = False,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw statistics along paths, side by side: the loss, then the accuracy.

    Args:
        panels: The panels, from left to right.
        x_label: Name of the horizontal axis.
        marks: Positions that are marked, such as both ends, and what stands above them.
        chords: Whether the straight line between the values at 0 and 1 is drawn as well, and the largest
            distance of the mean from it: the barrier.
        each_row: Whether every row is drawn as a thin line in place of the band, as pairs of checkpoints are.
        title: Title of the whole figure.
        note: Stands below the figure in small letters.

    Returns:
        The figure, with its legend below the panels. A scale is logarithmic where the largest value is 20
        times the smallest or more.

    Raises:
        ValueError: If there is nothing to draw.
    """
    curves = [curve for panel in panels for curve in panel.curves]
    if not any(len(curve.positions) and len(curve.rows) for curve in curves):
        raise ValueError("there must be at least one curve to draw")
    names = list(dict.fromkeys(curve.name for curve in curves))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    handles: dict[str, Artist] = {}
    for curve in curves:
        words = f"{curve.split} split" if len(names) == 1 else f"{curve.name}, {curve.split} split"
        style = _style(curve, colours)
        handles.setdefault(words, Line2D([], [], **style))
    if any(not np.isfinite(curve.rows).all() for curve in curves):
        handles[_NOT_FINITE] = Line2D([], [], color="black", marker="x", markersize=5, linestyle="")
    if chords:
        handles["straight between the ends"] = Line2D([], [], color=QUIET_COLOUR, linewidth=0.8)
    width = len(panels) * _WIDTH + 0.3
    longest = max(text_width(words, TICK_POINTS) for words in handles)
    columns = max(1, min(len(handles), int(width / (longest + 0.55))))
    figure = new_figure(width, _HEIGHT + 0.17 * -(-len(handles) // columns), title)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        drawn = [(line, line.curve) for line in panel.curves if len(line.positions) and len(line.rows)]
        set_scales(axes, "auto", [_with_rows(*pair) if each_row else pair[1] for pair in drawn])
        for place, label in (marks or {}).items():
            _mark(axes, place, label)
        for line, mean in drawn:
            _draw(axes, line, mean, _style(line, colours), marks or {}, each_row=each_row)
            if chords:
                _draw_chord(axes, line, mean, colours[line.name], is_gain=panel.is_gain)
        open_axes(axes, "both")
        label_axes(axes, panel.title, x_label, panel.y_label)
        if marks:
            axes.set_title(panel.title, fontsize=TITLE_POINTS, pad=14, parse_math=False)
    add_legend(figure, handles, ncols=columns, handlelength=3.2, labelspacing=0.35)
    return settle(figure, note=note)


def _style(line: LineCurve, colours: Mapping[str, str]) -> dict[str, Any]:
    """Colour by path, dash by split."""
    return {
        "color": colours[line.name],
        "linestyle": _DASHES.get(line.split, "-"),
        "linewidth": 1.7 if line.split == "test" else 1.3,
    }


def _with_rows(line: LineCurve, curve: Curve) -> Curve:
    """A curve whose band holds every finite row, so that the scale does."""
    rows = np.where(np.isfinite(line.rows), line.rows, np.nan)
    low, high = (np.where(np.isfinite(rows).any(axis=0), edge, np.nan) for edge in _edges(rows))
    return Curve(curve.name, curve.x, curve.mean, low, high)


def _edges(rows: Float[np.ndarray, "row position"]) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(rows)
    return np.where(known, rows, np.inf).min(axis=0), np.where(known, rows, -np.inf).max(axis=0)


def _mark(axes: Axes, place: float, label: str) -> None:
    """A quiet vertical line, and what it stands for above the panel."""
    axes.axvline(place, color="#B3B3B3", linewidth=0.8, zorder=1)
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": QUIET_COLOUR, "parse_math": False}
    axes.annotate(label, (place, 1.0), (0, 1), fontsize=NOTE_POINTS, **above, **style)


def _draw(
    axes: Axes,
    line: LineCurve,
    curve: Curve,
    style: Mapping[str, Any],
    marks: Mapping[float, str],
    *,
    each_row: bool,
) -> None:
    """The mean, its band or its rows, dots at the marks, and a cross where the values end."""
    colour = style["color"]
    if each_row and len(line.rows) > 1:
        for row in line.rows:
            thin = dict(style) | {"linewidth": 0.6, "alpha": 0.45, "zorder": 2, "label": "_row"}
            axes.plot(curve.x, np.where(np.isfinite(row), row, np.nan), **thin)
    elif len(line.rows) > 1:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(curve.x, curve.mean, label=f"{line.name}, {line.split}", zorder=3, **style)
    known = np.isfinite(curve.mean)
    dotted = known & (np.isin(curve.x, list(marks)) | _alone(known))
    axes.plot(curve.x[dotted], curve.mean[dotted], "o", color=colour, markersize=3.5, label="_dot", zorder=4)
    ends = known & (~np.r_[known[1:], True] | ~np.r_[True, known[:-1]])
    axes.plot(curve.x[ends], curve.mean[ends], "x", color=colour, markersize=5, label="_end", zorder=4)


def _alone(known: Bool[np.ndarray, " position"]) -> Bool[np.ndarray, " position"]:
    """Values without a neighbour, which no line would show."""
    alone: np.ndarray = known & ~np.r_[False, known[:-1]] & ~np.r_[known[1:], False]
    return alone


def _draw_chord(axes: Axes, line: LineCurve, curve: Curve, colour: str, *, is_gain: bool) -> None:
    """The chord from 0 to 1, and the largest distance of the curve from it."""
    inside = np.flatnonzero((curve.x >= 0) & (curve.x <= 1))
    if len(inside) < 2 or not {0.0, 1.0} <= set(curve.x[inside].tolist()):
        return
    x, mean = curve.x[inside], curve.mean[inside]
    # On a logarithmic scale a straight line is bent.
    places = np.linspace(0, 1, 101)
    quiet: dict[str, Any] = {"color": QUIET_COLOUR, "linewidth": 0.8, "label": "_chord", "zorder": 1.5}
    axes.plot(places, (1 - places) * mean[0] + places * mean[-1], **quiet)
    chord = (1 - x) * mean[0] + x * mean[-1]
    gaps = np.where(np.isfinite(mean), (chord - mean) if is_gain else (mean - chord), -np.inf)
    highest = int(gaps.argmax())
    if not gaps[highest] > 0:
        return
    ends = [chord[highest], mean[highest]]
    axes.plot([x[highest]] * 2, ends, color=colour, linewidth=0.9, linestyle=":", label="_gap", zorder=2)
