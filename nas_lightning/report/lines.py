"""Figures of lines through weight space: along random directions, and from the initial weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from nas_lightning.figures.curves import CurvePanel, draw_curves
from nas_lightning.figures.line_files import STEP, finished_part
from nas_lightning.figures.profile import profile_curve
from nas_lightning.netcdf import read_dataset
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_curves
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, architectures, conditions
from nas_lightning.report.words import listed, say

PANELS: Mapping[str, str] = {
    "train_loss": "training loss (nat)",
    "test_loss": "test loss (nat)",
    "train_accuracy": "training accuracy",
    "test_accuracy": "test accuracy",
}
"""What a figure shows: variable, and name of the axis."""
POSITION = "position t, from the first weights to the trained ones"
"""Name of the horizontal axis of interpolations."""
_TITLES = {
    "loss_line": "Loss and accuracy along random directions",
    "interpolation": "Loss and accuracy on the straight line to the trained weights",
}

Rows = dict[str, list[np.ndarray]]


def _lines(selection: Selection, families: Sequence[str], data: str, *, stem: str) -> Drawing | None:
    """The lines of a base cell and its variants; None where no file is readable."""
    (family,) = families
    runs = selection.runs(data)
    if f"{stem}_file" not in runs:
        return None
    shown = architectures(runs, [family])
    x_label = STEP if stem == "loss_line" else POSITION
    found, missing = {}, []
    for one in shown:
        read = _read(runs.loc[runs["architecture"] == one.label, f"{stem}_file"])
        if read is None:
            missing.append(one.name)
        else:
            found[one.label] = read
    there = [one for one in shown if one.label in found]
    panels = []
    for variable, label in PANELS.items():
        curves = [
            profile_curve(
                found[one.label][0][variable],
                found[one.label][1],
                one.label,
                width=one.width,
                label=f"{one.name} ({one.size})".replace(") (", "; "),
            )
            for one in there
            if found[one.label][0].get(variable)
        ]
        if curves:
            panels.append(CurvePanel(curves, "", label))
    if not panels:
        return None
    counts = {len(rows) for read, _ in found.values() for of_runs in read.values() for rows in of_runs}
    caption = say(
        "lines",
        random=stem == "loss_line",
        several=any(len(of_runs) > 1 for read, _ in found.values() for of_runs in read.values()),
        directions=listed([str(count) for count in sorted(counts)], "or"),
        broken=any(not np.isfinite(curve.mean).all() for panel in panels for curve in panel.curves),
        missing=missing,
        conditions=conditions(runs[runs["architecture"].isin(list(found))]),
    )
    title = f"{_TITLES[stem]}, {family_title(family)} and its variants, {data_title(data)}"
    still = draw_curves(panels, x_label=x_label, columns=2)
    return Drawing(title, caption, still, live_curves(panels, x_label))


def _read(paths: pd.Series) -> tuple[Rows, np.ndarray] | None:
    """Finished rows of each run's file, by variable, and their positions; None where no file is readable."""
    rows: Rows = {}
    positions: np.ndarray | None = None
    for path in paths.dropna():
        try:
            dataset = read_dataset(Path(str(path)))
            complete = bool((dataset["done"] == 1).all())
            read = {name: finished_part(dataset, name) for name in PANELS if name in dataset}
        except (OSError, ValueError, KeyError):
            continue
        own = next(iter(read.values()))[0] if read and complete else None
        if own is not None and (positions is None or np.array_equal(own, positions)):
            positions = own
            for name, (_, values) in read.items():
                rows.setdefault(name, []).append(values)
    return None if positions is None else (rows, positions)


loss_lines = partial(_lines, stem="loss_line")
interpolations = partial(_lines, stem="interpolation")
