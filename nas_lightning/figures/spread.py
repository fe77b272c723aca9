"""Several pairs of directions: the mean surface, and the spread of single pairs around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nas_lightning.figures.facts import shared_note
from nas_lightning.figures.landscape import LOSS_LEVELS, LOSS_NORM, add_loss_bar, draw_contour
from nas_lightning.figures.picture import label_axes, new_figure, settle
from nas_lightning.figures.scale import Scale, colour_scale
from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel, explain_marks, name_plane
from nas_lightning.figures.variance import add_heat_bar, draw_heat_map

_LINE_COLOUR = "#0072B2"
_BAR_PLACE = {"location": "bottom", "pad": 0.03, "anchor": (0.0, 1.0), "shrink": 0.3, "aspect": 16}
"""Below the first of three columns."""
_SIDE = 2.5


@dataclass(frozen=True, eq=False)
class SurfaceSpread:
    """The surfaces of one network for several pairs of directions.

    Attributes:
        alphas: Steps along the first direction, increasing.
        betas: Steps along the second direction, increasing.
        values: Value at every point for every pair of directions.
        title: Title of the row.
        facts: As for :class:`~nas_lightning.figures.surface.SurfacePanel`.
    """

    alphas: Float[np.ndarray, " alpha"]
    betas: Float[np.ndarray, " beta"]
    values: Float[np.ndarray, "direction_seed alpha beta"]
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> SurfacePanel:
        """The mean over the pairs; NaN or infinite where a pair is."""
        with np.errstate(invalid="ignore"):
            return SurfacePanel(self.alphas, self.betas, self.values.mean(axis=0), self.title)


def draw_spread(
    spreads: Sequence[SurfaceSpread],
    *,
    loss: bool = True,
    label: str = "loss (nat)",
    scale: Scale = "auto",
    vmin: float | int | None = None,
    vmax: float | int | None = None,
    title: str = "",
) -> Figure:
    """Draw, one network a row, the mean surface and its profiles along both axes through the centre.

    A profile shows every pair of directions as a thin line, their mean as a thick line, and a band of one
    standard deviation (divided by the number of pairs less one) around it. Lines break where a value is not
    finite. All rows have one scale.

    Args:
        spreads: The networks, from top to bottom.
        loss: Whether values are losses, drawn as level lines up to 10, or others, drawn as heat maps.
        label: Name of the values, with their unit.
        scale: Linear, logarithmic, or chosen by the data; not for losses, which have a fixed scale.
        vmin: Lower end of the scale; not for losses.
        vmax: Upper end of the scale; not for losses.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw, or limits are not valid.
    """
    if not spreads:
        raise ValueError("there must be at least one panel to draw")
    figure = new_figure(3 * (_SIDE + 0.85), len(spreads) * (_SIDE + 0.75) + 0.9, title)
    means = [spread.mean for spread in spreads]
    finite = [mean.finite for mean in means]
    norm = LOSS_NORM if loss else colour_scale(finite, scale, vmin, vmax)
    planes, profiles = [], []
    for row, (spread, mean) in enumerate(zip(spreads, means, strict=True)):
        plane = figure.add_subplot(len(spreads), 3, 3 * row + 1)
        name_plane(plane, spread.title)
        if loss:
            draw_contour(plane, mean)
        else:
            draw_heat_map(plane, mean, norm)
        planes.append(plane)
        for column, axis in enumerate((ALPHA, BETA), start=2):
            axes = figure.add_subplot(len(spreads), 3, 3 * row + column)
            _draw_profile(axes, spread, axis, label)
            profiles.append(axes)
    low, high = _height_limits(spreads, norm, loss=loss, limited=vmin is not None or vmax is not None)
    for axes in profiles:
        if isinstance(norm, LogNorm):
            axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(low, high)
    if loss:
        add_loss_bar(figure, [*planes, *profiles], _BAR_PLACE)
    else:
        add_heat_bar(figure, [*planes, *profiles], norm, label, finite, _BAR_PLACE)
    lines: dict[str, Artist] = {
        "one pair of directions": Line2D([], [], color=_LINE_COLOUR, linewidth=0.8, alpha=0.7)
    }
    if any(len(spread.values) > 1 for spread in spreads):
        lines["mean"] = Line2D([], [], color="black", linewidth=1.6)
        lines["± standard deviation"] = Patch(facecolor=_LINE_COLOUR, alpha=0.22)
    explain_marks(figure, lines)
    return settle(figure, note=shared_note([spread.facts for spread in spreads]))


def _profile(spread: SurfaceSpread, axis: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps, values of every pair there, and where the other axis stands: at 0 or the step next to it."""
    if axis == ALPHA:
        place = int(np.abs(spread.betas).argmin())
        return spread.alphas, spread.values[:, :, place], float(spread.betas[place])
    place = int(np.abs(spread.alphas).argmin())
    return spread.betas, spread.values[:, place, :], float(spread.alphas[place])


def _draw_profile(axes: Axes, spread: SurfaceSpread, axis: str, label: str) -> None:
    steps, values, other = _profile(spread, axis)
    values = np.where(np.isfinite(values), values, np.nan)
    for line in values:
        axes.plot(steps, line, color=_LINE_COLOUR, linewidth=0.6, alpha=0.55)
    if len(values) > 1:
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
        band: dict[str, Any] = {"color": _LINE_COLOUR, "alpha": 0.22, "linewidth": 0}
        axes.fill_between(steps, mean - deviation, mean + deviation, **band)
        axes.plot(steps, mean, color="black", linewidth=1.6)
    across = BETA if axis == ALPHA else ALPHA
    label_axes(axes, f"along {axis}, {across} = {other:.3g}", axis, label)
    axes.set_xlim(steps[0], steps[-1])
    axes.locator_params(axis="x", nbins=5)
    axes.grid(color="#E0E0E0", linewidth=0.6)
    axes.set_box_aspect(1)


def _height_limits(
    spreads: Sequence[SurfaceSpread], norm: Normalize, *, loss: bool, limited: bool
) -> tuple[float, float]:
    """Limits of the profiles: up to 10 for losses, otherwise those given or those of the values."""
    profiles = [_profile(spread, axis)[1] for spread in spreads for axis in (ALPHA, BETA)]
    if loss:
        highest = max((float(p[np.isfinite(p)].max(initial=0.0)) for p in profiles), default=0.0)
        return 0.0, min(10.0, max(1.05 * highest, LOSS_LEVELS[1]))
    own = norm if limited else colour_scale(profiles, "log" if isinstance(norm, LogNorm) else "linear")
    low, high = np.asarray(own.inverse(np.array([0.0, 1.0]))).tolist()
    if isinstance(norm, LogNorm):
        return low / 1.2, high * 1.2
    return low - 0.03 * (high - low), high + 0.03 * (high - low)
