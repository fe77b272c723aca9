"""Figures of surfaces around the trained weights: 6 to 8 and 17 to 24 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm

from nas_lightning.figures.curves import CurvePanel, draw_curves
from nas_lightning.figures.landscape import LOSS_LEVELS, LOSS_NORM, draw_loss_contours
from nas_lightning.figures.profile import RADIUS, finished_losses, profile_curve
from nas_lightning.figures.scale import Scale, colour_scale
from nas_lightning.figures.surface import SurfacePanel, read_surface_panel
from nas_lightning.figures.surface3d import draw_surfaces
from nas_lightning.figures.variance import draw_heat_maps
from nas_lightning.netcdf import read_dataset
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_curves
from nas_lightning.report.live_surfaces import live_surfaces
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
from nas_lightning.report.words import listed, say

Variable: TypeAlias = Literal["loss", "standard_deviation", "variance"]
Look: TypeAlias = Literal["contours", "heat maps", "surfaces"]

_PROFILE_PANELS = 4

STEMS: Mapping[Variable, str] = {
    "loss": "loss_contour",
    "standard_deviation": "gradient_variance",
    "variance": "gradient_variance",
}
"""The file that holds each variable; the standard deviation is the square root of the variance."""
LABELS: Mapping[Variable, str] = {
    "loss": "loss (nat)",
    "standard_deviation": "standard deviation of the gradient",
    "variance": "gradient variance",
}


def read_panel(path: Path, variable: Variable, title: str) -> tuple[SurfacePanel, str]:
    """The mean over a file's finished pairs of directions, or what is done of one; their number in words.

    Raises:
        ValueError: If the file is damaged, or lacks the variable or a finished point.
        OSError: If it cannot be read.
    """
    read = read_surface_panel(read_dataset(path), variable)
    count = len(read.pairs)
    note = f"mean of {count} pairs of directions" if count > 1 else "one pair of directions"
    return replace(read.panel, title=title), note if count else "unfinished"


def has_surface(runs: pd.DataFrame, variable: Variable) -> bool:
    """Whether a run has a readable file of a variable."""
    for path in runs[f"{STEMS[variable]}_file"].dropna():
        try:
            read_panel(Path(str(path)), variable, "")
        except (OSError, ValueError):
            continue
        return True
    return False


def _surfaces(
    runs: pd.DataFrame,
    shown: Sequence[Shown],
    titles: Mapping[str, str],
    title: str,
    notes: Sequence[str],
    variable: Variable,
    look: Look,
    columns: int | None = None,
) -> Drawing | None:
    """Surfaces of architectures, each of its run with the lowest seed; None where no file is readable."""
    panels, used, directions, unreadable = [], [], [], []
    widths: list[tuple[float, int]] = []  # and depths, of which the smaller counts as wider
    column = f"{STEMS[variable]}_file"
    for one in shown:
        chosen = runs[(runs["architecture"] == one.label) & runs[column].notna()].sort_values("seed")
        if chosen.empty:
            unreadable.append(f"{one.name} (not measured)")
            continue
        try:
            panel, note = read_panel(Path(str(chosen[column].iloc[0])), variable, titles[one.label])
        except (OSError, ValueError):
            unreadable.append(f"{one.name} (file missing or damaged)")
            continue
        panels.append(panel)
        widths.append((one.width, -one.depth))
        used.append(chosen.iloc[[0]])
        directions.append(note)
    if not panels:
        return None
    scale, label = _scale(panels, variable), LABELS[variable]
    if look == "contours":
        still = draw_loss_contours(panels, columns=columns)
    elif look == "heat maps":
        still = draw_heat_maps(panels, label=label, columns=columns, scale=scale)
    else:
        still = draw_surfaces(panels, label=label, columns=columns, scale=scale)
    # The same for the losses of every study, as in the still figure.
    norm = LOSS_NORM if variable == "loss" else colour_scale([panel.finite for panel in panels], scale)
    caption = say(
        "surfaces",
        directions=list(dict.fromkeys(directions)),
        notes=notes,
        unreadable=unreadable,
        conditions=conditions(pd.concat(used)),
    )
    live = live_surfaces(
        panels,
        label,
        norm,
        flat=look != "surfaces",
        levels=LOSS_LEVELS if variable == "loss" else None,
        pair=(widths.index(max(widths)), widths.index(min(widths))),
    )
    return Drawing(title, caption, still, live)


def _scale(panels: Sequence[SurfacePanel], variable: Variable) -> Scale:
    """Linear or logarithmic; for the standard deviation as for the variance, of which it is the root."""
    power = 2 if variable == "standard_deviation" else 1
    norm = colour_scale([panel.finite**power for panel in panels])
    return "log" if isinstance(norm, LogNorm) else "linear"


def _section4(
    selection: Selection, families: Sequence[str], data: str, *, what: str, variable: Variable, look: Look
) -> Drawing | None:
    """Figures 6 to 8: surfaces of the DARTS cell and its variants."""
    runs = selection.runs(data)
    shown, names, note = section4_cells(runs)
    titles = {one.label: f"{names[one.label]}\n{one.size}" for one in shown}
    # Five panels: one row as in the paper, or three and two where they need room.
    columns = (3 if look == "surfaces" else 5) if len(shown) == 5 else None
    title = f"{what} of DARTS and its variants, {data_title(data)}"
    return _surfaces(runs, shown, titles, title, [note], variable, look, columns)


def _family(
    selection: Selection, families: Sequence[str], data: str, *, what: str, variable: Variable, look: Look
) -> Drawing | None:
    """Figures 17 to 24: surfaces of a base cell and its variants, from narrow to wide."""
    (family,) = families
    runs = selection.runs(data)
    shown = other_connections(runs, family)
    if not any(one.kind == "connections" for one in shown):
        return None
    ordered = sorted(shown, key=lambda one: (one.width, -one.depth, one.is_base))
    titles = {one.label: f"width {one.size.replace(', ', ', depth ')}\n{one.name}" for one in ordered}
    notes = ["From narrow to wide, deeper ones first."]
    if variable == "variance":
        notes.append("Values are unscaled; the paper's are times 1e-5.")
    notes.append(table2_note(family, shown))
    title = f"{what} of {family_title(family)} and its variants by width, {data_title(data)}"
    return _surfaces(runs, ordered, titles, title, notes, variable, look)


def loss_profiles(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """The loss along random directions: a base cell and its variants, grouped by width."""
    (family,) = families
    runs = selection.runs(data)
    shown = architectures(runs, [family])
    found, missing = {}, []
    for one in shown:
        read = _read_profiles(runs.loc[runs["architecture"] == one.label, "loss_profile_file"])
        if read is None:
            missing.append(one.name)
        else:
            found[one.label] = read
    there = [one for one in shown if one.label in found]
    if not there:
        return None
    curves = {
        one.label: profile_curve(
            *found[one.label],
            one.label,
            width=one.width,
            label=f"{one.name} ({one.size})".replace(") (", "; "),
        )
        for one in there
    }
    bases, variants = ([one for one in there if one.is_base is is_base] for is_base in (True, False))
    groups = panels_by_width(variants, _PROFILE_PANELS) if variants else [("", [])]
    panels = [
        CurvePanel(
            [curves[one.label] for one in (*bases, *group)], title if len(groups) > 1 else "", "loss (nat)"
        )
        for title, group in groups
    ]
    used = runs[runs["architecture"].isin(list(found))]
    counts = {len(losses) for losses_of_runs, _ in found.values() for losses in losses_of_runs}
    caption = say(
        "profiles",
        several=any(len(losses) > 1 for losses, _ in found.values()),
        directions=listed([str(count) for count in sorted(counts)], "or"),
        broken=any(not np.isfinite(curve.mean).all() for curve in curves.values()),
        missing=missing,
        conditions=conditions(used),
    )
    return Drawing(
        f"Loss along random directions, {family_title(family)} and its variants, {data_title(data)}",
        caption,
        draw_curves(panels, x_label=RADIUS),
        live_curves(panels, RADIUS),
    )


def _read_profiles(paths: pd.Series) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Losses of each run over its finished directions, and the radii; None where no file is readable."""
    runs: list[np.ndarray] = []
    radii: np.ndarray | None = None
    for path in paths.dropna():
        try:
            profile = read_dataset(Path(str(path)))
            losses, own = finished_losses(profile), profile["radius"].values
        except (OSError, ValueError, KeyError):
            continue
        if len(losses) and (radii is None or np.array_equal(own, radii)):
            radii = own
            runs.append(losses)
    return None if radii is None else (runs, radii)


section4_contours = partial(_section4, what="Loss contours", variable="loss", look="contours")
section4_heat_maps = partial(
    _section4, what="Standard deviation of the gradient", variable="standard_deviation", look="heat maps"
)
section4_surfaces = partial(
    _section4,
    what="Surfaces of the standard deviation of the gradient",
    variable="standard_deviation",
    look="surfaces",
)
family_contours = partial(_family, what="Loss contours", variable="loss", look="contours")
family_surfaces = partial(
    _family, what="Surfaces of the gradient variance", variable="variance", look="surfaces"
)
