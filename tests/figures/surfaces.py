"""Synthetic surfaces, and what a rendered figure shows at a point of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as MatplotlibPath

from nas_lightning.figures.picture import figure_to_array
from nas_lightning.figures.surface import SurfacePanel


def bowl(resolution: int = 21, curvature: float = 6.0, title: str = "") -> SurfacePanel:
    """The loss curvature * (alpha^2 + beta^2), which is beyond all levels in the corners from 5 upwards."""
    steps = np.linspace(-1, 1, resolution)
    return SurfacePanel(steps, steps, curvature * (steps[:, None] ** 2 + steps[None] ** 2), title)


def with_values(surface: SurfacePanel, values: dict[tuple[int, int], float]) -> SurfacePanel:
    changed = surface.values.copy()
    for index, value in values.items():
        changed[index] = value
    return SurfacePanel(surface.alphas, surface.betas, changed, surface.title, surface.measured)


def pixels_around(figure: Figure, axes: Axes, alpha: float, beta: float, half_width: float) -> np.ndarray:
    """Rendered pixels within `half_width` of (alpha, beta) along both axes, [pixel, 3]."""
    picture = figure_to_array(figure, 100.0)
    corners = axes.transData.transform(
        [(alpha - half_width, beta - half_width), (alpha + half_width, beta + half_width)]
    )
    (left, bottom), (right, top) = np.round(corners).astype(int)
    height = len(picture)
    return picture[height - top : height - bottom, left:right].reshape(-1, 3)


def planes(figure: Figure) -> list[Any]:
    """All axes but colour bars; of type Any, since those in three dimensions have no types."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def vertices(path: MatplotlibPath) -> np.ndarray:
    return np.asarray(path.vertices)


def heights(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata())


def inside(figure: Figure, dots_per_inch: float = 100.0) -> bool:
    """Whether every text of a figure lies within it."""
    figure_to_array(figure, dots_per_inch)
    width, height = figure.bbox.width, figure.bbox.height
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    return all(
        box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes
    )


def contours(axes: Axes) -> QuadContourSet:
    (found,) = [artist for artist in axes.get_children() if isinstance(artist, QuadContourSet)]
    return found


def marks(axes: Axes) -> dict[str, int]:
    """How many cells each mark fills."""
    return {str(patch.get_label()): len(vertices(patch.get_path())) // 5 for patch in axes.patches}
