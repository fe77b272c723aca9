"""Surfaces in three dimensions, after figures 8 and 21 to 24 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from mpl_toolkits.mplot3d.axes3d import Axes3D  # type: ignore[import-untyped]

from nas_lightning.figures.facts import shared_note
from nas_lightning.figures.picture import (
    LABEL_POINTS,
    TICK_POINTS,
    TITLE_POINTS,
    add_colour_bar,
    grid_of,
    new_figure,
    settle,
    wrap,
)
from nas_lightning.figures.scale import Scale, colour_scale, power_of_ten
from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel
from nas_lightning.figures.variance import HEAT_COLOURS

_STEP_TICKS = MaxNLocator(5, steps=[1, 2.5, 5, 10])


def draw_surfaces(
    surfaces: Sequence[SurfacePanel],
    *,
    label: str = "standard deviation of the gradient",
    scale: Scale = "auto",
    vmin: float | int | None = None,
    vmax: float | int | None = None,
    columns: int | None = None,
    title: str = "",
) -> Figure:
    """Draw surfaces in three dimensions side by side, with the same heights and colours (figure 8).

    The surface consists of the squares between four neighbouring points with finite values; the rest are
    holes. It is cut off at given limits, so that extreme values do not flatten it. Squares that leap far
    beyond the limits (100 times their distance, twice on a logarithmic scale) are holes too. A note counts
    the points left out, by reason. Large or small values on a linear scale are divided by a power of ten that
    the label names (figures 21 to 24: 10^5).

    Args:
        surfaces: Values; figure 8 shows the standard deviation, figures 21 to 24 the variance.
        label: Name of the values, with their unit.
        scale: Linear, logarithmic, or chosen by the data.
        vmin: Lower end of heights and colours; the smallest finite value by default.
        vmax: Upper end of heights and colours; the largest finite value by default.
        columns: Panels side by side; up to four by default.
        title: Title of the whole figure.

    Returns:
        The figure, with one colour bar.

    Raises:
        ValueError: If there is nothing to draw, or limits or columns are not valid.
    """
    across, down = grid_of(len(surfaces), columns)
    norm = colour_scale([surface.finite for surface in surfaces], scale, vmin, vmax)
    heights = _Heights.of(norm)
    side = {1: 4.4, 2: 3.7}.get(across, 3.2)
    figure = new_figure(across * side + 1.0, down * side * 0.9, title)
    planes = [figure.add_subplot(down, across, index + 1, projection="3d") for index in range(len(surfaces))]
    for axes, surface in zip(planes, surfaces, strict=True):
        _draw_surface(axes, surface, heights, side)
    colours = ScalarMappable(Normalize(heights.low, heights.high), HEAT_COLOURS)
    bar = add_colour_bar(figure, colours, planes, label + heights.power, shrink=0.7, pad=0.04)
    bar.set_ticks(heights.ticks, labels=heights.tick_labels)
    return settle(figure, note=shared_note([surface.facts for surface in surfaces]))


@dataclass(frozen=True)
class _Heights:
    """How values become heights: their logarithm, or their multiple of a power of ten."""

    low: float
    high: float
    exponent: int | None
    power: str
    ticks: list[float]
    tick_labels: list[str]

    @classmethod
    def of(cls, norm: Normalize) -> _Heights:
        low, high = np.asarray(norm.inverse(np.array([0.0, 1.0]))).tolist()
        if isinstance(norm, LogNorm):
            low, high = np.log10([low, high]).tolist()
            step = max(1, round((high - low) / 5))
            powers = [float(power) for power in range(int(np.ceil(low)), int(np.floor(high)) + 1, step)]
            if len(powers) > 1:
                return cls(low, high, None, "", powers, [f"$10^{{{power:.0f}}}$" for power in powers])
            ends = np.linspace(low, high, 4).tolist()
            return cls(low, high, None, "", ends, [f"{10**end:.3g}" for end in ends])
        exponent, power = power_of_ten(max(abs(low), abs(high)))
        low, high = low / 10.0**exponent, high / 10.0**exponent
        ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
        return cls(low, high, exponent, power, ticks, [f"{tick:g}" for tick in ticks])

    @property
    def leap(self) -> float:
        """How many lengths of the scale above its lower end a square may reach."""
        return 2.0 if self.exponent is None else 100.0

    def __call__(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Heights of values; NaN for values that are not finite or have no logarithm."""
        if self.exponent is not None:
            return np.asarray(values / 10.0**self.exponent)
        return np.asarray(np.log10(values, where=values > 0, out=np.full(values.shape, np.nan)))


def _draw_surface(axes: Axes3D, surface: SurfacePanel, heights: _Heights, width: float) -> None:
    z = heights(surface.finite)
    corners = np.stack([*np.broadcast_arrays(surface.alphas[:, None], surface.betas[None], z)], axis=-1)
    squares = np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=2)
    squares = squares.reshape(-1, 4, 3)
    squares = squares[np.isfinite(squares).all(axis=(1, 2))]
    length = heights.high - heights.low
    # Where the surface leaps far off the scale between two points, a wall would stand in place of a slope.
    squares = squares[(np.abs(squares[:, :, 2] - heights.low) <= heights.leap * length).all(axis=1)]
    room = 1e-9 * length
    faces = [face for square in squares if len(face := _cut(square, heights.low - room, heights.high + room))]
    if faces:
        means = np.array([face[:, 2].mean() for face in faces])
        # matplotlib fills shorter faces up with whatever is in memory.
        most = max(map(len, faces))
        faces = [np.concatenate([face, np.repeat(face[-1:], most - len(face), axis=0)]) for face in faces]
        colours = HEAT_COLOURS((means - heights.low) / length)
        mesh = Poly3DCollection(faces, facecolors=colours, edgecolors=(0, 0, 0, 0.35), linewidths=0.25)
        mesh.set_clip_on(False)  # the box is larger than the rectangle that it would be clipped to
        axes.add_collection3d(mesh)
    axes.set_xlim(surface.alphas[0], surface.alphas[-1])
    axes.set_ylim(surface.betas[0], surface.betas[-1])
    axes.set_zlim(heights.low, heights.high)
    axes.set_xticks(_steps(surface.alphas))
    axes.set_yticks(_steps(surface.betas)[1:])  # the first would stand on the last of alpha
    axes.set_zticks(heights.ticks, heights.tick_labels)
    axes.tick_params(labelsize=TICK_POINTS, pad=0)
    axes.set_xlabel(ALPHA, fontsize=LABEL_POINTS, labelpad=-2)
    axes.set_ylabel(BETA, fontsize=LABEL_POINTS, labelpad=-2)
    axes.view_init(elev=28, azim=-58)
    axes.set_box_aspect((4, 4, 3), zoom=1.17)
    lines = [*wrap(surface.title, width), *_left_out(surface, z, heights)]
    axes.set_title("\n".join(lines).strip("\n"), fontsize=TITLE_POINTS, parse_math=False, pad=-6)


def _cut(square: Float[np.ndarray, "corner 3"], low: float, high: float) -> Float[np.ndarray, "corners 3"]:
    """The part of a square that lies between two heights; without corners if there is none."""
    for limit, sign in ((high, 1), (low, -1)):
        above = sign * (square[:, 2] - limit)
        if (above <= 0).all():
            continue
        kept = []
        for index in range(len(square)):
            start, end = square[index - 1], square[index]
            before, after = above[index - 1], above[index]
            if (before > 0) != (after > 0):
                x, y, _ = start + (end - start) * (before / (before - after))
                kept.append(np.array([x, y, limit]))  # beside 1e30, the sum would have lost the height
            if after <= 0:
                kept.append(end)
        square = np.array(kept).reshape(-1, 3)
    return square


def _steps(steps: Float[np.ndarray, " steps"]) -> list[float]:
    """Ticks from the first step to the last."""
    low, high = float(steps[0]), float(steps[-1])
    return [float(tick) for tick in _STEP_TICKS.tick_values(low, high) if low <= tick <= high]


def _left_out(surface: SurfacePanel, z: Float[np.ndarray, "alpha beta"], heights: _Heights) -> list[str]:
    """The note on points that the surface does not show."""
    room = 1e-9 * (heights.high - heights.low)
    shown = (z >= heights.low - room) & (z <= heights.high + room)
    left_out = {
        "NaN": surface.is_nan,
        "infinite": surface.is_infinite,
        "off the scale": np.isfinite(surface.finite) & ~shown,
        "not measured": ~surface.is_measured,
    }
    reasons = [f"{chosen.sum()} {reason}" for reason, chosen in left_out.items() if chosen.any()]
    return [f"(left out: {', '.join(reasons)})"] if reasons else []
