"""Pictures of surfaces around the trained weights: figures 6 to 8 and 17 to 24 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nas_lightning.figures.landscape import LOSS_NORM, draw_loss_contours
from nas_lightning.figures.scale import Scale, colour_scale
from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel
from nas_lightning.figures.surface3d import draw_surfaces
from nas_lightning.figures.variance import draw_heat_maps
from nas_lightning.netcdf import read_dataset
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

Variable: TypeAlias = Literal["loss", "standard_deviation", "variance"]

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
_SECTION4: Mapping[int, tuple[str, Variable, str]] = {
    6: ("Loss contours", "loss", "contour"),
    7: ("Standard deviation of the gradient", "standard_deviation", "heat"),
    8: ("Surfaces of the standard deviation of the gradient", "standard_deviation", "surface"),
}
_DRAW: Mapping[str, Callable[..., Figure]] = {"heat": draw_heat_maps, "surface": draw_surfaces}


def section4_surfaces(selection: Selection, data: str, number: int) -> ReportPicture | None:
    """Figures 6, 7 and 8: surfaces of the DARTS cell and its variants, or None if there are none.

    Args:
        selection: The runs.
        data: Data class.
        number: The paper's number: 6 for loss contours, 7 for heat maps and 8 for three dimensions of the
            standard deviation of the gradient.

    Returns:
        The picture; all surfaces have one scale.
    """
    runs = selection.runs(data)
    shown, names, note = section4_cells(runs)
    titles = {one.label: f"{names[one.label]}\n{one.size}" for one in shown}
    what, variable, way = _SECTION4[number]
    # Five panels: one row as in the paper, or three and two where they need room.
    columns = (3 if way == "surface" else 5) if len(shown) == 5 else None
    return _picture(
        runs,
        shown,
        titles,
        f"figure{number:02d}-{data.lower()}",
        f"Figure {number}",
        f"{what} of DARTS and its variants, {data_title(data)}",
        [note],
        variable,
        way,
        columns,
    )


def family_surfaces(
    selection: Selection, data: str, family: str, number: int, variable: Variable
) -> ReportPicture | None:
    """Figures 17 to 24: surfaces of a base cell and its variants, from narrow to wide, or None.

    Args:
        selection: The runs.
        data: Data class.
        family: Base cell.
        number: The paper's number; 0 for a base cell that it does not show.
        variable: The loss, as level lines, or the gradient variance, in three dimensions.

    Returns:
        The picture; all surfaces have one scale.
    """
    runs = selection.runs(data)
    shown = architectures(runs, [family], ["original", "connections"])
    if not any(one.kind == "connections" for one in shown):
        return None
    ordered = sorted(shown, key=lambda one: (one.width, -one.depth, one.is_base))
    titles = {one.label: f"width {one.size.replace(', ', ', depth ')}\n{one.name}" for one in ordered}
    what = "Loss contours" if variable == "loss" else "Surfaces of the gradient variance"
    return _picture(
        runs,
        ordered,
        titles,
        f"figure{number:02d}-{data.lower()}" if number else f"{variable}-{family}-{data.lower()}",
        f"Figure {number}" if number else "",
        f"{what} of {family_title(family)} and its variants by width, {data_title(data)}",
        [
            "From narrow to wide, deeper ones first.",
            "Values are unscaled; the paper's are times 1e-5." if number and variable == "variance" else "",
            missing_variants(family, shown),
        ],
        variable,
        "contour" if variable == "loss" else "surface",
    )


def read_panel(path: Path, variable: Variable, title: str) -> tuple[SurfacePanel, str]:
    """The surface of a file: the mean over its finished pairs of directions.

    Args:
        path: The file.
        variable: What to read.
        title: Title of the panel.

    Returns:
        The panel, and what is to be said of the directions. Where no pair is finished, the pair with the
        most points, whose other points are marked as not measured.

    Raises:
        ValueError: If the file is damaged, or lacks the variable or a surface.
        OSError: If it cannot be read.
    """
    dataset = read_dataset(path)
    name = "loss" if variable == "loss" else "variance"
    dims = ("direction_seed", "alpha", "beta")
    for needed in (name, "done"):
        if needed not in dataset or set(dataset[needed].dims) != set(dims):
            raise ValueError(f"{path} has no `{needed}` over pairs of directions")
    values, done = _array(dataset, name, dims), _array(dataset, "done", dims) > 0
    if variable == "standard_deviation":
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            values = np.sqrt(values)
    steps = [dataset[axis].to_numpy().astype(np.float64) for axis in ("alpha", "beta")]
    finished = done.all(axis=(1, 2))
    if finished.any():
        with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and drawn so
            mean = values[finished].mean(axis=0)
        count = int(finished.sum())
        note = "one pair of directions" if count == 1 else f"mean of {count} pairs of directions"
        return SurfacePanel(steps[0], steps[1], mean, title), note
    page = int(done.sum(axis=(1, 2)).argmax())
    if not done[page].any():
        raise ValueError(f"{path} has no finished point yet")
    return SurfacePanel(steps[0], steps[1], values[page], title, done[page]), "unfinished"


def has_surface(runs: pd.DataFrame, variable: Variable) -> bool:
    """Whether a run has a readable file of a variable.

    Args:
        runs: Rows of Results.runs.
        variable: What is to be read.

    Returns:
        Whether there is one.
    """
    for path in runs[f"{STEMS[variable]}_file"].dropna():
        try:
            read_panel(Path(str(path)), variable, "")
        except (OSError, ValueError):
            continue
        return True
    return False


def _array(dataset: xr.Dataset, name: str, dims: Sequence[str]) -> np.ndarray:
    return dataset[name].transpose(*dims).to_numpy().astype(np.float64)


def _picture(
    runs: pd.DataFrame,
    shown: Sequence[Shown],
    titles: Mapping[str, str],
    key: str,
    number: str,
    title: str,
    notes: Sequence[str],
    variable: Variable,
    way: str,
    columns: int | None = None,
) -> ReportPicture | None:
    """Surfaces of architectures, each of its run with the lowest seed; None where no file is readable."""
    panels, used, directions, unreadable = [], [], [], []
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
        used.append(chosen.iloc[[0]])
        directions.append(note)
    if not panels:
        return None
    drawn = pd.concat(used)
    words = list(dict.fromkeys(directions))
    label = LABELS[variable]
    caption = [
        f"One run an architecture, that of the lowest seed; {' or '.join(words)}."
        f" All surfaces have one scale; {ALPHA} and {BETA} are steps along filter-normalised random"
        " directions.",
        *notes,
        f"Without a surface: {', '.join(unreadable)}." if unreadable else "",
        conditions(drawn),
    ]
    if way == "contour":
        figure = draw_loss_contours(panels, columns=columns)
    else:
        figure = _DRAW[way](panels, label=label, columns=columns, scale=_scale(panels, variable))
    live: dict[str, Any] = {
        "kind": "surfaces",
        "label": label,
        "view": "surface" if way == "surface" else "map",
        "scale": _scale(panels, variable),
        "surfaces": [_surface(panel) for panel in panels],
    }
    if variable == "loss":  # the same in every picture of every study, as in the still one
        live |= {"limits": [LOSS_NORM.vmin, LOSS_NORM.vmax], "scale": "linear"}
    return ReportPicture(key, number, title, " ".join(part for part in caption if part), figure, live)


def _scale(panels: Sequence[SurfacePanel], variable: Variable) -> Scale:
    """Linear or logarithmic; for the standard deviation as for the variance, of which it is the root."""
    power = 2 if variable == "standard_deviation" else 1
    norm = colour_scale([panel.finite**power for panel in panels])
    return "log" if isinstance(norm, LogNorm) else "linear"


def _surface(panel: SurfacePanel) -> dict[str, Any]:
    return {
        "name": panel.title.replace("\n", ", "),
        "alpha": panel.alphas.tolist(),
        "beta": panel.betas.tolist(),
        "z": [[value if np.isfinite(value) else None for value in row] for row in panel.finite.tolist()],
    }
