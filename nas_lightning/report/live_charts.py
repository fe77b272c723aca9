"""Live charts on two axes: curves, accuracies, picks of a search, and the plane of width and depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from nas_lightning.figures.accuracy import AccuracyPanel, mean_and_deviation
from nas_lightning.figures.budget import COLOURS, BudgetLine, BudgetPanel, is_long
from nas_lightning.figures.curves import (
    LINE_STYLES,
    MARKERS,
    Curve,
    CurvePanel,
    Look,
    is_logarithmic,
    looks_of,
)
from nas_lightning.figures.width_depth import WidthDepthPlane, fan_out
from nas_lightning.report.live import (
    ACCENT,
    CENSUS,
    INK,
    Live,
    as_html,
    live_axis,
    new_live_figure,
    short,
    toggle,
)

_DASHES = dict(zip(LINE_STYLES, ("solid", "dash", "dot", "dashdot"), strict=True))
_SYMBOLS = dict(zip(MARKERS, ("circle", "square", "triangle-up", "diamond", "x"), strict=True))
_MARKS = 8
"""Markers on a line."""
_MODES = {"linear": "auto", "log": "array"}
"""How an axis gets its marks."""


def live_curves(panels: Sequence[CurvePanel], x_label: str = "epoch") -> Live:
    """Curves, such as those of trainings, with their bands, a figure a panel; linear or logarithmic."""
    every = {curve.name: curve for panel in panels for curve in panel.curves}
    looks = {
        name: replace(look, colour=INK) if look.is_original else look
        for name, look in looks_of(panels).items()
    }
    figures = []
    for panel in panels:
        peers = [curve for peer in panels if peer.y_label == panel.y_label for curve in peer.curves]
        log = panel.scale == "log" or (panel.scale == "auto" and is_logarithmic(peers))
        now, other = ("log", "linear") if log else ("linear", "log")
        ends = _ends(
            np.concatenate([part for curve in peers for part in (curve.mean, curve.low, curve.high)])
        )
        scales = {kind: _scale("y", kind) for kind in (now, other)}
        figure = new_live_figure(
            panel.title,
            xaxis=live_axis(x_label),
            yaxis=live_axis(as_html(panel.y_label), type=now, **_log_ticks(ends), tickmode=_MODES[now]),
            updatemenus=[toggle("linear / log", "relayout", scales[other], scales[now])],
        )
        for curve in panel.curves:
            figure.add_traces(_curve(curve, looks[curve.name], x_label.partition(" ")[0]))
        figures.append(figure)
    unique = len({curve.shown for curve in every.values()}) == len(every)
    legend = [
        {"group": name, "name": curve.shown if unique else name, **_swatch(looks[name])}
        for name, curve in every.items()
    ]
    return Live(figures, legend)


def live_accuracy(panels: Sequence[AccuracyPanel], y_label: str) -> Live:
    """Accuracy at convergence: mean and standard deviation over seeds, a figure a panel."""
    figures = []
    for panel in panels:
        means, deviations = np.array([mean_and_deviation(values) for values in panel.values]).T
        base = [mean for index, mean in zip(panel.indices, means, strict=True) if index == 0]
        names = list(map(as_html, panel.names))
        figure = new_live_figure(
            panel.title,
            xaxis=live_axis("architecture", tickvals=list(panel.indices), ticktext=names),
            yaxis=live_axis(as_html(y_label)),
        )
        colours = [INK if index == 0 else ACCENT for index in panel.indices]
        figure.add_scatter(
            x=list(panel.indices),
            y=means,
            mode="markers",
            marker={"size": 9, "color": colours},
            error_y={"array": np.nan_to_num(deviations), "color": ACCENT, "thickness": 1.5},
            text=names,
            hovertemplate="<b>%{text}</b><br>%{y:.4g} ± %{error_y.array:.2g}<extra></extra>",
        )
        for mean in base:
            figure.add_hline(mean, line={"dash": "dash", "width": 1, "color": INK})
        figures.append(figure)
    return Live(figures)


def live_planes(
    planes: Sequence[WidthDepthPlane],
    names: Sequence[Sequence[str]],
    values: Mapping[str, Sequence[np.ndarray]],
) -> Live:
    """Architectures in the plane of width and depth, a figure a plane; colours show what the reader chooses.

    `values` has those of the architectures of each plane, by the label of the statistic.
    """
    ends = {label: np.concatenate(list(arrays)) for label, arrays in values.items()}
    limits = {label: (np.nanmin(every), np.nanmax(every)) for label, every in ends.items()}
    figures = []
    for index, (plane, full_names) in enumerate(zip(planes, names, strict=True)):
        widths, depths = list(plane.widths), list(plane.depths)
        across = [*widths, *(width for width, _ in plane.counts)]
        down = [*depths, *(depth for _, depth in plane.counts)]
        figure = new_live_figure(
            plane.title,
            xaxis=live_axis("width (c)", range=[min(across) - 0.4, max(across) + 0.4]),
            yaxis=live_axis("depth", range=[min(down) - 0.6, max(down) + 0.6], dtick=1),
        )
        if plane.counts:
            figure.add_scatter(**_census(plane.counts))
        x, y = fan_out(widths, depths)[0].T
        original = np.array([not name for name in plane.names])
        for label, arrays in values.items():
            chosen, (low, high) = arrays[index], limits[label]
            said = [f"{value:.4g}" if np.isfinite(value) else "no value" for value in chosen]
            text = [
                f"<b>{as_html(name)}</b><br>width {width:g}c, depth {depth}<br>{as_html(label)}: {value}"
                for name, width, depth, value in zip(full_names, widths, depths, said, strict=True)
            ]
            for known in (False, True):
                keep = np.flatnonzero(np.isfinite(chosen) == known)
                symbols = np.where(original, "diamond", "circle")[keep]
                colour: dict[str, Any] = {
                    "color": chosen[keep],
                    "colorscale": "Viridis",
                    "cmin": low,
                    "cmax": high if high > low else low + 1,
                    "showscale": True,
                    "colorbar": {"thickness": 12, "outlinewidth": 0, "nticks": 6},
                }
                figure.add_scatter(
                    x=x[keep],
                    y=y[keep],
                    mode="markers",
                    meta=label,
                    text=[text[at] for at in keep],
                    hovertemplate="%{text}<extra></extra>",
                    marker={"size": 13, "line": {"color": INK, "width": 1.2}}
                    | {"symbol": symbols if known else [f"{symbol}-open" for symbol in symbols]}
                    | (colour if known else {"color": INK}),
                )
        figures.append(figure)
    return Live(figures, choices=list(values), choose="Colour")


def live_budget(panels: Sequence[BudgetPanel]) -> Live:
    """What a search would have picked by epoch, a figure a quantity; dashed: the mean of the pool."""
    figures = []
    legend: dict[str, dict[str, str]] = {}
    now, other = ("log", "linear") if is_long(panels) else ("linear", "log")
    ends = _ends(np.concatenate([line.epochs for panel in panels for line in panel.lines]))
    scales = {kind: _scale("x", kind) for kind in (now, other)}
    for panel in panels:
        figure = new_live_figure(
            panel.label,
            xaxis=live_axis("epochs", type=now, **_log_ticks(ends), tickmode=_MODES[now]),
            yaxis=live_axis(as_html(panel.label)),
            updatemenus=[toggle("linear / log", "relayout", scales[other], scales[now])],
        )
        if panel.reference is not None:
            figure.add_hline(panel.reference, line={"dash": "dash", "width": 1, "color": INK})
        for line in panel.lines:
            colour = COLOURS[line.colour % len(COLOURS)]
            figure.add_traces(_budget_line(line, colour))
            if line.name:
                dash = "dash" if line.dashed else "solid"
                entry = {"group": line.name, "name": line.name, "colour": colour, "dash": dash}
                legend.setdefault(line.name, entry)
        figures.append(figure)
    return Live(figures, list(legend.values()))


def _budget_line(line: BudgetLine, colour: str) -> list[go.Scatter]:
    """The band, where there is one, and the line."""
    same: dict[str, Any] = {"legendgroup": line.name} if line.name else {}
    drawn = go.Scatter(
        x=short(line.epochs),
        y=short(line.values),
        mode="lines" if len(line.epochs) > 1 else "markers",
        line={"color": colour, "width": 1.8, "dash": "dash" if line.dashed else "solid"},
        hovertemplate=f"<b>{as_html(line.name)}</b><br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        **same,
    )
    if line.band is None:
        return [drawn]
    epochs, low, high = line.band
    outline = np.stack([np.concatenate([epochs, epochs[::-1]]), np.concatenate([low, high[::-1]])])
    return [_band(outline, colour, **same), drawn]


def _band(outline: np.ndarray, colour: str, **settings: Any) -> go.Scatter:
    """The translucent area inside an outline [2, points]; NaN parts its pieces."""
    x, y = short(outline)
    return go.Scatter(
        x=x,
        y=y,
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        line={"width": 0},
        hoverinfo="skip",
        mode="lines",
        **settings,
    )


def _swatch(look: Look) -> dict[str, str]:
    """A look as the legend takes it."""
    symbol = "" if look.is_original else _SYMBOLS[look.marker]
    return {"colour": look.colour, "dash": _DASHES[look.dash], "symbol": symbol}


def _curve(curve: Curve, look: Look, x_name: str = "epoch") -> list[go.Scatter]:
    """The band of the seeds, where there are several, and the mean."""
    colour = look.colour
    plain = look.is_original and len(curve.x) > 1
    marker = {
        "color": colour,
        "size": 7,
        "maxdisplayed": _MARKS,
        "symbol": _SYMBOLS.get(look.marker, "circle"),
    }
    same = {"legendgroup": curve.name, "mode": "lines" if plain else "lines+markers"}
    line = go.Scatter(
        x=short(curve.x),
        y=short(curve.mean),
        line={"color": colour, "width": 3 if look.is_original else 1.8, "dash": _DASHES[look.dash]},
        marker=marker,
        hovertemplate=f"<b>{as_html(curve.shown)}</b><br>{x_name} %{{x}}: %{{y:.4g}}<extra></extra>",
        **same,
    )
    known = np.isfinite(curve.low) & np.isfinite(curve.high)
    if not (curve.low[known] != curve.high[known]).any():
        return [line]
    line.customdata = short(np.stack([curve.low, curve.high], axis=1))
    line.hovertemplate = line.hovertemplate.replace(
        "<extra>", "<br>from %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra>"
    )
    # One closed outline for every stretch without a gap.
    outline: list[np.ndarray] = []
    for stretch in np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1):
        if known[stretch[0]]:
            there_and_back = np.concatenate([stretch, stretch[::-1]])
            ends = np.concatenate([curve.low[stretch], curve.high[stretch[::-1]]])
            outline += [np.stack([curve.x[there_and_back], ends]), np.full((2, 1), np.nan)]
    return [_band(np.concatenate(outline[:-1], axis=1), colour, legendgroup=curve.name), line]


def _census(counts: Mapping[tuple[float | int, int], int]) -> dict[str, Any]:
    """The squares of all wirings, larger for more of them."""
    total, most = sum(counts.values()), max(counts.values())
    return {
        "x": [width for width, _ in counts],
        "y": [depth for _, depth in counts],
        "mode": "markers",
        "text": [
            f"width {width:g}c, depth {depth}<br>{count} of {total} wirings ({100 * count / total:.2g} %)"
            for (width, depth), count in counts.items()
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "square",
            "color": CENSUS,
            "line": {"width": 0},
            "size": [6 + 30 * (count / most) ** 0.5 for count in counts.values()],
        },
    }


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest positive value; 1 and 1 without one."""
    positive = values[np.isfinite(values) & (values > 0)]
    return (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)


def _log_ticks(ends: tuple[float, float]) -> dict[str, list[Any]]:
    """Marks of a logarithmic axis at 1, 2 and 5, or powers of ten where these would cover one another."""
    low, high = np.log10(ends).tolist()
    powers = range(math.floor(low) - 1, math.ceil(high) + 2)
    if high - low > 2:
        values = [10.0**power for power in powers if power % max(1, round((high - low) / 5)) == 0]
    else:
        values = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _scale(axis: str, kind: str) -> dict[str, Any]:
    """The change that makes an axis linear or logarithmic."""
    return {f"{axis}axis.type": kind, f"{axis}axis.tickmode": _MODES[kind]}
