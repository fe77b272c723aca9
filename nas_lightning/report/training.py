"""Figures of trainings: 3, 4, 5 (and 12), 9, and 13 to 16 of the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas_lightning.figures.accuracy import AccuracyPanel, draw_accuracy
from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_accuracy, live_curves
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import (
    Selection,
    Shown,
    architectures,
    conditions,
    other_connections,
    panels_by_width,
    section4_cells,
    table2_note,
)
from nas_lightning.report.words import say

LOSS = ("loss", "loss (nat)", 1.0)
ACCURACY = ("accuracy", "accuracy (%)", 100.0)
_PANELS = 4


def section4_curves(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Figure 3: loss and accuracy of the DARTS cell and its variants."""
    runs = selection.runs(data)
    shown, names, note = section4_cells(runs)
    if len(shown) < 2:
        return None
    panels = [_panel(selection, runs, shown, names, quantity) for quantity in (LOSS, ACCURACY)]
    title = f"Loss and accuracy of DARTS and variants by random connections, {data_title(data)}"
    return _curves(title, [note], _used(runs, shown), panels)


def other_rate_curves(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Figure 4: accuracy at the other learning rates."""
    panels, used, notes = [], [], []
    for rate in selection.other_rates(data):
        runs = selection.runs(data, rate)
        shown, names, note = section4_cells(runs, ["C1", "C3"])
        if len(shown) >= 2:
            notes.append(note)
            used.append(_used(runs, shown))
            title = f"{data_title(data)}, learning rate {rate:g}"
            panels.append(_panel(selection, runs, shown, names, ACCURACY, title))
    if not panels:
        return None
    title = f"Accuracy at other learning rates, {data_title(data)}"
    notes = [say("other_rates", note=" ".join(dict.fromkeys(notes)))]
    return _curves(title, notes, pd.concat(used), panels)


def operation_curves(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Figures 5 and 12: accuracy of variants by random operations, and of base cells the paper lacks."""
    runs = selection.runs(data)
    panels, drawn, missing = [], [], []
    for family in [*families, *(name for name in selection.families if name not in families)]:
        shown = architectures(runs, [family], ["original", "operations"])
        if not any(one.kind == "operations" for one in shown):
            missing.append(family_title(family))
            continue
        drawn += shown
        names = {one.label: "original" if one.is_base else one.variant for one in shown}
        panels.append(_panel(selection, runs, shown, names, ACCURACY, family_title(family), size=False))
    if not panels:
        return None
    title = f"Accuracy of variants by random operations, {data_title(data)}"
    return _curves(title, [say("operations", missing=missing)], _used(runs, drawn), panels)


def connection_curves(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Figures 13 to 16: loss of a base cell and its variants, grouped by width in four panels at most."""
    (family,) = families
    runs = selection.runs(data)
    shown = other_connections(runs, family)
    bases = [one for one in shown if one.is_base]
    variants = sorted((one for one in shown if not one.is_base), key=lambda one: (one.width, -one.depth))
    if not variants:
        return None
    names = {one.label: one.name for one in shown}
    panels = [
        _panel(selection, runs, [*bases, *group], names, LOSS, title)
        for title, group in panels_by_width(variants, _PANELS)
    ]
    title = f"Loss of {family_title(family)} and its variants by random connections, {data_title(data)}"
    return _curves(title, [table2_note(family, variants)], _used(runs, shown), panels)


def accuracy_at_convergence(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Figure 9: accuracy of base cells (index 0) and their variants, and of cells that the paper lacks."""
    runs = selection.runs(data)
    panels, drawn, notes = [], [], []
    for family in [*families, *(name for name in selection.families if name not in families)]:
        shown = other_connections(runs, family)
        if not any(one.kind == "connections" for one in shown):
            continue
        of_table2 = all(re.fullmatch(r"C\d+", one.variant) for one in shown if not one.is_base)
        indices: list[int] = []
        names: list[str] = []
        for one in shown:
            digits = one.variant.removeprefix("C")
            place = 0 if one.is_base else int(digits) if of_table2 else len(indices) + (not indices)
            indices.append(place)
            names.append("0" if one.is_base else digits + "*" * one.is_stand_in if of_table2 else one.name)
        values = [
            100 * _floats(runs.loc[runs["architecture"] == one.label, "final_accuracy"]) for one in shown
        ]
        panels.append(AccuracyPanel(indices, names, values, family_title(family)))
        drawn += shown
        if note := table2_note(family, shown):
            notes.append(f"{family_title(family)}: {note[0].lower()}{note[1:]}")
    if not panels:
        return None
    used = _used(runs, drawn)
    numbered = all(name.rstrip("*").isdigit() for panel in panels for name in panel.names)
    y_label = f"{used['evaluation_split'].iloc[0]} accuracy (%)"
    return Drawing(
        f"Accuracy at convergence, {data_title(data)}",
        say(
            "accuracy",
            numbered=numbered,
            stand_ins=any(one.is_stand_in for one in drawn),
            notes=notes,
            conditions=conditions(used),
        ),
        draw_accuracy(panels, y_label=y_label, columns=min(2, len(panels))),
        live_accuracy(panels, y_label),
    )


def _panel(
    selection: Selection,
    runs: pd.DataFrame,
    shown: Sequence[Shown],
    names: Mapping[str, str],
    quantity: tuple[str, str, float],
    title: str = "",
    *,
    size: bool = True,
) -> CurvePanel:
    """A panel of loss or accuracy, one line an architecture: mean and range over its runs."""
    column, label, factor = quantity
    curves = []
    for one in shown:
        legend = f"{names[one.label]} ({one.size})".replace(") (", "; ") if size else names[one.label]
        chosen = selection.results.curves
        chosen = chosen[chosen["run"].isin(runs.loc[runs["architecture"] == one.label, "run"])]
        table = chosen.pivot(index="epoch", columns="run", values=column).sort_index()
        values = table.to_numpy(dtype=np.float64, na_value=np.nan) * factor
        values[~np.isfinite(values).all(axis=1)] = np.nan
        lines = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
        curves.append(Curve(one.label, _floats(table.index) + 1, *lines, width=one.width, label=legend))
    split = runs["evaluation_split"].iloc[0]
    return CurvePanel(curves, title, f"{split} {label}", "linear" if quantity is ACCURACY else "auto")


def _curves(title: str, notes: Sequence[str], used: pd.DataFrame, panels: Sequence[CurvePanel]) -> Drawing:
    several = used.groupby(["architecture", "learning_rate"], dropna=False)["seed"].nunique().max() > 1
    curves = [curve for panel in panels for curve in panel.curves]
    caption = say(
        "curves",
        sizes=any("(" in curve.shown for curve in curves),
        several=several,
        broken=any(not np.isfinite(curve.mean).all() for curve in curves),
        notes=notes,
        conditions=conditions(used),
    )
    return Drawing(title, caption, draw_curves(panels), live_curves(panels))


def _used(runs: pd.DataFrame, shown: Sequence[Shown]) -> pd.DataFrame:
    return runs[runs["architecture"].isin([one.label for one in shown])]


def _floats(values: pd.Series | pd.Index) -> np.ndarray:
    return values.to_numpy(dtype=np.float64, na_value=np.nan)
