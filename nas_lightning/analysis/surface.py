"""Surfaces over weight space: measured point by point, shared over ranks, saved, and resumed after a kill."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float

from nas_lightning.analysis.grid import (
    DIMENSIONS,
    check_axis,
    check_seeds,
    coarse_to_fine,
    lattices,
    measured_variables,
)
from nas_lightning.netcdf import check_attributes, read_dataset, refuse, write_dataset

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

SurfaceType = TypeVar("SurfaceType", bound="Surface")
"""The class whose class method is called."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a surface: its coordinates, and its index in the arrays."""

    direction_seed: int
    alpha: float
    beta: float
    index: tuple[int, int, int]


class Surface:
    """A surface that is measured point by point, and records which points are done.

    Args:
        dataset: Variables and ``done`` over (direction_seed, alpha, beta), as :meth:`create` makes it, and
            possibly variables without alpha and beta.

    Attributes:
        dataset: The values so far; NaN where ``done`` is 0. NaN and infinity where it is 1 were measured.

    Example:
        >>> from nas_lightning.analysis import axis
        >>> steps = axis(3, 1)
        >>> surface = Surface.create("loss_contour", {"loss": {"units": "nat"}}, steps, steps, [0], {})
        >>> surface.record(surface.pending()[0], {"loss": 0.5})
        >>> surface.finished, surface.total
        (1, 9)
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset

    @classmethod
    def create(
        cls: type[SurfaceType],
        kind: str,
        variables: Mapping[str, Mapping[str, str]],
        alphas: Float[np.ndarray, " alpha"] | Iterable[float | int],
        betas: Float[np.ndarray, " beta"] | Iterable[float | int],
        direction_seeds: Iterable[int],
        attributes: Mapping[str, str | int | float],
    ) -> SurfaceType:
        """Create a surface of which no point is done, of a kind such as ``"loss_contour"``.

        `variables` are measured at every point and have the attributes ``long_name`` and ``units``.
        `attributes` are provenance: a file with others is not resumed, see
        :data:`nas_lightning.netcdf.NOT_DECIDING`.

        Raises:
            ValueError: If an axis, a seed or an attribute is refused; the message names it.
        """
        import xarray as xr

        seeds = check_seeds("direction_seeds", direction_seeds)
        for name, value in attributes.items():
            if isinstance(value, int):
                check_seeds(name, [value])
        steps = {"alpha": check_axis("alphas", alphas), "beta": check_axis("betas", betas)}
        shape = (len(seeds), len(steps["alpha"]), len(steps["beta"]))
        measured = {
            name: (DIMENSIONS, np.full(shape, np.nan), dict(description))
            for name, description in variables.items()
        }
        done = (DIMENSIONS, np.zeros(shape, np.int8), {"long_name": "1 where measured", "units": "1"})
        seed_attributes = {"long_name": "seed of the pair of directions"}
        coordinates = {"direction_seed": ("direction_seed", np.array(seeds, np.int32), seed_attributes)}
        for number, (name, values) in enumerate(steps.items(), start=1):
            description = {"long_name": f"step along direction {number}", "units": "1"}
            coordinates[name] = (name, values, description)
        plain = {name: int(v) if isinstance(v, bool) else v for name, v in attributes.items()}
        dataset = xr.Dataset(measured | {"done": done}, coordinates, {"kind": kind} | plain)
        return cls(dataset)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what is measured at every point."""
        return measured_variables(self.dataset)

    @property
    def finished(self) -> int:
        """Number of points that are done."""
        return int(self.dataset["done"].values.sum())

    @property
    def total(self) -> int:
        """Number of points."""
        return int(self.dataset["done"].size)

    @property
    def complete(self) -> bool:
        """Whether every point is done."""
        return self.finished == self.total

    def pending(self) -> list[Point]:
        """Points that are not done, in the order in which they are measured.

        One pair of directions after the other, each from coarse to fine: corners, edge centres and centre,
        then the points that halve the distance, row by row, and so on. So there is a picture early.
        """
        done = self.dataset["done"].values
        seeds, alphas, betas = (self.dataset[name].values.tolist() for name in DIMENSIONS)
        order = coarse_to_fine(len(alphas), len(betas))
        return [
            Point(seed, alphas[row], betas[column], (page, row, column))
            for page, seed in enumerate(seeds)
            for row, column in order
            if not done[page, row, column]
        ]

    def record(self, point: Point, values: Mapping[str, float]) -> None:
        """Set a point's values of all :attr:`variables`, possibly NaN or infinity, and mark it as done."""
        self._check_names(values)
        for name, value in values.items():
            # One zero and one NaN: a sum over ranks does not keep their signs.
            self.dataset[name].values[point.index] = math.nan if math.isnan(value) else value + 0.0
        self.dataset["done"].values[point.index] = 1

    def _check_names(self, values: Mapping[str, float]) -> None:
        if values.keys() != set(self.variables):
            raise ValueError(f"the surface holds {sorted(self.variables)}, not {sorted(values)}")

    def attach(self, variables: Mapping[str, xr.DataArray]) -> None:
        """Add or replace variables without alpha and beta, such as the cosine between the directions."""
        for name, variable in variables.items():
            if {"alpha", "beta"} & set(variable.dims):
                raise ValueError(f"`{name}` lies on the grid: record it point by point")
            self.dataset[name] = variable

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the surface as netCDF-3, atomically; an OSError names the file."""
        write_dataset(path, self.dataset)

    @classmethod
    def resume_or_create(
        cls: type[SurfaceType], path: str | os.PathLike[str], fresh: SurfaceType
    ) -> SurfaceType:
        """Read the surface that a file holds, if it is the one to measure; without a file, take a fresh one.

        The file is only read. Its further variables (:meth:`attach`) are kept, missing ones come from
        `fresh`. Attributes of :data:`nas_lightning.netcdf.NOT_DECIDING` stay as in the file.

        Raises:
            ValueError: If the file is damaged or holds another surface: the message names the file, the first
                difference, and both values.
        """
        if not Path(path).exists():
            return fresh
        return cls._resumed(path, read_surface(path), fresh)

    @classmethod
    def _resumed(
        cls: type[SurfaceType], path: str | os.PathLike[str], dataset: xr.Dataset, fresh: SurfaceType
    ) -> SurfaceType:
        """The surface of a file's dataset, if it is the one to measure."""
        _check_same(path, dataset, fresh.dataset)
        resumed = cls(dataset)
        resumed.attach({str(n): v for n, v in fresh.dataset.data_vars.items() if n not in dataset.data_vars})
        return resumed


def finest_lattice(dataset: xr.Dataset, direction_seed: int | None = None) -> xr.Dataset | None:
    """Select the finest sub-grid of an unfinished surface that has no missing point.

    Args:
        dataset: A surface with ``done``.
        direction_seed: Which pair of directions; None for the first.

    Returns:
        The variables over (alpha, beta) at the sub-grid's steps, without ``done``; None if not even the
        coarsest sub-grid (corners, edge centres, centre) is done.

    Raises:
        ValueError: If the surface has no such seed.
    """
    seeds = dataset["direction_seed"].values.tolist()
    if direction_seed is not None and direction_seed not in seeds:
        raise ValueError(f"`direction_seed` (={direction_seed}) must be one of {seeds}")
    page = dataset.isel(direction_seed=0 if direction_seed is None else seeds.index(direction_seed))
    done = page["done"].values
    for rows, columns in reversed(lattices(*done.shape)):
        if done[np.ix_(rows, columns)].all():
            return page.isel(alpha=rows, beta=columns).drop_vars(["done", "direction_seed"])
    return None


def measure_pending(
    surface: Surface,
    measure: Callable[[Point], Mapping[str, float]],
    *,
    rank: int = 0,
    world_size: int = 1,
    reduce: Callable[[Float[np.ndarray, "chunk variables"]], Float[np.ndarray, "chunk variables"]]
    | None = None,
    chunk_size: int = 16,
    after_chunk: Callable[[Surface], None] | None = None,
) -> None:
    """Measure the pending points of a surface, shared by all ranks.

    The points are cut into chunks of `chunk_size`, rounded up to a multiple of the number of ranks. Point j
    of a chunk is measured by rank ``j % world_size``; then the ranks add up their arrays, zero where another
    rank measured, and every rank records the chunk. A sum with zeros keeps NaN and infinity. The values do
    not depend on the number of ranks.

    Args:
        surface: The same on every rank.
        measure: Gives the values of a point.
        rank: Rank of this process.
        world_size: Number of processes.
        reduce: Sum of an array over all ranks, in float64; None for one rank.
        chunk_size: Points between two calls of `after_chunk`, at least.
        after_chunk: Called on every rank after each chunk, to save it or to report.

    Raises:
        ValueError: If `chunk_size` is not positive, the rank does not fit, several ranks have no `reduce`, or
            the measured variables are not the surface's.
    """
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` (={chunk_size}) must be at least 1")
    if not 0 <= rank < world_size:
        raise ValueError(f"`rank` (={rank}) must be at least 0 and below `world_size` (={world_size})")
    if world_size > 1 and reduce is None:
        raise ValueError(f"`world_size` (={world_size}) needs `reduce`, the sum over ranks")
    variables = surface.variables
    points = surface.pending()
    size = math.ceil(chunk_size / world_size) * world_size
    for start in range(0, len(points), size):
        chunk = points[start : start + size]
        values = np.zeros((len(chunk), len(variables)))
        for place in range(rank, len(chunk), world_size):
            measured = measure(chunk[place])
            surface._check_names(measured)
            values[place] = [measured[name] for name in variables]
        if reduce is not None:
            values = reduce(values)
        for point, row in zip(chunk, values.tolist(), strict=True):
            surface.record(point, dict(zip(variables, row, strict=True)))
        if after_chunk is not None:
            after_chunk(surface)


def measured_plane(
    measure: Callable[[Point], Mapping[str, float]],
    variables: Mapping[str, Mapping[str, str]],
    alphas: Float[np.ndarray, " alpha"] | Iterable[float | int],
    betas: Float[np.ndarray, " beta"] | Iterable[float | int],
    attributes: Mapping[str, str | int | float],
) -> xr.Dataset:
    """Measure a surface of one pair of directions in this process: the variables over (alpha, beta).

    `variables` holds the attributes of each, `attributes` the provenance and the surface's ``kind``.
    """
    surface = Surface.create(str(attributes["kind"]), variables, alphas, betas, [0], attributes)
    measure_pending(surface, measure)
    return surface.dataset.isel(direction_seed=0).drop_vars(["done", "direction_seed"])


def read_surface(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a surface file into memory, and close it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is not a surface, or damaged.
    """
    dataset = read_dataset(path)
    if dataset.attrs["kind"] == "hessian_spectrum":
        raise ValueError(f"{path} holds a Hessian spectrum, not a surface; TensorBoard has its picture")
    if "not_measured" in dataset.attrs:
        raise ValueError(f"{path} holds nothing to draw: {dataset.attrs['not_measured']}")
    if dataset.attrs["kind"] == "gradient_variance" and "alpha" not in dataset.dims:
        raise ValueError(f"{path} holds the gradient variance at w* alone (`resolution` null), not a surface")
    fault = _fault(dataset)
    if fault:
        raise ValueError(f"{path} is not a surface file, or it is damaged: {fault}")
    return dataset


def _fault(dataset: xr.Dataset) -> str | None:
    """Why a dataset is no surface; None for a surface."""
    for name in (*DIMENSIONS, "done"):
        if name not in dataset.variables:
            return f"it has no `{name}`"
    if dataset["done"].dims != DIMENSIONS or not np.isin(dataset["done"].values, (0, 1)).all():
        return "`done` is not 0 or 1 over the grid"
    if not measured_variables(dataset):
        return "no variable lies on the grid"
    try:
        for name in ("alpha", "beta"):
            check_axis(name, dataset[name].values)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _check_same(path: str | os.PathLike[str], found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Refuse a file whose surface is not the one to measure."""
    check_attributes(path, found.attrs, wanted.attrs)
    seeds, others = (dataset["direction_seed"].values.tolist() for dataset in (wanted, found))
    if seeds != others:
        refuse(path, "direction_seed", seeds, others)
    for name in ("alpha", "beta"):
        steps = wanted[name].values, found[name].values
        if not np.array_equal(*steps):
            refuse(path, name, *(f"{len(s)} steps from {s[0]} to {s[-1]}" for s in steps))
    variables, measured = sorted(measured_variables(wanted)), sorted(measured_variables(found))
    if variables != measured:
        refuse(path, "variables", variables, measured)
