"""The figure of trainings' paths, each in the plane of its own first two principal components."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nas_lightning.figures.trajectory import draw_trajectories, read_trajectory_panel
from nas_lightning.netcdf import read_dataset
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, architectures, conditions
from nas_lightning.report.words import say

_FILE = "trajectory_file"


def training_paths(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """The paths of a base cell and its variants, side by side; None where no file is readable.

    Of each architecture the run with the lowest seed is shown.
    """
    (family,) = families
    runs = selection.runs(data)
    if _FILE not in runs:
        return None
    panels, used, missing = [], [], []
    for one in architectures(runs, [family]):
        chosen = runs[(runs["architecture"] == one.label) & runs[_FILE].notna()].sort_values("seed")
        if chosen.empty:
            missing.append(f"{one.name} (not measured)")
            continue
        try:
            dataset = read_dataset(Path(str(chosen[_FILE].iloc[0])))
            panels.append(read_trajectory_panel(dataset, f"{one.name}\n{one.size}"))
        except (OSError, ValueError):
            missing.append(f"{one.name} (file missing or damaged)")
            continue
        used.append(chosen.iloc[[0]])
    if not panels:
        return None
    caption = say("training_paths", missing=missing, conditions=conditions(pd.concat(used)))
    title = f"Paths of trainings of {family_title(family)} and its variants, {data_title(data)}"
    return Drawing(title, caption, draw_trajectories(panels))
