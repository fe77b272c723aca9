"""Figures and tables of every kind the page draws, without what makes them from results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nas_lightning.figures.accuracy import AccuracyPanel
from nas_lightning.figures.curves import Curve, CurvePanel
from nas_lightning.figures.effects import Effect, EffectPanel
from nas_lightning.figures.scale import colour_scale
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.figures.width_depth import WidthDepthPlane
from nas_lightning.report.figures import ReportFigure
from nas_lightning.report.live import Live
from nas_lightning.report.live_charts import live_accuracy, live_curves, live_planes
from nas_lightning.report.live_forest import live_forest
from nas_lightning.report.live_surfaces import live_surfaces
from nas_lightning.report.table_files import ReportTable

NAMES = ("darts_v2", "darts_v2:C1", "darts_v2:C4", "darts_v2:C12")
WIDTHS = (3.5, 2.0, 2.5, 3.5)
DEPTHS = (3, 4, 4, 3)


def small_figure() -> Figure:
    figure = Figure(figsize=(4, 2), facecolor="white")
    figure.add_subplot().plot([0, 1, 2], [2, 1, 0.5])
    return figure


def hand_made_figures(names: Sequence[str] = NAMES) -> list[ReportFigure]:
    caption = "Digits instead of CIFAR-10; mean of 2 seeds, the band from the smallest to the largest."

    def figure(key: str, number: str, section: str, title: str, live: Live | None = None) -> ReportFigure:
        return ReportFigure(key, number, section, title, caption, small_figure(), live)  # type: ignore[arg-type]

    surfaces = live_surfaces(
        surface_panels(names),
        "standard deviation",
        colour_scale([p.values for p in surface_panels(names)]),
        flat=False,
    )
    return [
        figure("claims", "", "claims", "Effects", live_forest(effect_panels(names))),
        figure("plane", "", "plane", "Architectures among all wirings", planes(names)),
        figure("figure03-digits", "Figure 3", "paper", "Test curves", live_curves(curve_panels(names))),
        figure("figure08", "Figure 8", "paper", "Surfaces", surfaces),
        figure("figure09", "Figure 9", "paper", "Test accuracy", accuracy(names)),
        figure("figure01", "Figure 1", "paper", "Topologies"),
    ]


def hand_made_tables(names: Sequence[str] = NAMES) -> list[ReportTable]:
    frame = pd.DataFrame({"cell": list(names), "width": WIDTHS, "error (%)": ["2.7 ± 0.1", "—", "3", "4.5"]})
    return [ReportTable("table2", "Table 2", "Width and depth", "Live counts beside the paper's.", frame)]


def effect_panels(names: Sequence[str]) -> list[EffectPanel]:
    rows = [
        Effect(f"{names[0]}, width", 0.6, 0.3, 0.8, "supported"),
        Effect(f"{names[1]}, width", -0.4, -0.9, -0.1, "contradicted"),
        Effect(f"{names[2]}, small depth", 0.1, -0.2, 0.4, "undecided", bound=0.2),
        Effect(f"{names[3]}, small depth", np.nan, np.nan, np.nan, "no data"),
    ]
    ratio = [Effect("operations matter less", 2.0, 1.5, 2.5, "supported")]
    return [EffectPanel(rows, "Kendall's tau-b", limits=(-1.06, 1.06)), EffectPanel(ratio, "log ratio")]


def curve_panels(names: Sequence[str]) -> list[CurvePanel]:
    epochs = np.arange(1.0, 31.0)
    panels = []
    for title, label, log in (("test loss", "test loss (nat)", True), ("accuracy", "accuracy (%)", False)):
        curves = []
        for name, width, depth in zip(names, WIDTHS, DEPTHS, strict=True):
            fall = np.exp(-epochs * (width + depth / 4) / 10)
            mean = 0.2 + 2.3 * fall if log else 90 - 80 * fall
            curves.append(Curve(name, epochs, mean, mean * 0.97, mean * 1.03, width))
        panels.append(CurvePanel(curves, title, label, "log" if log else "linear"))
    return panels


def surface_panels(names: Sequence[str]) -> list[SurfacePanel]:
    steps = np.linspace(-1.0, 1.0, 15)
    made = []
    for name, width in zip(names, WIDTHS, strict=True):
        values = 3 + np.add.outer(steps**2, 2 * steps**2) * 20 / width
        values[0, 0] = np.nan
        made.append(SurfacePanel(steps, steps, values, name))
    return made


def planes(names: Sequence[str]) -> Live:
    counts = {(2.0 + i / 2, 4 - i // 2): 10 + 7 * i for i in range(4)}
    area = np.array([0.9 - width / 5 for width in WIDTHS])
    area[1] = np.nan
    radius = np.array([WIDTHS[0], 0.3, *WIDTHS[2:]])
    short = ["", *names[1:]]
    plane = WidthDepthPlane(short, list(WIDTHS), list(DEPTHS), area, counts, "4 nodes")
    return live_planes([plane], [names], {"area under the loss": [area], "radius": [radius]})


def accuracy(names: Sequence[str]) -> Live:
    values = [np.array([96.7, 97.3]) - index / 4 for index in range(len(names))]
    return live_accuracy(
        [AccuracyPanel(list(range(len(names))), names, values, "darts_v2")], "val accuracy (%)"
    )
