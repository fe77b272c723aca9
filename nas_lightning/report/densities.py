"""The figure of spectral densities of the curvature."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nas_lightning.figures.spectral_density import draw_density_grid, read_density_panels
from nas_lightning.report.first_runs import read_first_runs
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, conditions
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
    found = read_first_runs(
        runs, family, _FILE, lambda dataset, title: read_density_panels(dataset, title)[-1]
    )
    if not found.panels:
        return None
    caption = say(
        "densities",
        plain=any(not panel.is_normalized for panel in found.panels),
        broken=any(panel.is_broken for panel in found.panels),
        missing=found.missing,
        conditions=conditions(pd.concat(found.runs)),
    )
    title = f"Eigenvalues of the curvature, {family_title(family)} and its variants, {data_title(data)}"
    return Drawing(title, caption, draw_density_grid(found.panels))
