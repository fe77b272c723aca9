"""A panel for each architecture, from the file of its run with the lowest seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import pandas as pd

from nas_lightning.netcdf import read_dataset
from nas_lightning.report.selection import architectures

if TYPE_CHECKING:
    import xarray as xr

Panel = TypeVar("Panel")


@dataclass
class FirstRuns(Generic[Panel]):
    """What was read: the panels, their runs, and names of the architectures without one, with the reason."""

    panels: list[Panel] = field(default_factory=list)
    runs: list[pd.DataFrame] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_first_runs(
    runs: pd.DataFrame, family: str, column: str, read: Callable[[xr.Dataset, str], Panel]
) -> FirstRuns[Panel]:
    """Read a file of a base cell and of each of its variants.

    Args:
        runs: Of one data set.
        family: The base cell.
        column: Which column has the paths of the files.
        read: Gives the panel of a file's dataset and a title.
    """
    found: FirstRuns[Panel] = FirstRuns()
    for one in architectures(runs, [family]):
        chosen = runs[(runs["architecture"] == one.label) & runs[column].notna()].sort_values("seed")
        if chosen.empty:
            found.missing.append(f"{one.name} (not measured)")
            continue
        try:
            panel = read(read_dataset(Path(str(chosen[column].iloc[0]))), f"{one.name}\n{one.size}")
        except (OSError, ValueError, KeyError):
            found.missing.append(f"{one.name} (file missing or damaged)")
            continue
        found.panels.append(panel)
        found.runs.append(chosen.iloc[[0]])
    return found
