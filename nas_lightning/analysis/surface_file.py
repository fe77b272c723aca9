"""Surfaces on disk: what makes a netCDF file a surface, and one surface the other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from nas_lightning.analysis.grid import DIMENSIONS, check_axis, measured_variables
from nas_lightning.netcdf import check_attributes, read_dataset, refuse

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together


def read_surface(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a surface file.

    Args:
        path: The file.

    Returns:
        The dataset, in memory; the file is closed.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is not a surface, or damaged.
    """
    dataset = read_dataset(path)
    if dataset.attrs["kind"] == "hessian_spectrum":
        raise ValueError(f"{path} holds a Hessian spectrum, not a surface; TensorBoard has its picture")
    fault = _fault(dataset)
    if fault:
        raise ValueError(f"{path} is not a surface file, or it is damaged: {fault}")
    return dataset


def check_same_surface(path: str | os.PathLike[str], found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Refuse a file that holds another surface than the one wanted.

    Args:
        path: The file, for the message.
        found: What it holds.
        wanted: What is to be measured.

    Raises:
        ValueError: If a deciding attribute, an axis, the direction seeds or the variables differ: naming the
            file, what differs first, and both values.
    """
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


def _fault(dataset: xr.Dataset) -> str | None:
    """What keeps a dataset from being a surface."""
    for name in (*DIMENSIONS, "done"):
        if name not in dataset.variables:
            return f"it has no `{name}`"
    if dataset["done"].dims != DIMENSIONS or not np.isin(dataset["done"].values, (0, 1)).all():
        return "`done` is not 0 or 1 over the grid"
    if not measured_variables(dataset):
        return "nothing is measured over the grid"
    try:
        for name in ("alpha", "beta"):
            check_axis(name, dataset[name].values)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
