"""The live forest plot of the claims."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from nas_lightning.figures.effects import LOOKS, Effect, EffectPanel, effect_limits
from nas_lightning.report.live import ACCENT, INK, Live, as_html, live_axis, new_live_figure

_ROW, _AXIS = 58, 64
"""Heights of a row and of an axis of a forest plot, in pixels."""
_NAME, _LOWER = 44, 0.28
"""Signs in a line of a row's name, and how much lower than the middle of the row its mark stands."""
_SIGNS = {"supported": "●", "contradicted": "✖", "undecided": "■", "cannot decide": "▼", "exploratory": "◆"}
"""Marks of the verdicts in a legend of text."""


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
        figure=new_live_figure("", height=inside + margin["t"] + _AXIS, margin=margin),
    )
    for number, (panel, count) in enumerate(zip(filled, counts, strict=True), start=1):
        place = {"row": number, "col": 1}
        low, high = effect_limits(panel)
        figure.update_xaxes(live_axis(as_html(panel.label), range=[low, high], zeroline=False), **place)
        rows = {
            "range": [count - 0.5, -0.5],
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
        }
        figure.update_yaxes(live_axis("", **rows), **place)
        name_place: dict[str, Any] = {
            "xref": f"x{number if number > 1 else ''} domain",
            "xanchor": "left",
            "yanchor": "top",
        }
        name_place |= {"align": "left", "showarrow": False, "borderpad": 0, "font": {"size": 11}}
        for row, effect in enumerate(panel.effects):
            # Above its mark: beside the marks, names would leave a narrow window no room.
            name = "<br>".join(map(as_html, textwrap.wrap(effect.name, _NAME)))
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
                text=[as_html(effect.name) for effect in effects],
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
