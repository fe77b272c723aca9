"""Pictures of trainings: figures 3, 4, 5 (and 12), 9, and 13 to 16 of the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from nas_lightning.cells import format_width
from nas_lightning.figures.accuracy import AccuracyPanel, draw_accuracy, mean_and_deviation
from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves, is_logarithmic
from nas_lightning.report.blocks import ReportPicture
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import (
    Selection,
    Shown,
    architectures,
    conditions,
    missing_variants,
    section4_cells,
)

LOSS = ("loss", "loss (nat)", 1.0)
ACCURACY = ("accuracy", "accuracy (%)", 100.0)
_PANELS = 4
_MEAN_AND_RANGE = "Lines: mean over seeds; bands: smallest to largest seed."


def section4_curves(selection: Selection, data: str) -> ReportPicture | None:
    """Figure 3: loss and accuracy of the DARTS cell and its variants, or None if they are not there."""
    runs = selection.runs(data)
    shown, names, note = section4_cells(runs)
    if len(shown) < 2:
        return None
    panels = [_panel(selection, runs, shown, names, measure) for measure in (LOSS, ACCURACY)]
    return _curve_picture(
        f"figure03-{data.lower()}",
        "Figure 3",
        f"Loss and accuracy of DARTS and variants by random connections, {data_title(data)}",
        [note],
        _used(runs, shown),
        panels,
        shown,
    )


def other_rate_curves(selection: Selection, data: str) -> ReportPicture | None:
    """Figure 4: accuracy at the other learning rates, or None if there is none."""
    panels, used, drawn = [], [], []
    for rate in selection.other_rates(data):
        runs = selection.runs(data, rate)
        shown, names, _ = section4_cells(runs)
        if len(shown) >= 2:
            drawn += shown
            used.append(_used(runs, shown))
            title = f"{data_title(data)}, learning rate {rate:g}"
            panels.append(_panel(selection, runs, shown, names, ACCURACY, title))
    if not panels:
        return None
    return _curve_picture(
        f"figure04-{data.lower()}",
        "Figure 4",
        f"Accuracy at other learning rates, {data_title(data)}",
        ["Numbers in parentheses are table 2's; the paper shows section 4's C1 and C3 (table 2: C6, C1)."],
        pd.concat(used),
        panels,
        drawn,
    )


def operation_curves(selection: Selection, data: str, families: Sequence[str]) -> ReportPicture | None:
    """Figures 5 and 12: accuracy of variants by random operations, or None if there are none."""
    runs = selection.runs(data)
    panels, drawn = [], []
    for family in families:
        shown = architectures(runs, [family], ["original", "operations"])
        if any(one.kind == "operations" for one in shown):
            drawn += shown
            names = {one.label: "original" if one.is_base else one.variant for one in shown}
            panels.append(_panel(selection, runs, shown, names, ACCURACY, family_title(family), size=False))
    if not panels:
        return None
    missing = [family_title(family) for family in families if family not in {one.family for one in drawn}]
    notes = ["The variants of a panel have one width and depth: colours tell them apart and have no order."]
    if missing:
        notes.append(f"Missing: {', '.join(missing)}.")
    return _curve_picture(
        f"figure05-{data.lower()}",
        "Figures 5 and 12",
        f"Accuracy of variants by random operations, {data_title(data)}",
        notes,
        _used(runs, drawn),
        panels,
        drawn,
    )


def connection_curves(selection: Selection, data: str, family: str, number: int) -> ReportPicture | None:
    """Figures 13 to 16: loss of a base cell and its variants, grouped by width, or None.

    Args:
        selection: The runs.
        data: Data class.
        family: Base cell.
        number: The paper's number; 0 for a base cell that it does not show.

    Returns:
        The picture, four panels at most, each with the original cell.
    """
    runs = selection.runs(data)
    shown = architectures(runs, [family], ["original", "connections"])
    bases = [one for one in shown if one.is_base]
    variants = sorted((one for one in shown if not one.is_base), key=lambda one: (one.width, -one.depth))
    if not variants:
        return None
    names = {one.label: one.name for one in shown}
    count = min(_PANELS, max(1, len(variants) // 3))
    panels = []
    for group in _split(variants, count):
        low, high = format_width(group[0].width), format_width(group[-1].width)
        title = f"width {low}" if low == high else f"width {low} to {high}"
        panels.append(_panel(selection, runs, [*bases, *group], names, LOSS, title))
    return _curve_picture(
        f"figure{number:02d}-{data.lower()}" if number else f"loss-{family}-{data.lower()}",
        f"Figure {number}" if number else "",
        f"Loss of {family_title(family)} and its variants by random connections, {data_title(data)}",
        [missing_variants(family, variants)],
        _used(runs, shown),
        panels,
        shown,
    )


def accuracy_at_convergence(selection: Selection, data: str, families: Sequence[str]) -> ReportPicture | None:
    """Figure 9: accuracy of base cells (index 0) and their variants, or None if there are no variants."""
    runs = selection.runs(data)
    panels, live, drawn, notes = [], [], [], []
    for family in families:
        shown = architectures(runs, [family], ["original", "connections"])
        if not any(one.kind == "connections" for one in shown):
            continue
        numbers = [re.fullmatch(r"C(\d+)", one.variant) for one in shown if not one.is_base]
        of_table2 = all(numbers)
        indices: list[int] = []
        names: list[str] = []
        for one in shown:
            digits = one.variant.removeprefix("C")
            place = 0 if one.is_base else int(digits) if of_table2 else len(indices) + (not indices)
            indices.append(place)
            names.append("0" if one.is_base else digits if of_table2 else one.variant)
        values = [_percent(runs, one) for one in shown]
        panels.append(AccuracyPanel(indices, names, values, family_title(family)))
        marks = [
            {"index": index, "name": one.name, **_mean_and_bar(value)}
            for index, one, value in zip(indices, shown, values, strict=True)
        ]
        live.append({"title": family_title(family), "marks": marks})
        drawn += shown
        if note := missing_variants(family, shown):
            notes.append(f"{family_title(family)}: {note[0].lower()}{note[1:]}")
    if not panels:
        return None
    used = _used(runs, drawn)
    split = str(used["evaluation_split"].iloc[0])
    caption = [
        "Accuracy after the last epoch; large dots: mean over seeds, bars: one standard deviation over seeds"
        " (none for a single seed); dashed: the original cell.",
        "Numbers are those of table 2." if all(name.isdigit() for p in panels for name in p.names) else "",
        *notes,
        conditions(used),
    ]
    y_label = f"{split} accuracy (%)"
    return ReportPicture(
        f"figure09-{data.lower()}",
        "Figure 9",
        f"Accuracy at convergence, {data_title(data)}",
        " ".join(part for part in caption if part),
        draw_accuracy(panels, y_label=y_label, columns=min(2, len(panels))),
        {"kind": "accuracy", "y_label": y_label, "panels": live},
    )


def _panel(
    selection: Selection,
    runs: pd.DataFrame,
    shown: Sequence[Shown],
    names: Mapping[str, str],
    measure: tuple[str, str, float],
    title: str = "",
    *,
    size: bool = True,
) -> CurvePanel:
    """A panel of a measure of the curves, one line an architecture."""
    column, label, factor = measure
    split = str(runs["evaluation_split"].iloc[0])
    curves = []
    for one in shown:
        legend = f"{names[one.label]} ({one.size})" if size else names[one.label]
        chosen = runs.loc[runs["architecture"] == one.label, "run"]
        curve = _curve(selection.results.curves, chosen, column, factor)
        curves.append(Curve(one.label, *curve, width=one.width, label=legend.replace(") (", "; ")))
    return CurvePanel(curves, title, f"{split} {label}", "linear" if measure is ACCURACY else "auto")


def _curve(
    curves: pd.DataFrame, runs: pd.Series, column: str, factor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epochs done, mean, smallest and largest over the runs; NaN where a run has no finite value."""
    table = curves[curves["run"].isin(runs)].pivot(index="epoch", columns="run", values=column).sort_index()
    values = table.to_numpy(dtype=np.float64, na_value=np.nan) * factor
    values[~np.isfinite(values).all(axis=1)] = np.nan
    epochs = table.index.to_numpy(dtype=np.float64) + 1
    return epochs, values.mean(axis=1), values.min(axis=1), values.max(axis=1)


def _curve_picture(
    key: str,
    number: str,
    title: str,
    notes: Sequence[str],
    used: pd.DataFrame,
    panels: Sequence[CurvePanel],
    shown: Sequence[Shown],
) -> ReportPicture:
    several = used.groupby(["architecture", "learning_rate"], dropna=False)["seed"].nunique().max() > 1
    sizes = (
        "In parentheses: width and depth. " if any("(" in c.shown for p in panels for c in p.curves) else ""
    )
    caption = [
        sizes + (_MEAN_AND_RANGE if several else "One seed an architecture."),
        *notes,
        conditions(used),
    ]
    if any(not np.isfinite(curve.mean).all() for panel in panels for curve in panel.curves):
        caption.insert(1, "A line breaks where a seed's value is not finite.")
    of_label = {one.label: one for one in shown}
    live = []
    for panel in panels:
        peers = [curve for peer in panels if peer.y_label == panel.y_label for curve in peer.curves]
        live.append(
            {
                "title": panel.title,
                "y_label": panel.y_label,
                "log": panel.scale == "auto" and is_logarithmic(peers),
                "series": [_series(curve, of_label[curve.name]) for curve in panel.curves],
            }
        )
    return ReportPicture(
        key,
        number,
        title,
        " ".join(part for part in caption if part),
        draw_curves(panels),
        {"kind": "curves", "panels": live},
    )


def _series(curve: Curve, one: Shown) -> dict[str, Any]:
    return {
        "name": one.label,
        "label": curve.label or one.label,
        "family": one.family,
        "variant": one.variant,
        "width": one.width,
        "depth": one.depth,
        "x": curve.x.tolist(),
        **{key: _list(getattr(curve, key)) for key in ("mean", "low", "high")},
    }


def _list(values: np.ndarray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _used(runs: pd.DataFrame, shown: Sequence[Shown]) -> pd.DataFrame:
    return runs[runs["architecture"].isin([one.label for one in shown])]


def _percent(runs: pd.DataFrame, one: Shown) -> np.ndarray:
    column = runs.loc[runs["architecture"] == one.label, "final_accuracy"]
    return 100 * column.to_numpy(dtype=np.float64, na_value=np.nan)


def _mean_and_bar(values: np.ndarray) -> dict[str, float | None]:
    mean, deviation = mean_and_deviation(values)
    deviation = 0.0 if np.isnan(deviation) else deviation
    mean_or_none = mean if np.isfinite(mean) else None
    ends = {"low": mean - deviation, "high": mean + deviation} if mean_or_none is not None else {}
    return {"mean": mean_or_none, "low": ends.get("low"), "high": ends.get("high")}


def _split(items: Sequence[Shown], count: int) -> list[list[Shown]]:
    """Parts of nearly equal length in the order of the items, longer ones last."""
    ends = [len(items) * part // count for part in range(count + 1)]
    return [list(items[start:end]) for start, end in pairwise(ends)]
