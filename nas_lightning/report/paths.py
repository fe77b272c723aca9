"""The figure of trainings' paths, each in the plane of its own first two principal components."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nas_lightning.figures.trajectory import draw_trajectories, read_trajectory_panel
from nas_lightning.report.first_runs import read_first_runs
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, conditions
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
    found = read_first_runs(runs, family, _FILE, read_trajectory_panel)
    if not found.panels:
        return None
    caption = say("training_paths", missing=found.missing, conditions=conditions(pd.concat(found.runs)))
    title = f"Paths of trainings of {family_title(family)} and its variants, {data_title(data)}"
    return Drawing(title, caption, draw_trajectories(found.panels))
