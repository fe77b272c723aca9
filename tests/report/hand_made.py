"""Pictures and tables of every kind the page draws, without what makes them from results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nas_lightning.report.blocks import ReportPicture, ReportTable

NAMES = ("darts_v2", "darts_v2:C1", "darts_v2:C4", "darts_v2:C12")
WIDTHS = (3.5, 2.0, 2.5, 3.5)
DEPTHS = (3, 4, 4, 3)


def small_figure() -> Figure:
    figure = Figure(figsize=(4, 2), facecolor="white")
    figure.add_subplot().plot([0, 1, 2], [2, 1, 0.5])
    return figure


def hand_made_pictures(names: Sequence[str] = NAMES) -> list[ReportPicture]:
    caption = "Digits instead of CIFAR-10; mean of 2 seeds, the band from the smallest to the largest."
    return [
        ReportPicture("plane", "", "Architectures among all wirings", caption, small_figure(), plane(names)),
        ReportPicture("figure03-digits", "Figure 3", "Test curves", caption, small_figure(), curves(names)),
        ReportPicture("figure08", "Figure 8", "Surfaces", caption, small_figure(), surfaces(names)),
        ReportPicture("figure09", "Figure 9", "Test accuracy", caption, small_figure(), accuracy(names)),
        ReportPicture("figure01", "Figure 1", "Topologies", caption, small_figure()),
        ReportPicture("claims", "", "Effects", caption, small_figure()),
    ]


def hand_made_tables(names: Sequence[str] = NAMES) -> list[ReportTable]:
    frame = pd.DataFrame({"cell": list(names), "width": WIDTHS, "error (%)": ["2.7 ± 0.1", "—", "3", "4.5"]})
    return [ReportTable("table2", "Table 2", "Width and depth", "Live counts beside the paper's.", frame)]


def curves(names: Sequence[str]) -> dict[str, Any]:
    epochs = np.arange(1, 31)
    panels = []
    for title, label, log in (("test loss", "test loss (nat)", True), ("accuracy", "accuracy (%)", False)):
        series = []
        for name, width, depth in zip(names, WIDTHS, DEPTHS, strict=True):
            fall = np.exp(-epochs * (width + depth / 4) / 10)
            mean = 0.2 + 2.3 * fall if log else 90 - 80 * fall
            series.append(
                {
                    "name": name,
                    "family": "darts_v2",
                    "variant": "original" if name == names[0] else name.partition(":")[2],
                    "width": width,
                    "depth": depth,
                    "x": epochs.tolist(),
                    "mean": mean.tolist(),
                    "low": (mean * 0.97).tolist(),
                    "high": (mean * 1.03).tolist(),
                }
            )
        panels.append({"title": title, "y_label": label, "log": log, "series": series})
    return {"kind": "curves", "panels": panels}


def surfaces(names: Sequence[str]) -> dict[str, Any]:
    steps = np.linspace(-1.0, 1.0, 15)
    made: list[dict[str, Any]] = []
    for name, width in zip(names, WIDTHS, strict=True):
        z: list[list[float | None]] = (3 + np.add.outer(steps**2, 2 * steps**2) * 20 / width).tolist()
        z[0][0] = None
        made.append({"name": name, "alpha": steps.tolist(), "beta": steps.tolist(), "z": z})
    return {"kind": "surfaces", "label": "standard deviation of the gradient", "surfaces": made}


def plane(names: Sequence[str]) -> dict[str, Any]:
    cells = [{"width": 2.0 + i / 2, "depth": 4 - i // 2, "count": 10 + 7 * i} for i in range(4)]
    marks = [
        {"name": name, "width": width, "depth": depth, "values": {"area": 0.9 - width / 5, "radius": width}}
        for name, width, depth in zip(names, WIDTHS, DEPTHS, strict=True)
    ]
    marks[1]["values"] = {"area": float("nan"), "radius": 0.3}
    spaces = [{"title": "4 nodes", "cells": cells, "marks": marks}]
    return {
        "kind": "plane",
        "spaces": spaces,
        "measures": {"area": "area under the loss", "radius": "radius"},
    }


def accuracy(names: Sequence[str]) -> dict[str, Any]:
    marks = [
        {
            "index": index,
            "name": name,
            "mean": 97 - index / 4,
            "low": 96.7 - index / 4,
            "high": 97.2 - index / 4,
        }
        for index, name in enumerate(names)
    ]
    return {
        "kind": "accuracy",
        "y_label": "val accuracy (%)",
        "panels": [{"title": "darts_v2", "marks": marks}],
    }
