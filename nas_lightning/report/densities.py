"""The figure of spectral densities of the curvature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nas_lightning.figures.spectral_density import draw_density_grid, read_density_panels
from nas_lightning.netcdf import read_dataset
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, architectures, conditions
from nas_lightning.report.words import say

_FILE = "spectral_density_file"


def spectral_densities(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """The densities of a base cell and its variants; None where no file is readable.

    Of each architecture the run with the lowest seed is shown, and of its matrices the normalised ones, where
    they are measured: the plain ones depend on the scale of weights that do not matter.
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
            panels.append(read_density_panels(dataset, f"{one.name}\n{one.size}")[-1])
        except (OSError, ValueError, KeyError):
            missing.append(f"{one.name} (file missing or damaged)")
            continue
        used.append(chosen.iloc[[0]])
    if not panels:
        return None
    caption = say(
        "densities",
        plain=any(not panel.is_normalized for panel in panels),
        broken=any(panel.is_broken for panel in panels),
        missing=missing,
        conditions=conditions(pd.concat(used)),
    )
    title = f"Eigenvalues of the curvature, {family_title(family)} and its variants, {data_title(data)}"
    return Drawing(title, caption, draw_density_grid(panels))
