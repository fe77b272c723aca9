"""Forest plot: effects with their confidence intervals, one a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from nas_lightning.figures.picture import LABEL_POINTS, TICK_POINTS, TITLE_POINTS, settle, wrap

LOOKS = {
    "supported": ("#009E73", "o", "circle"),
    "contradicted": ("#D55E00", "X", "x"),
    "undecided": ("#595959", "s", "square"),
    "cannot decide": ("#A0608A", "v", "triangle-down"),
    "exploratory": ("#0072B2", "D", "diamond"),
    "no data": ("#8C8C8C", "", ""),
}
"""Colour (Okabe and Ito's palette) and marker of a verdict, as matplotlib and as plotly call it."""
_BAND = "#0072B2"
_ROW_HEIGHT = 0.27
_LINE_HEIGHT = 0.145
_AXES_WIDTH = 3.2
_NAMES_WIDTH = 3.2
_VERDICT_WIDTH = 2.3
_BELOW_HEIGHT = 0.5

Verdict: TypeAlias = Literal[
    "supported", "contradicted", "undecided", "cannot decide", "exploratory", "no data"
]


@dataclass(frozen=True)
class Effect:
    """One row.

    Attributes:
        name: What was tested.
        effect: The effect; NaN where there are no data.
        low: Lower end of its confidence interval.
        high: Upper end.
        verdict: What the test says.
        bound: An effect below it is too small to matter; None where every effect matters.
    """

    name: str
    effect: float | int
    low: float | int
    high: float | int
    verdict: Verdict
    bound: float | None = None


@dataclass(frozen=True)
class EffectPanel:
    """Effects on one scale.

    Attributes:
        effects: The effects, from top to bottom.
        label: What the effect is.
        none: The value that means no effect.
        limits: Ends of the scale; by default those of the intervals.
    """

    effects: Sequence[Effect]
    label: str
    none: float | int = 0.0
    limits: tuple[float | int, float | int] | None = None


def draw_forest(panels: Sequence[EffectPanel], *, title: str = "") -> Figure:
    """Draw effects as marks with their confidence intervals as lines, one a row, one panel a scale.

    Marker and colour say the verdict, which stands in words at the right with the numbers; a line marks no
    effect. A band ends at the bound under which an effect is too small to matter: an interval inside it rules
    out an effect that matters. An interval that leaves the scale ends in an arrow head; an effect without
    data has no mark.

    Args:
        panels: The panels, from top to bottom.
        title: What stands above all of them.

    Returns:
        The figure.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not any(panel.effects for panel in panels):
        raise ValueError("there must be at least one effect to draw")
    filled = [panel for panel in panels if panel.effects]
    rows = [[_row_height(effect) for effect in panel.effects] for panel in filled]
    # Inches from the top: the names at the left would make an automatic layout's axes as narrow as it likes.
    above = 0.1 + 0.3 * bool(title)
    heights = [sum(panel_rows) for panel_rows in rows]
    width = _NAMES_WIDTH + _AXES_WIDTH + _VERDICT_WIDTH
    height = above + sum(heights) + _BELOW_HEIGHT * len(filled) + 0.3
    figure = Figure(figsize=(width, height), facecolor="white")
    if title:
        figure.text(0.5, 1 - 0.15 / height, title, ha="center", fontsize=TITLE_POINTS + 1, parse_math=False)
    top = height - above
    for panel, panel_rows in zip(filled, rows, strict=True):
        top -= sum(panel_rows)
        place = (_NAMES_WIDTH / width, top / height, _AXES_WIDTH / width, sum(panel_rows) / height)
        _draw_panel(figure.add_axes(place), panel, panel_rows)
        top -= _BELOW_HEIGHT
    effects = [effect for panel in filled for effect in panel.effects]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, markersize=6, linewidth=1.4, label=verdict)
        for verdict, (colour, marker, _) in LOOKS.items()
        if marker and any(effect.verdict == verdict for effect in effects)
    ]
    if any(effect.bound is not None for effect in effects):
        handles.append(Patch(facecolor=_BAND, alpha=0.15, label="too small to matter"))
    if handles:
        figure.legend(
            handles=handles, loc="lower center", ncols=len(handles), fontsize=TICK_POINTS, frameon=False
        )
    return settle(figure)


def effect_limits(panel: EffectPanel) -> tuple[float, float]:
    """Ends of a panel's scale: those given, or a little more than intervals, bounds and no effect take."""
    if panel.limits:
        return float(panel.limits[0]), float(panel.limits[1])
    ends = [end for effect in panel.effects for end in (effect.effect, effect.low, effect.high)]
    ends += [effect.bound for effect in panel.effects if effect.bound is not None]
    known = [*(end for end in ends if np.isfinite(end)), panel.none]
    low, high = float(min(known)), float(max(known))
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _row_height(effect: Effect) -> float:
    return _ROW_HEIGHT + _LINE_HEIGHT * (len(wrap(effect.name, _NAMES_WIDTH)) - 1)


def _draw_panel(axes: Axes, panel: EffectPanel, heights: Sequence[float]) -> None:
    low, high = effect_limits(panel)
    axes.set_xlim(low, high)
    middles = np.cumsum(heights) - np.asarray(heights) / 2
    axes.axvline(panel.none, color="#7F7F7F", linewidth=1, zorder=1)
    for effect, y, height in zip(panel.effects, middles.tolist(), heights, strict=True):
        colour, marker, _ = LOOKS[effect.verdict]
        if effect.bound is not None:
            ends = (low, y - height / 2), effect.bound - low, height
            axes.add_patch(Rectangle(*ends, facecolor=_BAND, alpha=0.15, linewidth=0, zorder=0.5))
            edge = [y - height / 2, y + height / 2]
            axes.plot([effect.bound] * 2, edge, "--", color=_BAND, linewidth=1, zorder=1.5)
        if np.isfinite([effect.low, effect.high]).all():
            start, end = max(effect.low, low), min(effect.high, high)
            axes.plot([start, end], [y, y], color=colour, linewidth=1.4, label=effect.name, zorder=2)
            for beyond, place, head in ((effect.low < low, low, "<"), (effect.high > high, high, ">")):
                if beyond:
                    axes.plot(place, y, head, color=colour, markersize=5, clip_on=False, zorder=2)
        if marker and low <= effect.effect <= high:
            axes.plot(effect.effect, y, marker, color=colour, markersize=6, label=effect.name, zorder=3)
        axes.annotate(
            _numbers(effect),
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=TICK_POINTS,
            parse_math=False,
        )
    names = ["\n".join(wrap(effect.name, _NAMES_WIDTH)) for effect in panel.effects]
    axes.set_yticks(middles.tolist(), names)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(float(sum(heights)), 0.0)
    axes.tick_params(labelsize=TICK_POINTS)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(panel.label, fontsize=LABEL_POINTS, parse_math=False)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _numbers(effect: Effect) -> str:
    if not np.isfinite(effect.effect):
        return effect.verdict
    known = np.isfinite([effect.low, effect.high]).all()
    interval = f" ({effect.low:.2f} to {effect.high:.2f})" if known else ""
    return f"{effect.effect:.2f}{interval}, {effect.verdict}".replace("-", "\N{MINUS SIGN}")
