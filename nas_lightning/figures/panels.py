"""What pictures of surfaces share: the panel, the marks for values that are none, one colour scale for all.

Across a surface, alpha runs along x and beta along y, as in figures 6 and 7 of the paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
BETA = "\N{GREEK SMALL LETTER BETA}"
TITLE_POINTS = 9.0
LABEL_POINTS = 8.5
TICK_POINTS = 7.5
NOTE_POINTS = 7.0
RIGHT: Mapping[str, Any] = {"location": "right", "pad": 0.02}
"""Where a colour bar stands."""
BELOW: Mapping[str, Any] = {
    "location": "bottom",
    "pad": 0.03,
    "anchor": (0.0, 1.0),
    "shrink": 0.3,
    "aspect": 16,
}
"""Where a colour bar of the first of three columns stands."""
_TITLE_COLUMNS_PER_INCH = 12.5


@dataclass(frozen=True, eq=False)
class SurfacePanel:
    """One surface to draw.

    Attributes:
        alphas: Steps along the first direction, increasing.
        betas: Steps along the second direction, increasing.
        values: Value at every point; NaN and infinity are drawn as such.
        title: What stands above the panel.
        measured: Which points have a value at all; every one by default. The others are drawn apart from NaN.

    Raises:
        ValueError: If an axis has fewer than two steps or does not increase.
    """

    alphas: Float[np.ndarray, " alpha"]
    betas: Float[np.ndarray, " beta"]
    values: Float[np.ndarray, "alpha beta"]
    title: str = ""
    measured: Bool[np.ndarray, "alpha beta"] | None = None

    def __post_init__(self) -> None:
        check_axes(self.alphas, self.betas)

    @property
    def is_measured(self) -> Bool[np.ndarray, "alpha beta"]:
        """Which points have a value, NaN and infinity included."""
        return np.ones(self.values.shape, dtype=bool) if self.measured is None else self.measured

    @property
    def is_nan(self) -> Bool[np.ndarray, "alpha beta"]:
        """Measured points whose value is not a number."""
        return np.asarray(self.is_measured & np.isnan(self.values))

    @property
    def is_infinite(self) -> Bool[np.ndarray, "alpha beta"]:
        """Measured points whose value is infinite."""
        return np.asarray(self.is_measured & np.isinf(self.values))

    @property
    def finite(self) -> Float[np.ndarray, "alpha beta"]:
        """Values, with NaN in place of everything that is not a finite measurement."""
        return np.where(self.is_measured & np.isfinite(self.values), self.values, np.nan)


def check_axes(alphas: Float[np.ndarray, " alpha"], betas: Float[np.ndarray, " beta"]) -> None:
    """Refuse steps that span no surface.

    Args:
        alphas: Steps along the first direction.
        betas: Steps along the second direction.

    Raises:
        ValueError: If an axis has fewer than two steps or does not increase.
    """
    for name, steps in (("alphas", alphas), ("betas", betas)):
        if len(steps) < 2 or not (np.isfinite(steps).all() and (np.diff(steps) > 0).all()):
            raise ValueError(f"`{name}` must be two or more finite, increasing steps, not {steps.tolist()}")


def check_columns(count: int, columns: int | None) -> int:
    """How many panels stand side by side.

    Args:
        count: Number of panels.
        columns: What was asked for; all of them up to four by default.

    Returns:
        Number of columns, at most ``count``.

    Raises:
        ValueError: If there are no panels, or ``columns`` is not positive.
    """
    if count == 0:
        raise ValueError("there must be at least one surface to draw")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` (={columns}) must be at least 1")
    return min(count, columns or 4)


def plane_figure(
    panels: Sequence[SurfacePanel], columns: int | None, title: str
) -> tuple[Figure, list[Axes]]:
    """An empty figure with a plane for every panel; edge panels carry the names of the axes.

    Args:
        panels: The panels, from left to right and from top to bottom.
        columns: How many stand side by side.
        title: What stands above all of them.

    Returns:
        The figure, and the axes in the order of the panels.

    Raises:
        ValueError: If there are no panels, or ``columns`` is not positive.
    """
    across = check_columns(len(panels), columns)
    down = -(-len(panels) // across)
    side = {1: 3.6, 2: 2.9}.get(across, 2.4)
    lines = max(len(wrap(panel.title, side)) for panel in panels)
    figure = Figure(
        figsize=(
            across * (side + 0.35) + 1.3,
            down * (side + 0.35 + 0.17 * lines) + 0.65 + 0.3 * bool(title),
        ),
        layout="compressed",
        facecolor="white",
    )
    if title:
        figure.suptitle(title, fontsize=TITLE_POINTS + 1, parse_math=False)
    planes = []
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        name_plane(axes, panel.title, side)
        if index + across < len(panels):
            axes.set_xlabel("")
        if index % across:
            axes.set_ylabel("")
        planes.append(axes)
    return figure, planes


def name_plane(axes: Axes, title: str, width: float) -> None:
    """Write the title and the names of the steps.

    Args:
        axes: The plane.
        title: Its title.
        width: Width in inches, to which the title is wrapped.
    """
    axes.set_title("\n".join(wrap(title, width)), fontsize=TITLE_POINTS, parse_math=False)
    axes.set_xlabel(ALPHA, fontsize=LABEL_POINTS)
    axes.set_ylabel(BETA, fontsize=LABEL_POINTS)
    axes.tick_params(labelsize=TICK_POINTS)
    axes.locator_params(nbins=5)


def set_plane(axes: Axes, horizontal: tuple[float, float], vertical: tuple[float, float]) -> None:
    """Set limits, with one unit as long in both directions unless the plane would become a strip.

    Args:
        axes: The plane.
        horizontal: Limits of alpha.
        vertical: Limits of beta.
    """
    axes.set_xlim(*horizontal)
    axes.set_ylim(*vertical)
    ratio = (vertical[1] - vertical[0]) / (horizontal[1] - horizontal[0])
    if 1 / 3 <= ratio <= 3:
        axes.set_aspect("equal")
    else:
        axes.set_box_aspect(1)


def mark_center(axes: Axes) -> None:
    """Mark (0, 0), the trained weights, if it lies within the plane.

    Args:
        axes: The plane.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if left <= 0 <= right and bottom <= 0 <= top:
        outline = [withStroke(linewidth=2.6, foreground="white")]
        axes.plot(0, 0, "+", color="black", markersize=7, markeredgewidth=1.2, path_effects=outline, zorder=5)


def mark_values(axes: Axes, panel: SurfacePanel, *, infinite: bool) -> None:
    """Fill the cells of points without a finite value: each point's cell reaches half way to its neighbours.

    Args:
        axes: The plane.
        panel: The surface.
        infinite: Whether infinite points are marked too.
    """
    _fill_cells(axes, panel, ~panel.is_measured, "not measured", "#EDEDED", None)
    _fill_cells(axes, panel, panel.is_nan, "NaN", "#BDBDBD", "//////")
    if infinite:
        _fill_cells(axes, panel, panel.is_infinite, "infinite", "#FFFFFF", "xxxxxx")


def _fill_cells(
    axes: Axes, panel: SurfacePanel, chosen: np.ndarray, label: str, colour: str, hatch: str | None
) -> None:
    """One path for all cells, so that no seams show between them."""
    if not chosen.any():
        return
    x, y = cell_borders(panel.alphas), cell_borders(panel.betas)
    vertices = [
        point
        for i, j in np.argwhere(chosen)
        for point in (
            *((x[i], y[j]), (x[i + 1], y[j]), (x[i + 1], y[j + 1]), (x[i], y[j + 1])),
            (x[i], y[j]),
        )
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * int(chosen.sum())
    axes.add_patch(
        PathPatch(
            Path(vertices, codes),
            facecolor=colour,
            edgecolor="#4D4D4D",
            linewidth=0,
            hatch=hatch,
            label=label,
            zorder=1.5,
        )
    )


def add_legend(figure: Figure, lines: Mapping[str, Artist] | None = None) -> None:
    """Explain the marks that occur, once for all panels.

    Args:
        figure: The figure.
        lines: What else is to be explained, by name.
    """
    marks: dict[str, Artist] = {
        str(patch.get_label()): patch for axes in figure.axes for patch in axes.patches
    }
    entries = dict(lines or {}) | {
        name: marks[name] for name in ("NaN", "infinite", "not measured") if name in marks
    }
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=len(entries),
            fontsize=TICK_POINTS,
            frameon=False,
            handlelength=1.6,
            handleheight=1.2,
        )


def cell_borders(steps: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " borders"]:
    """Borders of the cells around steps: half way between neighbours, and as far outside at the ends.

    Args:
        steps: Increasing steps.

    Returns:
        One border more than there are steps.

    Examples:
        >>> cell_borders(np.array([0.0, 1.0, 3.0])).tolist()
        [-0.5, 0.5, 2.0, 4.0]
    """
    middles = (steps[:-1] + steps[1:]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])


def wrap(title: str, width: float) -> list[str]:
    """Lines of a title that fit above a panel.

    Args:
        title: The title; its own line breaks stay.
        width: Width of the panel in inches.

    Returns:
        The lines, one at least.
    """
    characters = int(width * _TITLE_COLUMNS_PER_INCH)
    return [part for line in title.splitlines() for part in textwrap.wrap(line, characters)] or [""]


def settle(figure: Figure, *, planes: Sequence[Axes] = ()) -> Figure:
    """Lay a finished figure out once and for all: drawn again, it would move a little with every drawing.

    Args:
        figure: The figure.
        planes: Axes of fixed aspect: what they leave free of the figure's height is cut off.

    Returns:
        The same figure.
    """
    layout = figure.get_layout_engine()
    if layout is None:
        return figure
    layout.execute(figure)
    if planes:
        boxes = [axes.get_tightbbox() for axes in planes]
        used = max(box.y1 for box in boxes if box) - min(box.y0 for box in boxes if box)
        around = [*figure.legends, *figure.texts]
        used += sum(artist.get_window_extent().height for artist in around)
        height = used / figure.dpi + 0.12 * (1 + len(around))
        if height < figure.get_figheight():
            figure.set_figheight(height)
            layout.execute(figure)
    figure.set_layout_engine("none")
    return figure
