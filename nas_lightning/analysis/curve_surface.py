"""Curves over weight space: measured, shared and resumed as a surface with a single step along beta."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from nas_lightning.analysis.surface import Surface
from nas_lightning.netcdf import read_dataset, refuse, write_dataset

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

CurveType = TypeVar("CurveType", bound="CurveSurface")
"""The class whose class method is called."""


class CurveSurface(Surface):
    """Curves that are measured like a surface: the rows are its pages, alpha is the position, beta 0.

    A file has the variables over the class's own :attr:`dimensions`, such as (direction_seed, radius). In a
    :class:`~nas_lightning.analysis.surface.Point` the row's label is ``direction_seed``, the position
    ``alpha``.
    """

    title: ClassVar[str]
    """What a file holds, such as ``"a loss profile"``; messages have it."""
    dimensions: ClassVar[tuple[str, str]]
    """Names of rows and positions in the file."""
    descriptions: ClassVar[Mapping[str, Mapping[str, str]]]
    """Attributes (``long_name``, ``units``) of the coordinates, by name."""
    needed: ClassVar[tuple[str, ...]] = ()
    """Variables over :attr:`dimensions` that every file has, beside ``done``."""

    @property
    def curves(self) -> xr.Dataset:
        """The values so far over :attr:`dimensions`."""
        rows, positions = self.dimensions
        names = {"direction_seed": rows, "alpha": positions}
        curves = self.dataset.isel(beta=0, drop=True)
        curves = curves.rename({old: new for old, new in names.items() if old != new})
        for name, description in self.descriptions.items():
            curves[name].attrs = dict(description)
        return curves

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the curves as netCDF-3, atomically; an OSError names the file."""
        write_dataset(path, self.curves)

    @classmethod
    def resume_or_create(cls: type[CurveType], path: str | os.PathLike[str], fresh: CurveType) -> CurveType:
        """Read the curves that a file holds, if they are those to measure; see :class:`Surface`."""
        if not Path(path).exists():
            return fresh
        found = cls.read(path)
        rows, positions = cls.dimensions
        steps, wanted = found[positions].values, fresh.dataset["alpha"].values
        if not np.array_equal(steps, wanted):
            refuse(path, positions, *(f"{len(s)} steps from {s[0]:g} to {s[-1]:g}" for s in (wanted, steps)))
        names = {rows: "direction_seed", positions: "alpha"}
        found = found.rename({old: new for old, new in names.items() if old != new})
        plane = found.expand_dims(beta=fresh.dataset["beta"])
        in_plane = [name for name in plane.data_vars if "alpha" in plane[name].dims]
        found = found.drop_vars(in_plane)
        found = found.assign({n: plane[n].transpose("direction_seed", "alpha", "beta") for n in in_plane})
        return cls._resumed(path, found, fresh)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> xr.Dataset:
        """Read a file of such curves into memory, and close it.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If it cannot be read.
            ValueError: If it holds something else, or is damaged.
        """
        dataset = read_dataset(path)
        over = " and ".join(cls.dimensions)
        for name in (*cls.needed, "done"):
            if name not in dataset.variables or dataset[name].dims != cls.dimensions:
                raise ValueError(f"{path} is not {cls.title}, or it is damaged: `{name}` is not over {over}")
        if not np.isin(dataset["done"].values, (0, 1)).all():
            raise ValueError(f"{path} is damaged: `done` is not 0 or 1 over {over}")
        return dataset
