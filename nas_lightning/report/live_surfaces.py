"""Live surfaces around trained weights, in three dimensions or from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from matplotlib.colors import LogNorm, Normalize

from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel
from nas_lightning.report.live import (
    CARD,
    INK,
    RULE,
    Live,
    as_html,
    live_axis,
    new_live_figure,
    short,
    toggle,
)

_PLACE = f"{ALPHA} %{{x:.3g}}, {BETA} %{{y:.3g}}"


def live_surfaces(
    panels: Sequence[SurfacePanel],
    label: str,
    norm: Normalize,
    *,
    flat: bool,
    levels: Sequence[float] | None = None,
    pair: tuple[int, int] | None = None,
) -> Live:
    """Surfaces around trained weights in one figure, in three dimensions or from above (`flat`).

    From above, values between the points are interpolated linearly, and a cross marks w*. Level lines stand
    at `levels`, evenly spaced ones, or at twenty between the ends of the scale. The reader first sees the
    panels of the `pair`, by default the first and the last.
    """
    log = isinstance(norm, LogNorm)
    assert norm.vmin is not None and norm.vmax is not None  # noqa: PT018  (colour_scale sets both)
    low, high = (np.log10([norm.vmin, norm.vmax]) if log else np.array([norm.vmin, norm.vmax])).tolist()
    ticks: dict[str, Any] = {"nticks": 5}
    if log:
        step = max(1, round((high - low) / 5))
        powers = [power for power in range(-40, 40, step) if low - 0.01 <= power <= high + 0.01]
        values = powers if len(powers) > 1 else [low, (low + high) / 2, high]
        ticks = {"tickvals": values, "ticktext": [f"{float(f'{10.0**value:.2g}'):g}" for value in values]}
    lines = list(levels) if levels else np.linspace(low, high, 21).tolist()
    above: dict[str, Any] = {
        "autocontour": False,
        "contours.start": lines[0],
        "contours.end": lines[-1],
        "contours.size": (lines[-1] - lines[0]) / (len(lines) - 1),
        "contours.coloring": "heatmap",
        "line.width": 0.6,
        "line.smoothing": 0,
    }
    side = {"gridcolor": RULE, "zerolinecolor": RULE, "color": INK, "showspikes": False, "nticks": 4}
    figure = new_live_figure(
        "",
        xaxis=live_axis(ALPHA, constrain="domain"),
        yaxis=live_axis(BETA, scaleanchor="x", constrain="domain"),
        scene={
            "xaxis": side | {"title": {"text": ALPHA}},
            "yaxis": side | {"title": {"text": BETA}},
            "zaxis": side | ticks | {"title": {"text": ""}, "range": [low, high]},
            "aspectmode": "manual",
            "aspectratio": {"x": 1, "y": 1, "z": 0.75},
            "camera": {"eye": {"x": -1.6, "y": -1.6, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.2}},
            "dragmode": "orbit",
        },
        coloraxis={
            "cmin": low,
            "cmax": high,
            "colorscale": "Viridis",
            "colorbar": ticks
            | {"title": {"text": _lines(label), "side": "right"}, "thickness": 12, "outlinewidth": 0},
        },
    )
    for panel in panels:
        # plotly counts z[y][x]; alpha is x.
        surface = panel.finite.T
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(surface > 0, np.log10(surface), np.nan) if log else surface
        content: dict[str, Any] = {
            "x": short(panel.alphas),
            "y": short(panel.betas),
            "z": short(z),
            "coloraxis": "coloraxis",
            "meta": panel.title.replace("\n", ", "),
            "hovertemplate": _PLACE + "<br>%{z:.4g}<extra></extra>",
        }
        if log:
            content["customdata"] = short(surface)
            content["hovertemplate"] = _PLACE + "<br>%{customdata:.4g}<extra></extra>"
        figure.add_surface(lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05}, **content)
        above_surface = float(0.02 * (high - low))  # not hidden in it
        figure.add_traces(_cross(panel, z + above_surface, content["meta"], surface))
    kinds = [trace.type == "surface" for trace in figure.data]
    looks = [
        {
            "type": ["surface" if is_surface else "scatter3d" for is_surface in kinds],
            "marker.size": [None if is_surface else 4 for is_surface in kinds],
        },
        {
            "type": ["contour" if is_surface else "scatter" for is_surface in kinds],
            "marker.size": [None if is_surface else 10 for is_surface in kinds],
            **above,
        },
    ]
    figure.update_layout(
        updatemenus=[toggle("surface / from above", "restyle", *(looks if flat else looks[::-1]))]
    )
    names = [panel.title.replace("\n", ", ") for panel in panels]
    return Live([figure], choices=names, each=True, pair=pair or (0, len(panels) - 1), flat=flat)


def _cross(panel: SurfacePanel, z: np.ndarray, meta: str, value: np.ndarray) -> list[go.Scatter3d]:
    """The mark of the trained weights, where they lie within the plane."""
    if not (panel.alphas[0] <= 0 <= panel.alphas[-1] and panel.betas[0] <= 0 <= panel.betas[-1]):
        return []
    place = np.abs(panel.betas).argmin(), np.abs(panel.alphas).argmin()
    cross = go.Scatter3d(
        x=[0.0],
        y=[0.0],
        z=[float(z[place])],
        mode="markers",
        meta=meta,
        marker={"symbol": "cross", "size": 4, "color": INK, "line": {"color": CARD, "width": 1}},
        hovertemplate=f"w*: {value[place]:.4g}<extra></extra>",
    )
    return [cross]


def _lines(text: str) -> str:
    """Text in two lines, where a narrow window has no room for one."""
    return as_html(text).replace(" of ", "<br>of ", 1)
