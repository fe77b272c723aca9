"""What lies between the seeds of an architecture: the straight lines, and the curve between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves
from nas_lightning.figures.profile import profile_curve
from nas_lightning.netcdf import read_dataset
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_curves
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, Shown, architectures, conditions
from nas_lightning.report.words import say
from nas_lightning.study.between import Between, between_seeds

POSITION = "position t between two seeds"
"""Name of the horizontal axis."""
_SPLITS: Mapping[str, str] = {"train": "training", "test": "test"}
_PATHS: Mapping[str, str] = {"interpolation": "straight line", "connectivity": "Bézier curve"}

Found = dict[str, xr.Dataset]


def paths_between_seeds(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """The loss on the lines and curves between seeds of a base cell and its variants; None without a file."""
    (family,) = families
    runs = selection.runs(data)
    shown = architectures(runs, [family])
    found = _read(between_seeds(selection.results.study), runs)
    panels = []
    for measure, path in _PATHS.items():
        for split, word in _SPLITS.items():
            curves = [
                curve
                for one in shown
                if (read := found.get(measure, {}).get(one.label)) is not None
                if (curve := _curve(read, f"{split}_loss", one)) is not None
            ]
            if curves:
                panels.append(CurvePanel(curves, "", f"{word} loss (nat), {path}"))
    if not panels:
        return None
    labels = {label for read in found.values() for label in read}
    caption = say(
        "between_seeds",
        barriers=[f"{one.name}: {words}" for one in shown if (words := _barriers(found, one.label))],
        missing=[one.name for one in shown if one.label not in labels],
        conditions=conditions(runs[runs["architecture"].isin(list(labels))]),
    )
    title = f"Loss between seeds, {family_title(family)} and its variants, {data_title(data)}"
    still = draw_curves(panels, x_label=POSITION, columns=2)
    return Drawing(title, caption, still, live_curves(panels, POSITION))


def _read(measured: Sequence[Between], runs: pd.DataFrame) -> dict[str, Found]:
    """The complete files of these runs, by measure and architecture."""
    names = set(runs["run"])
    found: dict[str, Found] = {}
    for one in measured:
        if {run.name for run in one.runs} <= names and (path := one.file) is not None:
            label = one.runs[0].architecture.label
            found.setdefault(one.measure, {}).setdefault(label, read_dataset(path))
    return found


def _curve(dataset: xr.Dataset, variable: str, one: Shown) -> Curve | None:
    """The mean over pairs of seeds; of a file with a curve, that of the curve. None without the split."""
    if variable not in dataset:
        return None
    values: Float[np.ndarray, "row position"] = dataset[variable].transpose(..., "position").values
    rows = values[:1] if "path" in dataset[variable].dims else values
    label = f"{one.name} ({one.size})".replace(") (", "; ")
    return profile_curve([rows], dataset["position"].values, one.label, width=one.width, label=label)


def _barriers(found: Mapping[str, Found], label: str) -> str:
    """The barriers of the test split in words; empty without a file."""
    words = []
    line = found.get("interpolation", {}).get(label)
    if line is not None and "test_barrier" in line:
        heights = line["test_barrier"].values
        spread = f" ± {heights.std(ddof=1):.2g}" if heights.size > 1 else ""
        pairs = "1 pair" if heights.size == 1 else f"{heights.size} pairs"
        words.append(f"line {heights.mean():.3g}{spread} nat ({pairs})")
    curve = found.get("connectivity", {}).get(label)
    if curve is not None and "curve_test_barrier" in curve:
        words.append(f"curve {float(curve['curve_test_barrier']):.3g} nat")
    return ", ".join(words)
