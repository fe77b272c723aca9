"""Live figures: plotly's, made of the panels that the still figures are drawn from.

Colours are those of the light theme; :meth:`Live.to_json` says which stand for them in the dark one. The
page's script draws every figure in a panel of its own, hides and shows traces by ``legendgroup`` (an
architecture) or ``meta`` (one of the choices), and turns surfaces together.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from plotly.colors import sequential  # type: ignore[import-untyped]
from plotly.io.json import to_json_plotly  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

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
from nas_lightning.figures.effects import LOOKS, Effect, EffectPanel, effect_limits
from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel
from nas_lightning.figures.width_depth import WidthDepthPlane, fan_out

INK, RULE, CARD, CENSUS, ACCENT = "#1b1f24", "#d0d7de", "#f6f8fa", "#c9ced4", "#0b62b0"
_DARK = {INK: "#e6edf3", RULE: "#39424d", CARD: "#181d24", CENSUS: "#3a424c", ACCENT: "#6cb6ff"}
_COLOUR = re.compile(r'"(#[0-9A-Fa-f]{6})"')
_PLACE = f"{ALPHA} %{{x:.3g}}, {BETA} %{{y:.3g}}"
_DASHES = dict(zip(LINE_STYLES, ("solid", "dash", "dot", "dashdot"), strict=True))
_SYMBOLS = dict(zip(MARKERS, ("circle", "square", "triangle-up", "diamond", "x"), strict=True))
_MARKS = 8
"""Markers on a line."""
_MODES = {"linear": "auto", "log": "array"}
"""How an axis gets its marks."""
_ROW, _AXIS = 58, 64
"""Heights of a row and of an axis of a forest plot, in pixels."""
_NAME, _LOWER = 44, 0.28
"""Signs in a line of a row's name, and how much lower than the middle of the row its mark stands."""
_SIGNS = {"supported": "●", "contradicted": "✖", "undecided": "■", "cannot decide": "▼", "exploratory": "◆"}
"""Marks of the verdicts in a legend of text."""


@dataclass(frozen=True, eq=False)
class Live:
    """Figures that a reader can change, one a panel.

    The legend has the ``group`` of traces that a press hides in all panels, its ``name``, ``colour``, and
    for lines ``dash`` and ``symbol``. Of the choices, called ``choose``, one is shown at a time: the traces
    whose ``meta`` it is. Where ``each`` panel has its own choice, the one figure is drawn twice, for
    comparison, at first with the choices of ``pair``. Surfaces that are ``flat`` are first seen from above:
    the page then makes the change of their button.
    """

    figures: Sequence[go.Figure]
    legend: Sequence[Mapping[str, str]] = ()
    choices: Sequence[str] = ()
    each: bool = False
    choose: str = ""
    pair: tuple[int, int] = (0, 0)
    flat: bool = False

    def to_json(self) -> str:
        """All that the page needs, as JSON that may stand in a ``<script>`` element; NaN is null."""
        content = {
            "legend": self.legend,
            "choices": self.choices,
            "each": self.each,
            "choose": self.choose,
            "pair": self.pair,
            "flat": self.flat,
        }
        head = to_json_plotly(content, engine="json").removesuffix("}")
        figures = ",".join(figure.to_json(engine="json") for figure in self.figures)
        colours = set(_COLOUR.findall(head + figures)) - set(
            sequential.Viridis
        )  # a scale means the same in both
        dark = {colour: _on_dark(colour) for colour in sorted(colours)}
        return f'{head},"figures":[{figures}],"dark":{to_json_plotly(dark, engine="json")}}}'


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure in both forms: still for files, print and readers without scripts, live for the page.

    The caption says which runs it shows, how many seeds, what is missing, and where it differs from the
    paper's. There is no live one where the still figure says it all.
    """

    title: str
    caption: str
    still: Figure
    live: Live | None = field(default=None)


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
        figure = _figure(
            panel.title,
            xaxis=_axis(x_label),
            yaxis=_axis(_text(panel.y_label), type=now, **_log_ticks(ends), tickmode=_MODES[now]),
            updatemenus=[_toggle("linear / log", "relayout", scales[other], scales[now])],
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
        figure = _figure(
            panel.title,
            xaxis=_axis("architecture", tickvals=list(panel.indices), ticktext=list(map(_text, panel.names))),
            yaxis=_axis(_text(y_label)),
        )
        colours = [INK if index == 0 else ACCENT for index in panel.indices]
        figure.add_scatter(
            x=list(panel.indices),
            y=means,
            mode="markers",
            marker={"size": 9, "color": colours},
            error_y={"array": np.nan_to_num(deviations), "color": ACCENT, "thickness": 1.5},
            text=list(map(_text, panel.names)),
            hovertemplate="<b>%{text}</b><br>%{y:.4g} ± %{error_y.array:.2g}<extra></extra>",
        )
        for mean in base:
            figure.add_hline(mean, line={"dash": "dash", "width": 1, "color": INK})
        figures.append(figure)
    return Live(figures)


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
    figure = _figure(
        "",
        xaxis=_axis(ALPHA, constrain="domain"),
        yaxis=_axis(BETA, scaleanchor="x", constrain="domain"),
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
            "x": _short(panel.alphas),
            "y": _short(panel.betas),
            "z": _short(z),
            "coloraxis": "coloraxis",
            "meta": panel.title.replace("\n", ", "),
            "hovertemplate": _PLACE + "<br>%{z:.4g}<extra></extra>",
        }
        if log:
            content["customdata"] = _short(surface)
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
        updatemenus=[_toggle("surface / from above", "restyle", *(looks if flat else looks[::-1]))]
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
        figure = _figure(
            plane.title,
            xaxis=_axis("width (c)", range=[min(across) - 0.4, max(across) + 0.4]),
            yaxis=_axis("depth", range=[min(down) - 0.6, max(down) + 0.6], dtick=1),
        )
        if plane.counts:
            figure.add_scatter(**_census(plane.counts))
        x, y = fan_out(widths, depths)[0].T
        original = np.array([not name for name in plane.names])
        for label, arrays in values.items():
            chosen, (low, high) = arrays[index], limits[label]
            said = [f"{value:.4g}" if np.isfinite(value) else "no value" for value in chosen]
            text = [
                f"<b>{_text(name)}</b><br>width {width:g}c, depth {depth}<br>{_text(label)}: {value}"
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


def live_forest(panels: Sequence[EffectPanel]) -> Live:
    """A forest plot: effects with their intervals, one a row; an axis a panel."""
    filled = [panel for panel in panels if panel.effects]
    counts = [len(panel.effects) for panel in filled]
    inside = _ROW * sum(counts) + _AXIS * (len(filled) - 1)
    margin = {"l": 10, "r": 12, "t": 10, "b": _AXIS}
    figure = make_subplots(
        rows=len(filled),
        cols=1,
        row_heights=counts,
        vertical_spacing=_AXIS / inside if len(filled) > 1 else 0,
        figure=_figure("", height=inside + margin["t"] + _AXIS, margin=margin),
    )
    for number, (panel, count) in enumerate(zip(filled, counts, strict=True), start=1):
        place = {"row": number, "col": 1}
        low, high = effect_limits(panel)
        figure.update_xaxes(_axis(_text(panel.label), range=[low, high], zeroline=False), **place)
        rows = {
            "range": [count - 0.5, -0.5],
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
        }
        figure.update_yaxes(_axis("", **rows), **place)
        name_place: dict[str, Any] = {
            "xref": f"x{number if number > 1 else ''} domain",
            "xanchor": "left",
            "yanchor": "top",
        }
        name_place |= {"align": "left", "showarrow": False, "borderpad": 0, "font": {"size": 11}}
        for row, effect in enumerate(panel.effects):
            # Above its mark: beside the marks, names would leave a narrow window no room.
            name = "<br>".join(map(_text, textwrap.wrap(effect.name, _NAME)))
            figure.add_annotation(x=0, y=row - 0.48, text=name, **name_place, **place)
        line = {"type": "line", "layer": "between", **place}
        none = {"x0": panel.none, "x1": panel.none, "y0": -0.5, "y1": count - 0.5}
        figure.add_shape(line={"color": INK, "width": 1}, **none, **line)
        for row, effect in enumerate(panel.effects):
            if effect.bound is not None:
                ends = {"x1": effect.bound, "y0": row - 0.5, "y1": row + 0.5}
                band = {"fillcolor": ACCENT, "opacity": 0.13, "line_width": 0, "layer": "below"}
                figure.add_shape(type="rect", x0=low, **ends, **band, **place)
                dash = {"color": ACCENT, "width": 1.5, "dash": "dash"}
                figure.add_shape(x0=effect.bound, line=dash, **ends, **line)
            if not np.isfinite(effect.effect):
                text = {"text": "no data", "showarrow": False, "xanchor": "left", "xshift": 6}
                figure.add_annotation(x=panel.none, y=row + _LOWER, **text, **place)
        for verdict, (colour, _, symbol) in LOOKS.items():
            chosen = [
                (row, effect)
                for row, effect in enumerate(panel.effects)
                if effect.verdict == verdict and np.isfinite(effect.effect)
            ]
            if not chosen:
                continue
            effects = [effect for _, effect in chosen]
            figure.add_scatter(
                x=[effect.effect for effect in effects],
                y=[row + _LOWER for row, _ in chosen],
                **place,
                mode="markers",
                legendgroup=verdict,
                marker={"size": 11, "symbol": symbol, "color": colour},
                error_x={
                    "array": [effect.high - effect.effect for effect in effects],
                    "arrayminus": [effect.effect - effect.low for effect in effects],
                    "color": colour,
                    "thickness": 2,
                },
                text=[_text(effect.name) for effect in effects],
                customdata=[_interval(effect) for effect in effects],
                hovertemplate=f"<b>%{{text}}</b><br>%{{x:.3f}} (%{{customdata}})<br>{verdict}<extra></extra>",
            )
    drawn = {trace.legendgroup for trace in figure.data}
    legend = [
        {"group": verdict, "name": f"{sign} {verdict}", "colour": LOOKS[verdict][0]}
        for verdict, sign in _SIGNS.items()
        if verdict in drawn
    ]
    return Live([figure], legend)


def _interval(effect: Effect) -> str:
    known = np.isfinite([effect.low, effect.high]).all()
    return f"{effect.low:.3f} to {effect.high:.3f}" if known else "no interval"


def live_budget(panels: Sequence[BudgetPanel]) -> Live:
    """What a search would have picked by epoch, a figure a quantity; dashed: the mean of the pool."""
    figures = []
    legend: dict[str, dict[str, str]] = {}
    now, other = ("log", "linear") if is_long(panels) else ("linear", "log")
    ends = _ends(np.concatenate([line.epochs for panel in panels for line in panel.lines]))
    scales = {kind: _scale("x", kind) for kind in (now, other)}
    for panel in panels:
        figure = _figure(
            panel.label,
            xaxis=_axis("epochs", type=now, **_log_ticks(ends), tickmode=_MODES[now]),
            yaxis=_axis(_text(panel.label)),
            updatemenus=[_toggle("linear / log", "relayout", scales[other], scales[now])],
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
        x=_short(line.epochs),
        y=_short(line.values),
        mode="lines" if len(line.epochs) > 1 else "markers",
        line={"color": colour, "width": 1.8, "dash": "dash" if line.dashed else "solid"},
        hovertemplate=f"<b>{_text(line.name)}</b><br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        **same,
    )
    if line.band is None:
        return [drawn]
    epochs, low, high = line.band
    band = go.Scatter(
        x=_short(np.concatenate([epochs, epochs[::-1]])),
        y=_short(np.concatenate([low, high[::-1]])),
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        line={"width": 0},
        hoverinfo="skip",
        mode="lines",
        **same,
    )
    return [band, drawn]


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
        x=_short(curve.x),
        y=_short(curve.mean),
        line={"color": colour, "width": 3 if look.is_original else 1.8, "dash": _DASHES[look.dash]},
        marker=marker,
        hovertemplate=f"<b>{_text(curve.shown)}</b><br>{x_name} %{{x}}: %{{y:.4g}}<extra></extra>",
        **same,
    )
    known = np.isfinite(curve.low) & np.isfinite(curve.high)
    if not (curve.low[known] != curve.high[known]).any():
        return [line]
    line.customdata = _short(np.stack([curve.low, curve.high], axis=1))
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
    band_x, band_y = _short(np.concatenate(outline[:-1], axis=1))
    band = go.Scatter(
        x=band_x,
        y=band_y,
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=curve.name,
        mode="lines",
    )
    return [band, line]


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


def _figure(title: str, **layout: Any) -> go.Figure:
    """An empty figure in the look of the page; the page writes the title above it."""
    return go.Figure(
        layout={
            "template": "none",
            "font": {"color": INK, "size": 12},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 52, "r": 12, "t": 26, "b": 44},
            "showlegend": False,
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": CARD, "bordercolor": RULE, "font": {"color": INK}},
            "meta": {"title": title},
            **layout,
        }
    )


def _axis(title: str, **more: Any) -> dict[str, Any]:
    colours = {"gridcolor": RULE, "zerolinecolor": RULE, "linecolor": RULE, "tickcolor": RULE}
    return {"title": {"text": title}, "automargin": True, **colours, **more}


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


def _toggle(label: str, method: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """A button above the plot, at its right: one press makes the first change, the next one the second."""
    return {
        "type": "buttons",
        "active": -1,
        "x": 1,
        "xanchor": "right",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"t": 0, "b": 2},
        # Neither changes with the theme: plotly's pressed button has this colour in both.
        "font": {"size": 10, "color": "rgb(27,31,36)"},
        "bgcolor": "rgb(244,250,255)",
        "bordercolor": RULE,
        "buttons": [{"label": label, "method": method, "args": [dict(first)], "args2": [dict(second)]}],
    }


def _short(values: np.ndarray) -> np.ndarray:
    """Values of more than three digits in few bits, which compress well; NaN and infinity stay."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FF) & ~np.uint32(0xFFF)).view(np.float32)


def _text(text: str) -> str:
    """Text as plotly reads it: a kind of HTML."""
    return escape(text, quote=False)


def _lines(text: str) -> str:
    """Text in two lines, where a narrow window has no room for one."""
    return _text(text).replace(" of ", "<br>of ", 1)


def _on_dark(colour: str) -> str:
    """A colour for the dark page: colours are chosen for white paper, so dark ones are mixed with white."""
    if colour in _DARK:
        return _DARK[colour]
    channels = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    light = float(np.dot([0.299, 0.587, 0.114], channels)) / 255
    share = 0.25 + (0.45 - light) if light <= 0.45 else 0.0
    return "#" + "".join(f"{round(value + (255 - value) * share):02x}" for value in channels)
