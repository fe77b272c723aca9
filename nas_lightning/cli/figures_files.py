"""What `nas-lightning plot` draws: surface files as panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nas_lightning.analysis.surface import finest_lattice
from nas_lightning.analysis.surface_file import read_surface
from nas_lightning.figures.panels import SurfacePanel
from nas_lightning.figures.variance import VarianceSplit

VARIABLES: Mapping[str, Sequence[str]] = {
    "loss_contour": ("loss", "accuracy"),
    "gradient_variance": ("standard_deviation", "variance", "mean_gradient_norm", "standard_error"),
}
"""What can be drawn of each kind of file; the standard deviation is the square root of the variance."""
DEFAULT_VARIABLE = {kind: variables[0] for kind, variables in VARIABLES.items()}
LABELS = {
    "loss": "loss (nat)",
    "accuracy": "accuracy",
    "standard_deviation": "standard deviation of the gradient",
    "variance": "variance of the gradient",
    "mean_gradient_norm": "norm of the mean gradient",
    "standard_error": "standard error of the variance",
}
FIXED_LIMITS = {"loss": (0.0, 10.0), "accuracy": (0.0, 1.0)}
"""Ends of the scale where all pictures have the same one."""


@dataclass(frozen=True, eq=False)
class ChosenSurface:
    """What is drawn of one file.

    Attributes:
        panel: One surface: the mean over the finished pairs of directions, or a single pair.
        by_seed: The values of every finished pair; empty if none is.
        note: What is to be said of a file that is not finished.
        path: The file.
    """

    panel: SurfacePanel
    by_seed: np.ndarray
    note: str
    path: Path

    def finished_values(self) -> np.ndarray:
        """Values of every finished pair of directions.

        Returns:
            Values over (direction_seed, alpha, beta).

        Raises:
            ValueError: If none is finished.
        """
        if not len(self.by_seed):
            raise ValueError(f"{self.path} has no finished pair of directions to draw the spread of")
        return self.by_seed


def read_same_kind(paths: Sequence[Path]) -> list[xr.Dataset]:
    """Read surface files that can stand side by side.

    Args:
        paths: The files.

    Returns:
        Their datasets.

    Raises:
        ValueError: If a file is no surface, of an unknown kind, or of another kind than the first.
        OSError: If a file cannot be read.
    """
    datasets = [read_surface(path) for path in paths]
    for path, dataset in zip(paths, datasets, strict=True):
        kind, first = dataset.attrs["kind"], datasets[0].attrs["kind"]
        if kind not in VARIABLES:
            raise ValueError(f"{path} is of kind {kind!r}; there are pictures of {', '.join(VARIABLES)}")
        if kind != first:
            raise ValueError(
                f"{paths[0]} is of kind {first}, {path} of kind {kind}: they have no scale in common"
            )
        if min(dataset.sizes["alpha"], dataset.sizes["beta"]) < 2:
            raise ValueError(f"{path} has one step along alpha or beta: there is no surface to draw")
    return datasets


def titles(paths: Sequence[Path], datasets: Sequence[xr.Dataset]) -> list[str]:
    """A title for each file: the genotype's name, and the file where that does not tell them apart.

    Args:
        paths: The files.
        datasets: Their datasets.

    Returns:
        The titles.
    """
    names = [
        str(dataset.attrs.get("title") or path.stem) for path, dataset in zip(paths, datasets, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name}\n{path}" for name, path in zip(names, paths, strict=True)
    ]


def choose(
    path: Path, dataset: xr.Dataset, title: str, *, variable: str, direction_seed: int | None = None
) -> ChosenSurface:
    """The surface that is drawn of a file.

    All finished pairs of directions count, their mean is drawn. Where none is finished, or an unfinished one
    is asked for, its finest grid without a missing point is; where there is none yet, the points that are
    done.

    Args:
        path: The file, for messages.
        dataset: Its content.
        title: Title of the panel.
        variable: One of ``VARIABLES``.
        direction_seed: The pair that is asked for; all by default.

    Returns:
        What to draw.

    Raises:
        ValueError: If the file lacks the variable or the pair, or has no finished point.
    """
    dataset = _with_standard_deviation(dataset)
    if variable not in dataset:
        raise ValueError(f"{path} has no variable {variable!r}")
    seeds = dataset["direction_seed"].values.tolist()
    if direction_seed is not None and direction_seed not in seeds:
        raise ValueError(f"`direction_seed` (={direction_seed}): {path} has {', '.join(map(str, seeds))}")
    done = dataset["done"].values.astype(bool)
    if not done.any():
        raise ValueError(f"{path} has no finished point yet")
    wanted = range(len(seeds)) if direction_seed is None else [seeds.index(direction_seed)]
    finished = [index for index in wanted if done[index].all()]
    note = ""
    if not done[list(wanted)].all():
        note = f"{path} is unfinished: {int(done.sum())} of {done.size} points"
    if finished:
        by_seed = dataset[variable].values[finished].astype(np.float64)
        lines = [title]
        if direction_seed is not None:
            lines.append(f"pair of directions {direction_seed}")
        elif len(seeds) > 1:
            some = f"{len(finished)} of {len(seeds)}" if len(finished) < len(seeds) else str(len(seeds))
            lines.append(f"mean of {some} pairs of directions")
        with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and drawn so
            mean = by_seed.mean(axis=0)
        steps = (dataset["alpha"].values, dataset["beta"].values)
        return ChosenSurface(SurfacePanel(*steps, mean, "\n".join(lines)), by_seed, note, path)
    return _unfinished(path, dataset, title, variable, note, direction_seed)


def _unfinished(
    path: Path, dataset: xr.Dataset, title: str, variable: str, note: str, direction_seed: int | None
) -> ChosenSurface:
    seeds = dataset["direction_seed"].values.tolist()
    done = dataset["done"].values.astype(bool)
    seed = seeds[int(done.sum(axis=(1, 2)).argmax())] if direction_seed is None else direction_seed
    page = seeds.index(seed)
    if not done[page].any():
        raise ValueError(f"{path} has no finished point yet for `direction_seed` (={seed})")
    lattice = finest_lattice(dataset, seed)
    title += f"\n{int(done[page].sum())} of {done[page].size} points"
    title += f", pair of directions {seed}" if len(seeds) > 1 else ""
    if lattice is None:
        values, measured = dataset[variable].values[page], done[page]
        steps = (dataset["alpha"].values, dataset["beta"].values)
        note += "; those are drawn"
    else:
        values, measured = lattice[variable].values, None
        steps = (lattice["alpha"].values, lattice["beta"].values)
        note += f"; drawn on {len(steps[0])} x {len(steps[1])} of them"
    values = values.astype(np.float64)
    return ChosenSurface(SurfacePanel(*steps, values, title, measured), values[:0], note, path)


def _with_standard_deviation(dataset: xr.Dataset) -> xr.Dataset:
    if "variance" not in dataset:
        return dataset
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return dataset.assign(standard_deviation=np.sqrt(dataset["variance"]))


def variance_split(path: Path, dataset: xr.Dataset, title: str) -> VarianceSplit:
    """The gradient variance at the trained weights, by cell and node.

    Args:
        path: The file, for messages.
        dataset: Its content.
        title: Title of the panel.

    Returns:
        What to draw.

    Raises:
        ValueError: If the file does not have it.
    """
    if "variance_by_node" not in dataset:
        raise ValueError(f"{path} has no variance by node: it was not measured, or not of a cell network")
    by_node = dataset["variance_by_node"].transpose("cell", "node")
    parts = {}
    if "variance_by_part" in dataset:
        by_part = dataset["variance_by_part"]
        names = _texts(by_part["part"].values)
        parts = {
            name: float(value)
            for name, value in zip(names, by_part.values.tolist(), strict=True)
            if name != "cells"
        }
    return VarianceSplit(by_node.values.astype(np.float64), _texts(by_node["node"].values), parts, title)


def _texts(values: np.ndarray) -> list[str]:
    """Strings, which netCDF-3 may return as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
