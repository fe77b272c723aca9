"""Figures of an audit: a cell, in blue, among random controls, in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from nas_lightning.figures.picture import (
    LABEL_POINTS,
    QUIET_COLOUR,
    TICK_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
    wrap,
)

OWN_COLOUR, CONTROL_COLOUR, PUBLISHED_COLOUR = "#0072B2", "#8C8C8C", "#D55E00"
"""Okabe and Ito's blue and vermilion, which colour-blind readers tell apart, and a grey."""
_GOLDEN = 0.618034
_WIDE = 20.0
"""Ratio of the largest to the smallest value from which on a scale is logarithmic."""
_LONG_TRAINING = 50
_PANEL_WIDTH = 4.4
"""Inches: a page sets such figures side by side, or below one another on a narrow screen."""
_NAMES_WIDTH = 2.3
_STANDING_WIDTH = 2.7
_ROW_HEIGHT = 0.24
_HEAD_HEIGHT = 0.34
_LINE_HEIGHT = 0.145


@dataclass(frozen=True, eq=False)
class Strip:
    """One quantity of a cell and of its controls.

    Attributes:
        label: What it is, with its unit.
        controls: A value a control; what is not finite is not drawn, but counted in a note.
        own: The cell's value.
        seeds: The cell's value with every seed alone.
        published: Values of published cells.
    """

    label: str
    controls: Float[np.ndarray, " controls"]
    own: float | int
    seeds: Float[np.ndarray, " seeds"]
    published: Float[np.ndarray, " published"] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class StandingRow:
    """Where the cell stands in one property.

    Attributes:
        group: What it was ranked among; rows of one group stand together.
        label: The property.
        percentile: From 0 to 1.
        low: Lower end of its interval; equal to the percentile where the rank is exact.
        high: Upper end.
        stands_out: Whether it is not as expected of a random cell; None where that was not tested.
    """

    group: str
    label: str
    percentile: float | int
    low: float | int
    high: float | int
    stands_out: bool | None


@dataclass(frozen=True, eq=False)
class AuditCurves:
    """One statistic during training.

    Attributes:
        label: Name with its unit.
        own: A curve a seed of the cell.
        controls: A curve a control, its mean over seeds.
    """

    label: str
    own: Float[np.ndarray, "seeds epochs"]
    controls: Float[np.ndarray, "controls epochs"]


def draw_strips(strips: Sequence[Strip], name: str, *, columns: int = 1) -> Figure:
    """Draw every control as a dot, the cell as a diamond; its seeds below, published cells above.

    Heights of dots within a row mean nothing. A scale is logarithmic where the largest value is 20 times the
    smallest or more.

    Args:
        strips: The quantities, a panel each.
        name: The cell's.
        columns: Panels side by side.

    Raises:
        ValueError: If there is nothing to draw.
    """
    across, down = grid_of(len(strips), columns)
    figure = new_figure(across * _PANEL_WIDTH, down * 1.35 + 0.3)
    has_published = any(len(strip.published) for strip in strips)
    for index, strip in enumerate(strips):
        axes = figure.add_subplot(down, across, index + 1)
        _draw_strip(axes, strip, has_published)
    legend: dict[str, Artist] = {"random control": _mark("o", CONTROL_COLOUR), name: _mark("D", OWN_COLOUR)}
    if any(len(strip.seeds) > 1 for strip in strips):
        legend["each seed alone"] = _mark("|", OWN_COLOUR)
    if has_published:
        legend["published cell"] = _mark("^", PUBLISHED_COLOUR, hollow=True)
    add_legend(figure, legend, ncols=len(legend) if len(legend) < 4 or columns > 1 else 2)
    lost = sum(int((~np.isfinite(strip.controls)).sum()) for strip in strips)
    note = f"Not drawn: {lost} values of controls that are not finite." if lost else ""
    return settle(figure, note=note)


def _draw_strip(axes: Axes, strip: Strip, has_published: bool) -> None:
    controls = strip.controls[np.isfinite(strip.controls)]
    heights = _spread(controls, 0.75)
    axes.plot(controls, heights, "o", color=CONTROL_COLOUR, markersize=3.2, markeredgewidth=0, alpha=0.7)
    drawn = [controls]
    if np.isfinite(strip.own):
        axes.axvline(float(strip.own), color=OWN_COLOUR, linewidth=0.9, zorder=1)
        axes.plot([strip.own], [0.0], "D", color=OWN_COLOUR, markersize=6, markeredgecolor="white", zorder=3)
        drawn.append(np.array([float(strip.own)]))
    seeds = strip.seeds[np.isfinite(strip.seeds)]
    low, high = -0.6, 0.6
    if len(strip.seeds) > 1:
        axes.plot(seeds, np.full(len(seeds), -0.85), "|", color=OWN_COLOUR, markersize=7)
        drawn.append(seeds)
        low = -1.15
    if has_published:
        published = strip.published[np.isfinite(strip.published)]
        place = 0.95 + _spread(published, 0.3)
        axes.plot(published, place, "^", color=PUBLISHED_COLOUR, markersize=4, fillstyle="none")
        drawn.append(published)
        high = 1.3
    axes.set_ylim(low, high)
    axes.set_yticks([])
    _set_scale(axes, np.concatenate(drawn), "x")
    open_axes(axes, "x", hidden="top right left")
    label_axes(axes, "", strip.label, "")


def _spread(values: np.ndarray, height: float) -> np.ndarray:
    """Heights of dots by their ranks, so that neighbours stand apart."""
    ranks = np.argsort(np.argsort(values, kind="stable"))
    return ((ranks * _GOLDEN) % 1 - 0.5) * height if len(values) > 1 else np.zeros(len(values))


def draw_standings(rows: Sequence[StandingRow]) -> Figure:
    """Draw the cell's percentile in every property, with its interval, in groups.

    Filled marks stand out after correction, hollow ones do not; a cross was not tested.

    Args:
        rows: The properties, from top to bottom.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not rows:
        raise ValueError("there must be at least one property to draw")
    groups = list(dict.fromkeys(row.group for row in rows))
    lines: list[tuple[StandingRow | None, list[str], float]] = []
    for group in groups:
        members = [row for row in rows if row.group == group]
        head = wrap(group, _NAMES_WIDTH + _STANDING_WIDTH - 0.2, LABEL_POINTS)
        lines.append((None, head, _HEAD_HEIGHT + _LINE_HEIGHT * (len(head) - 1)))
        for member in members:
            text = wrap(member.label, _NAMES_WIDTH - 0.15, TICK_POINTS)
            lines.append((member, text, _ROW_HEIGHT + _LINE_HEIGHT * (len(text) - 1)))
    inside = sum(height for *_, height in lines)
    width, height = _NAMES_WIDTH + _STANDING_WIDTH + 0.3, inside + 1.0
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes(
        (_NAMES_WIDTH / width, 0.85 / height, _STANDING_WIDTH / width, (inside + 0.05) / height)
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(inside, -0.05)
    axes.axvline(0.5, color="#7F7F7F", linewidth=1, zorder=1)
    y = 0.0
    for row, text, size in lines:
        middle = y + size / 2
        y += size
        style: dict[str, Any] = {"va": "center", "parse_math": False, "clip_on": False}
        if row is None:
            middle += 0.04
            axes.text(
                -0.02 - 1.04 * (_NAMES_WIDTH - 0.08) / _STANDING_WIDTH,
                middle,
                "\n".join(text),
                fontsize=LABEL_POINTS,
                fontweight="bold",
                ha="left",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
                **style,
            )
            continue
        axes.text(-0.05, middle, "\n".join(text), fontsize=TICK_POINTS, ha="right", **style)
        colour = QUIET_COLOUR if row.stands_out is None else OWN_COLOUR
        if row.high > row.low:
            axes.plot([row.low, row.high], [middle] * 2, color=colour, linewidth=1.3, zorder=2)
        axes.plot([row.percentile], [middle], **_standing_mark(row.stands_out), zorder=3, clip_on=False)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    open_axes(axes, "x", hidden="top right left")
    label_axes(axes, "", "share of random cells with a smaller value (ties count half)", "")
    said = {True: "unusual", False: "as expected of a random cell", None: "not tested"}
    legend: dict[str, Artist] = {
        said[key]: Line2D([], [], **_standing_mark(key))
        for key in (True, False, None)
        if any(row.stands_out is key for row in rows)
    }
    add_legend(figure, legend, loc="lower center")
    return settle(figure)


def _standing_mark(stands_out: bool | None) -> dict[str, Any]:
    if stands_out is None:
        return {"marker": "x", "color": QUIET_COLOUR, "markersize": 5, "linestyle": ""}
    face = OWN_COLOUR if stands_out else "white"
    return {
        "marker": "D",
        "color": OWN_COLOUR,
        "markerfacecolor": face,
        "markersize": 5.5,
        "linestyle": "",
    }


def draw_audit_curves(
    epochs: Float[np.ndarray, " epochs"], panels: Sequence[AuditCurves], name: str
) -> Figure:
    """Draw the trainings: a thin grey line a control, a thin blue line a seed of the cell, thick its mean.

    Lines break where a value is not finite.

    Args:
        epochs: Numbers of the epochs, rising.
        panels: The statistics, side by side.
        name: The cell's.

    Raises:
        ValueError: If there is nothing to draw.
    """
    across, down = grid_of(len(panels), None, default=2)
    figure = new_figure(across * _PANEL_WIDTH, down * 2.7 + 0.3)
    marker = "o" if len(epochs) == 1 else ""
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        grey: dict[str, Any] = {"color": CONTROL_COLOUR, "linewidth": 0.7, "alpha": 0.65}
        axes.plot(epochs, _finite(panel.controls).T, marker=marker, markersize=3, zorder=2, **grey)
        own = _finite(panel.own)
        if len(own) > 1:
            axes.plot(epochs, own.T, color=OWN_COLOUR, linewidth=0.8, alpha=0.8, zorder=3)
        axes.plot(epochs, own.mean(0), color=OWN_COLOUR, linewidth=2.0, marker=marker, zorder=4)
        _set_scale(axes, np.concatenate([panel.controls.ravel(), own.ravel()]), "y")
        _set_epochs(axes, len(epochs))
        open_axes(axes, "y")
        label_axes(axes, "", "epochs", panel.label)
    legend: dict[str, Artist] = {
        "random control": Line2D([], [], color=CONTROL_COLOUR, linewidth=0.9, marker=marker),
        name: Line2D([], [], color=OWN_COLOUR, linewidth=2.0, marker=marker),
    }
    if any(len(panel.own) > 1 for panel in panels):
        legend["each seed"] = Line2D([], [], color=OWN_COLOUR, linewidth=0.8)
    add_legend(figure, legend)
    return settle(figure)


def draw_rank_by_epoch(ranks: Float[np.ndarray, " epochs"], count: int, name: str) -> Figure:
    """Draw the cell's rank among its controls by epochs trained; rank 1, the best, stands at the top.

    Args:
        ranks: Rank after every epoch, NaN where there is none.
        count: Number of ranks.
        name: The cell's.
    """
    figure = new_figure(_PANEL_WIDTH, 2.4)
    axes = figure.add_subplot()
    marker = "o" if len(ranks) <= _LONG_TRAINING else ""
    epochs = np.arange(1, len(ranks) + 1)
    axes.plot(epochs, ranks, color=OWN_COLOUR, linewidth=1.6, marker=marker, markersize=4, zorder=3)
    axes.set_ylim(count + 0.6, 0.4)
    axes.set_yticks(sorted({1, *np.linspace(1, count, 5).round().astype(int).tolist()}))
    _set_epochs(axes, len(ranks))
    open_axes(axes, "y")
    label_axes(axes, "", "epochs", f"rank of {name} among {count}")
    return settle(figure)


def draw_picks(
    epochs: Float[np.ndarray, " picks"],
    regrets: Float[np.ndarray, " picks"],
    is_own: Bool[np.ndarray, " picks"],
    name: str,
) -> Figure:
    """Draw what a search loses at the end that picks, after some epochs, the best cell so far.

    Args:
        epochs: Numbers of epochs, rising.
        regrets: Points of accuracy that each pick loses against the best at the end.
        is_own: Whether the pick is the audited cell.
        name: The cell's.
    """
    figure = new_figure(_PANEL_WIDTH, 2.4)
    axes = figure.add_subplot()
    axes.plot(epochs, regrets, color=CONTROL_COLOUR, linewidth=1.0)
    size = 5.0 if len(epochs) <= _LONG_TRAINING else 2.5
    legend: dict[str, Artist] = {}
    for own, colour, sign, said in (
        (False, CONTROL_COLOUR, "o", "picks a control"),
        (True, OWN_COLOUR, "D", f"picks {name}"),
    ):
        if (is_own == own).any():
            of_kind = epochs[is_own == own], regrets[is_own == own]
            axes.plot(*of_kind, sign, color=colour, markersize=size, zorder=3, clip_on=False)
            legend[said] = _mark(sign, colour)
    _set_epochs(axes, int(epochs.max()))
    axes.set_ylim(bottom=0.0)
    open_axes(axes, "y")
    label_axes(axes, "", "epochs", "regret of the pick (points)")
    add_legend(figure, legend)
    return settle(figure)


def _mark(marker: str, colour: str, *, hollow: bool = False) -> Line2D:
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markersize=6,
        linestyle="",
        fillstyle="none" if hollow else "full",
    )


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _set_scale(axes: Axes, values: np.ndarray, axis: str) -> None:
    known = values[np.isfinite(values)]
    if len(known) and known.min() > 0 and known.max() >= _WIDE * known.min():
        scaled = axes.xaxis if axis == "x" else axes.yaxis
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        scaled.set_major_locator(LogLocator(numticks=5))
        scaled.set_minor_formatter(NullFormatter())
    elif axis == "x":
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _set_epochs(axes: Axes, epochs: int) -> None:
    if epochs > _LONG_TRAINING:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
