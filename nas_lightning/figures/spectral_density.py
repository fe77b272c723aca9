"""Densities of the eigenvalues of the loss's curvature, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from nas_lightning.figures.curves import LINE_STYLES, LineStyle
from nas_lightning.figures.picture import (
    NOTE_POINTS,
    QUIET_COLOUR,
    TITLE_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
)

if TYPE_CHECKING:
    import xarray as xr

_WIDTH = 3.9
_HEIGHT = 2.7
_NORMALIZED = "normalized_"
_NAMES: Mapping[str, str] = MappingProxyType({"hessian": "Hessian H", "gauss_newton": "Gauss-Newton part G"})
_COLOURS = {"hessian": "#0072B2", "gauss_newton": "#D55E00"}
_DASHES: Mapping[str, LineStyle] = {"hessian": LINE_STYLES[0], "gauss_newton": LINE_STYLES[1]}
_LINEAR_WIDTHS = 5.0
"""Widths of the kernel on each side of 0 in which the horizontal axis is linear."""
_FLOOR = 1.5
"""Decades below the peak of a single eigenvalue at which the vertical axis ends."""


@dataclass(frozen=True, eq=False)
class DensityCurve:
    """The density of one matrix.

    Attributes:
        matrix: ``"hessian"`` or ``"gauss_newton"``.
        eigenvalues: Points, increasing.
        log_density: log10 of the density at the points.
        errors: Its standard error; NaN draws no band.
        width: Standard deviation of the kernel.
        dimension: Number of eigenvalues.
        extremes: The smallest and the largest node.
        moments: The moments in words.
    """

    matrix: str
    eigenvalues: Float[np.ndarray, " points"]
    log_density: Float[np.ndarray, " points"]
    errors: Float[np.ndarray, " points"]
    width: float
    dimension: int
    extremes: tuple[float, float]
    moments: str = ""

    @property
    def of_one(self) -> float:
        """log10 of the density at the peak of a single eigenvalue."""
        return -math.log10(self.dimension * self.width * math.sqrt(2 * math.pi))


@dataclass(frozen=True, eq=False)
class DensityPanel:
    """Densities of matrices in the same units.

    Attributes:
        curves: Those with a start vector that is done.
        is_normalized: Whether the matrices are D A D.
        title: Title of the panel.
    """

    curves: Sequence[DensityCurve]
    is_normalized: bool
    title: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether a density is NaN."""
        return not all(math.isfinite(curve.width) for curve in self.curves)


def read_density_panels(dataset: xr.Dataset, title: str = "") -> list[DensityPanel]:
    """The panels of a file: one of the plain matrices, one of the normalised ones.

    Raises:
        ValueError: If no start vector is done.
    """
    panels: dict[bool, list[DensityCurve]] = {}
    ridge = float(dataset.attrs["ridge"])
    for row, name in enumerate(str(name) for name in dataset["matrix"].values):
        if not dataset["done"].values[row].any():
            continue
        of = {key: dataset[key].values[row] for key in ("eigenvalue", "log_density", "kernel_width", "node")}
        nodes = of["node"][np.isfinite(of["node"])]
        extremes = (float(nodes.min()), float(nodes.max())) if len(nodes) else (math.nan, math.nan)
        curve = DensityCurve(
            name.removeprefix(_NORMALIZED),
            of["eigenvalue"],
            of["log_density"],
            dataset["log_density_standard_error"].values[row],
            float(of["kernel_width"]),
            int(dataset["dimension"].values[row]),
            extremes,
            _moments(dataset, name, ridge),
        )
        panels.setdefault(name.startswith(_NORMALIZED), []).append(curve)
    if not panels:
        raise ValueError("no start vector is measured")
    return [DensityPanel(curves, normalized, title) for normalized, curves in sorted(panels.items())]


def draw_densities(rows: Sequence[Sequence[DensityPanel]], *, title: str = "", note: str = "") -> Figure:
    """Draw densities: a row for each file, its plain matrices to the left of its normalised ones.

    The band is one standard error over start vectors. Triangles mark the outermost eigenvalues, a grey line
    the peak of a single eigenvalue: the density comes down to it where eigenvalues stand alone. The
    horizontal axis is linear near 0 and logarithmic beyond; panels of one column share both axes.

    Args:
        rows: The panels of each file.
        title: Title of the figure.
        note: Stands below the figure in small letters.

    Raises:
        ValueError: If there is nothing to draw.
    """
    columns = sorted({panel.is_normalized for row in rows for panel in row})
    if not columns:
        raise ValueError("there must be at least one density to draw")
    placed = {
        row * len(columns) + columns.index(panel.is_normalized): panel
        for row, panels in enumerate(rows)
        for panel in panels
    }
    return _draw(placed, len(columns), len(rows), title, note)


def draw_density_grid(panels: Sequence[DensityPanel], columns: int | None = None) -> Figure:
    """Draw densities one after the other, all that are alike on the same axes.

    Args:
        panels: The panels, row by row.
        columns: Panels side by side; up to three by default.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, down = grid_of(len(panels), columns, default=3)
    return _draw(dict(enumerate(panels)), across, down)


def _draw(
    placed: Mapping[int, DensityPanel], columns: int, rows: int, title: str = "", note: str = ""
) -> Figure:
    """Draw panels at their places, counted row by row."""
    figure = new_figure(columns * _WIDTH, rows * (_HEIGHT + 0.35) + 0.3, title)
    for place, panel in placed.items():
        axes = figure.add_subplot(rows, columns, place + 1)
        alike = [other for other in placed.values() if other.is_normalized == panel.is_normalized]
        _draw_panel(axes, panel, [curve for other in alike for curve in other.curves])
    add_legend(
        figure, _legend(list(placed.values())), ncols=2 * min(columns, 2), handlelength=2.8, columnspacing=1.4
    )
    return settle(figure, note=note)


def _draw_panel(axes: Axes, panel: DensityPanel, alike: Sequence[DensityCurve]) -> None:
    """Draw a panel on the axes that suit all that are alike."""
    finite = [curve for curve in alike if math.isfinite(curve.width)]
    if finite:
        _set_scale(axes, finite)
    for curve in panel.curves:
        if not math.isfinite(curve.width):
            axes.text(0.5, 0.5, "NaN", transform=axes.transAxes, ha="center", fontsize=TITLE_POINTS)
            continue
        colour = _COLOURS[curve.matrix]
        axes.plot(
            curve.eigenvalues, curve.log_density, color=colour, linestyle=_DASHES[curve.matrix], linewidth=1.2
        )
        if np.isfinite(curve.errors).any():
            low, high = curve.log_density - curve.errors, curve.log_density + curve.errors
            axes.fill_between(curve.eigenvalues, low, high, color=colour, alpha=0.25, linewidth=0)
        style: dict[str, Any] = {"color": colour, "linestyle": "", "markersize": 5, "clip_on": False}
        bottom = axes.get_ylim()[0]
        axes.plot(curve.extremes, [bottom, bottom], marker="^", zorder=5, **style)
        axes.axhline(curve.of_one, color=colour, linewidth=0.7, linestyle=":")
    open_axes(axes)
    matrices = "filter-normalised, D A D" if panel.is_normalized else "not normalised"
    units = "nat" if panel.is_normalized else "nat per squared weight"
    heading = ", ".join(filter(None, [panel.title, matrices]))
    label_axes(axes, heading, f"eigenvalue ({units})", "log₁₀ density")
    axes.set_title(heading, fontsize=TITLE_POINTS, parse_math=False, pad=8 + 10 * len(panel.curves))
    for line, curve in enumerate(reversed(panel.curves)):
        axes.annotate(
            curve.moments,
            (0.5, 1.0),
            (0, 4 + 10 * line),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=NOTE_POINTS,
            color=_COLOURS[curve.matrix],
            parse_math=False,
        )


def _set_scale(axes: Axes, curves: Sequence[DensityCurve]) -> None:
    """Linear around 0, logarithmic beyond, with room for every curve."""
    linear = _LINEAR_WIDTHS * min(curve.width for curve in curves)
    low = min(curve.eigenvalues[0] for curve in curves)
    high = max(curve.eigenvalues[-1] for curve in curves)
    axes.set_xscale("symlog", linthresh=linear, linscale=1.0)
    axes.set_xlim(low * 1.1 if low < -linear else -linear, high * 1.1 if high > linear else linear)
    ticks = [0.0]
    for end, sign in ((high, 1), (-low, -1)):
        powers = range(math.ceil(math.log10(linear)), math.floor(math.log10(max(end, linear))) + 1)
        ticks += [sign * 10.0**power for power in powers]
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    tops = [curve.log_density[np.isfinite(curve.log_density)].max() for curve in curves]
    axes.set_ylim(min(curve.of_one for curve in curves) - _FLOOR, max(tops) + 0.3)


def _legend(panels: Sequence[DensityPanel]) -> dict[str, Artist]:
    found = {curve.matrix for panel in panels for curve in panel.curves}
    entries: dict[str, Artist] = {
        text: Line2D([], [], color=_COLOURS[name], linestyle=_DASHES[name])
        for name, text in _NAMES.items()
        if name in found
    }
    quiet: dict[str, Any] = {"color": QUIET_COLOUR, "linewidth": 0.9, "markersize": 5}
    entries["outermost eigenvalue"] = Line2D([], [], marker="^", linestyle="", **quiet)
    entries["a single eigenvalue"] = Line2D([], [], linestyle=":", **quiet)
    return entries


def _moments(dataset: xr.Dataset, name: str, ridge: float) -> str:
    """Trace, Frobenius norm and effective dimension with their standard errors."""
    symbol = {"hessian": "H", "gauss_newton": "G"}[name.removeprefix(_NORMALIZED)]
    words = []
    labels = (("trace", "trace"), ("frobenius_norm", "norm"), ("effective_dimension", f"dim({ridge:g})"))
    for moment, label in labels:
        value, error = (float(dataset[f"{name}_{moment}{end}"]) for end in ("", "_standard_error"))
        words.append(f"{label} {_rounded(value, 3)}" + f" ± {_rounded(error, 2)}" * math.isfinite(error))
    return f"{symbol}: {', '.join(words)}"


def _rounded(value: float, digits: int) -> str:
    """A number to some digits, without an exponent where it is short."""
    return f"{float(f'{value:.{digits}g}'):g}"
