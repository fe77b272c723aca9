"""Figures of cells that were drawn from a search space, as imported results have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_lightning.figures.sampled import SampledPanel, draw_sampled
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, conditions
from nas_lightning.report.words import say

FEWEST_CELLS = 3
_SPACES = 6


def sampled_curves(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Errors of all sampled cells of a data set by epoch, and at the end by width; six spaces at most."""
    runs = selection.runs(data)
    runs = runs[runs["kind"] == "sampled"]
    panels: list[SampledPanel] = []
    used: list[pd.DataFrame] = []
    for family, of_family in runs.groupby("family", sort=False):
        # Runs of one length, since a mean needs all cells at every epoch.
        lengths = of_family["epochs"]
        chosen = of_family[lengths == lengths.mode().max()]
        if chosen["architecture"].nunique() < FEWEST_CELLS or len(panels) == _SPACES:
            continue
        curves = selection.results.curves.merge(chosen[["run", "width"]], on="run")
        errors = 100 * (1 - curves.pivot_table(index="architecture", columns="epoch", values="accuracy"))
        widths = chosen.drop_duplicates("architecture").set_index("architecture")["width"]
        panels.append(
            SampledPanel(
                errors.columns.to_numpy(np.float64) + 1,
                errors.to_numpy(np.float64),
                widths.reindex(errors.index).to_numpy(np.float64),
                f"{family_title(str(family))}: {len(errors)} cells",
            )
        )
        used.append(chosen)
    if not panels:
        return None
    split = used[0]["evaluation_split"].iloc[0]
    label = f"{split} error (%)" if isinstance(split, str) else "error (%)"
    return Drawing(
        f"Errors of sampled cells by width, {data_title(data)}",
        say("sampled", conditions=conditions(used[0])),
        draw_sampled(panels, label=label),
    )
