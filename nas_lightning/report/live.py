"""Live figures: plotly's, made of the panels that the still figures are drawn from; what all have in common.

Colours are those of the light theme; :meth:`Live.to_json` says which stand for them in the dark one. The
page's script draws every figure in a panel of its own, hides and shows traces by ``legendgroup`` (an
architecture) or ``meta`` (one of the choices), and turns surfaces together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from plotly.colors import sequential  # type: ignore[import-untyped]
from plotly.io.json import to_json_plotly  # type: ignore[import-untyped]

INK, RULE, CARD, CENSUS, ACCENT = "#1b1f24", "#d0d7de", "#f6f8fa", "#c9ced4", "#0b62b0"
_DARK = {INK: "#e6edf3", RULE: "#39424d", CARD: "#181d24", CENSUS: "#3a424c", ACCENT: "#6cb6ff"}
_COLOUR = re.compile(r'"(#[0-9A-Fa-f]{6})"')


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


def new_live_figure(title: str, **layout: Any) -> go.Figure:
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


def live_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis in the look of the page."""
    colours = {"gridcolor": RULE, "zerolinecolor": RULE, "linecolor": RULE, "tickcolor": RULE}
    return {"title": {"text": title}, "automargin": True, **colours, **more}


def toggle(label: str, method: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
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


def short(values: np.ndarray) -> np.ndarray:
    """Values of more than three digits in few bits, which compress well; NaN and infinity stay."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FF) & ~np.uint32(0xFFF)).view(np.float32)


def as_html(text: str) -> str:
    """Text as plotly reads it: a kind of HTML."""
    return escape(text, quote=False)


def _on_dark(colour: str) -> str:
    """A colour for the dark page: colours are chosen for white paper, so dark ones are mixed with white."""
    if colour in _DARK:
        return _DARK[colour]
    channels = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    light = float(np.dot([0.299, 0.587, 0.114], channels)) / 255
    share = 0.25 + (0.45 - light) if light <= 0.45 else 0.0
    return "#" + "".join(f"{round(value + (255 - value) * share):02x}" for value in channels)
