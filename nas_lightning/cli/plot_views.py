"""How `nas-lightning plot` draws the kinds of files that have one view of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from nas_lightning.figures import TrajectoryPanel

TRAJECTORY = "trajectory"
"""Kind of the files that can be animated."""


@dataclass(frozen=True)
class OwnView:
    """The one view of a kind of files.

    Attributes:
        view: Its name, as ``--view`` takes it.
        text: What it shows, for the help.
        read: Reads a file and checks it.
        draw: Draws the datasets of some files, given their titles, their paths and the picture's title.
    """

    view: str
    text: str
    read: Callable[[Path], xr.Dataset]
    draw: Callable[[Sequence[xr.Dataset], Sequence[str], Sequence[Path], str], Figure]


_LINES = (
    "loss and accuracy of each split along random directions, and along lines and curves between networks"
)


def check_options(options: argparse.Namespace, kind: str) -> None:
    """Refuse another view, and the options for surfaces."""
    if options.view not in (None, OWN_VIEWS[kind].view):
        raise ValueError(f"`view` (={options.view}) cannot draw files of kind {kind}: leave it out")
    for name in ("variable", "scale", "vmin", "vmax", "columns", "direction_seed"):
        if getattr(options, name) not in (None, "auto"):
            raise ValueError(f"`{name}` has no effect on files of kind {kind}: leave it out")


def finished_rows(dataset: xr.Dataset, path: Path, dimension: str, rows: str) -> int:
    """How many rows of curves are measured completely; says so where some are not.

    Raises:
        ValueError: If none is.
    """
    total = dataset.sizes[dimension]
    others = [name for name in dataset["done"].dims if name != dimension]
    finished = int(dataset["done"].all(others).sum())
    if not finished:
        raise ValueError(f"{path} has no {rows.removesuffix('s')} that is measured completely")
    if finished < total:
        _say_unfinished(path, finished, total, rows)
    return finished


def _say_if_unfinished(dataset: xr.Dataset, path: Path, parts: str) -> None:
    """Say how many parts of a file, such as points, are measured, unless all are."""
    finished, total = int(dataset["done"].sum()), dataset["done"].size
    if finished < total:
        _say_unfinished(path, finished, total, parts)


def _say_unfinished(path: Path, finished: int, total: int, parts: str) -> None:
    print(f"nas-lightning: {path} is unfinished: {finished} of {total} {parts} are measured", file=sys.stderr)


def _read_profile(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.loss_profile import read_profile

    return read_profile(path)


def _draw_profiles(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    from nas_lightning import figures

    curves = []
    for dataset, path, name in zip(datasets, paths, titles, strict=True):
        finished_rows(dataset, path, "direction_seed", "directions")
        label = name.replace("\n", ", ")
        curvature = figures.read_curvature(dataset)
        losses, radii = figures.finished_losses(dataset), dataset["radius"].values
        curves.append(figures.profile_curve([losses], radii, label, curvature=curvature))
    note = figures.shared_note([figures.file_facts(dataset) for dataset in datasets])
    return figures.draw_profiles(curves, title=title, note=note)


def _read_trajectory(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.surface import read_surface

    return read_surface(path)


def _trajectory_panels(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path]
) -> list[TrajectoryPanel]:
    from nas_lightning import figures
    from nas_lightning.analysis.surface import finest_lattice

    panels = []
    for dataset, title, path in zip(datasets, titles, paths, strict=True):
        _say_if_unfinished(dataset, path, "points")
        try:
            panels.append(figures.read_trajectory_panel(dataset, title, finest=finest_lattice))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return panels


def _draw_trajectories(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    from nas_lightning import figures

    return figures.draw_trajectories(_trajectory_panels(datasets, titles, paths), title=title)


def write_animation(dataset: xr.Dataset, title: str, path: Path, output: Path) -> None:
    """Write the animation of a trajectory's file."""
    from nas_lightning import figures

    [panel] = _trajectory_panels([dataset], [title], [path])
    figures.write_trajectory_animation(panel, output)


def _read_densities(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.density_file import read_densities

    return read_densities(path)


def _draw_densities(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    from nas_lightning import figures

    rows = []
    for dataset, path, name in zip(datasets, paths, titles, strict=True):
        _say_if_unfinished(dataset, path, "start vectors")
        try:
            rows.append(figures.read_density_panels(dataset, name.replace("\n", ", ")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    note = figures.shared_note([figures.file_facts(dataset) for dataset in datasets])
    return figures.draw_densities(rows, title=title, note=note)


def _read_paths(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.mode_connectivity import PathSurface

    return PathSurface.read(path)


def _draw_paths(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    from nas_lightning import figures

    if len(datasets) > 1:
        raise ValueError(f"`files` are {len(paths)} curves between networks: a picture shows one")
    finished_rows(datasets[0], paths[0], "path", "paths")
    return figures.draw_connectivity(datasets[0], title or titles[0].replace("\n", ", "))


def _read_blocks(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.block_surface import read_blocks

    return read_blocks(path)


def _draw_blocks(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    from nas_lightning import figures

    for dataset, path in zip(datasets, paths, strict=True):
        _say_if_unfinished(dataset, path, "blocks")
    read = [figures.read_block_curvature(*pair) for pair in zip(datasets, titles, strict=True)]
    return figures.draw_block_curvature(read, title=title)


def _read_line(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.loss_line import LineSurface

    return LineSurface.read(path)


def _read_interpolation(path: Path) -> xr.Dataset:
    from nas_lightning.analysis.interpolation import InterpolationSurface

    return InterpolationSurface.read(path)


def _draw_lines(
    datasets: Sequence[xr.Dataset], titles: Sequence[str], paths: Sequence[Path], title: str
) -> Figure:
    """Draw loss lines, or lines between checkpoints; a single file's title is that of the picture."""
    from nas_lightning import figures

    rows = "pair" if "pair" in datasets[0].dims else "direction_seed"
    for dataset, path in zip(datasets, paths, strict=True):
        finished_rows(dataset, path, rows, "pairs" if rows == "pair" else "directions")
        figures.splits_of(dataset, path)
    names = [name.replace("\n", ", ") for name in titles]
    drawing = figures.draw_interpolations if rows == "pair" else figures.draw_loss_lines
    figure = drawing(datasets, names, title or (names[0] if len(names) == 1 else ""))
    assert figure is not None
    return figure


OWN_VIEWS: Mapping[str, OwnView] = MappingProxyType(
    {
        "loss_profile": OwnView(
            "profile",
            "the loss along random directions, mean and standard error, all files in one panel",
            _read_profile,
            _draw_profiles,
        ),
        "block_curvature": OwnView(
            "blocks",
            "largest and smallest eigenvalue of every cell's and node's own block of the Hessian",
            _read_blocks,
            _draw_blocks,
        ),
        TRAJECTORY: OwnView(
            "trajectory",
            "the path of a training over the loss in the plane of its first two components; a .gif moves",
            _read_trajectory,
            _draw_trajectories,
        ),
        "spectral_density": OwnView(
            "density",
            "log density of the curvature's eigenvalues and its moments, a row for each file",
            _read_densities,
            _draw_densities,
        ),
        "mode_connectivity": OwnView(
            "line",
            _LINES,
            _read_paths,
            _draw_paths,
        ),
        "loss_line": OwnView(
            "line",
            _LINES,
            _read_line,
            _draw_lines,
        ),
        "interpolation": OwnView("line", _LINES, _read_interpolation, _draw_lines),
    }
)
"""The kinds of files with one view of their own."""
