"""The file of spectral densities: nodes and weights of every start vector, and the densities from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_lightning.analysis.spectral_density import MATRICES, MOMENTS, Quadrature, density_of, moments_of
from nas_lightning.netcdf import read_dataset

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

NORMALIZED = "normalized_"
"""Begins the names of matrices D A D."""
_DIMENSIONS = ("matrix", "start_vector")
_WORDS = {
    "trace": "trace",
    "frobenius_norm": "Frobenius norm",
    "effective_dimension": "effective dimension at the ridge",
}


def matrix_names(matrices: Sequence[str], normalized: bool) -> list[str]:
    """The matrices of a file: the plain ones, then the normalised ones."""
    return [*matrices, *(f"{NORMALIZED}{name}" for name in matrices if normalized)]


def new_densities(
    names: Sequence[str], steps: int, start_vectors: int, attributes: Mapping[str, str | int | float]
) -> xr.Dataset:
    """A file's content before the first product: nothing is done."""
    import xarray as xr

    shape = (len(names), start_vectors)
    empty = np.full((*shape, steps), np.nan)
    over = (*_DIMENSIONS, "step")
    return xr.Dataset(
        {
            "node": (over, empty, {"long_name": "eigenvalues of Lanczos's matrix"}),
            "weight": (over, empty.copy(), {"long_name": "their weights, which sum to 1", "units": "1"}),
            "done": (_DIMENSIONS, np.zeros(shape, np.int8), {"long_name": "1 if measured"}),
            "invariant": (
                _DIMENSIONS,
                np.zeros(shape, np.int8),
                {"long_name": "1 if Lanczos ended before its steps, in an invariant subspace"},
            ),
            "dimension": ("matrix", np.zeros(len(names), np.int32), {"long_name": "number of eigenvalues"}),
        },
        coords={"matrix": list(names), "start_vector": np.arange(start_vectors)},
        attrs=dict(attributes),
    )


def put_quadrature(dataset: xr.Dataset, name: str, vectors: Sequence[int], found: Quadrature) -> None:
    """Enter the nodes and weights of some start vectors of a matrix."""
    row = dataset["matrix"].values.tolist().index(name)
    for values, vector in zip(zip(found.nodes, found.weights, strict=True), vectors, strict=True):
        dataset["node"].values[row, vector], dataset["weight"].values[row, vector] = values
    dataset["invariant"].values[row, list(vectors)] = found.is_invariant
    dataset["dimension"].values[row] = found.dimension
    dataset["done"].values[row, list(vectors)] = 1


def with_densities(dataset: xr.Dataset, width: float, ridge: float) -> xr.Dataset:
    """Add the densities and moments of the start vectors that are done; NaN for a matrix without one.

    The densities are over (matrix, point): ``eigenvalue``, ``log_density`` (log10) and its standard error.
    Moments and their standard errors are single numbers, ``hessian_trace`` for example.
    """
    variables: dict[str, Any] = {}
    columns: dict[str, list[np.ndarray]] = {}
    for row, name in enumerate(dataset["matrix"].values.tolist()):
        found = _quadrature(dataset, row)
        density = density_of(found, width)
        columns.setdefault("eigenvalue", []).append(density.points)
        columns.setdefault("log_density", []).append(density.log10)
        columns.setdefault("log_density_standard_error", []).append(density.log10_errors)
        columns.setdefault("kernel_width", []).append(np.array(density.width))
        units = "nat" if name.startswith(NORMALIZED) else "nat per squared weight"
        for moment, (value, error) in moments_of(found, ridge).items():
            about = f"{_WORDS[moment]} of {name.replace('_', ' ')}"
            own = {"units": "1" if moment == "effective_dimension" else units}
            variables[f"{name}_{moment}"] = ((), value, {"long_name": about, **own})
            variables[f"{name}_{moment}_standard_error"] = (
                (),
                error,
                {"long_name": f"standard error of the {about}", **own},
            )
    words = {
        "eigenvalue": "eigenvalue",
        "log_density": "log10 of the density of the eigenvalues",
        "log_density_standard_error": "its standard error over start vectors",
        "kernel_width": "standard deviation of the Gaussian kernel",
    }
    for name, rows in columns.items():
        over = ("matrix", "point")[: 1 + rows[0].ndim]
        variables[name] = (over, np.stack(rows), {"long_name": words[name]})
    return dataset.assign(variables)


def read_densities(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a file of spectral densities into memory, and close it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it holds something else, or is damaged.
    """
    dataset = read_dataset(path)
    check_densities(path, dataset)
    return dataset


def check_densities(path: str | os.PathLike[str], dataset: xr.Dataset) -> None:
    """Refuse what is no file of spectral densities, or lacks a part of one."""
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(("node", "weight"), (*_DIMENSIONS, "step"))
    wanted |= dict.fromkeys(("done", "invariant"), _DIMENSIONS)
    wanted |= dict.fromkeys(("eigenvalue", "log_density"), ("matrix", "point"))
    for name, dimensions in wanted.items():
        if name not in dataset.variables or dataset[name].dims != dimensions:
            raise ValueError(
                f"{path} is not a spectral density, or it is damaged: `{name}` is not over"
                f" {' and '.join(dimensions)}"
            )
    known = {*MATRICES, *(f"{NORMALIZED}{name}" for name in MATRICES)}
    names = {str(name) for name in dataset["matrix"].values}
    lacking = [f"{name}_{moment}" for name in names for moment in MOMENTS]
    if names - known or not np.isin(dataset["done"].values, (0, 1)).all() or set(lacking) - set(dataset):
        raise ValueError(f"{path} is damaged: its matrices, their moments or `done` are not as they must be")


def pending_vectors(dataset: xr.Dataset, name: str) -> list[int]:
    """Numbers of the start vectors that a matrix lacks."""
    lacking: list[int] = np.flatnonzero(dataset["done"].sel(matrix=name).values == 0).tolist()
    return lacking


def _quadrature(dataset: xr.Dataset, row: int) -> Quadrature:
    """The start vectors of a matrix that are done; one of NaN if none is."""
    done = dataset["done"].values[row] == 1
    chosen = done if done.any() else np.arange(len(done)) == 0
    nodes, weights = (dataset[name].values[row][chosen] for name in ("node", "weight"))
    dimension = int(dataset["dimension"].values[row])
    return Quadrature(nodes, weights, dimension, dataset["invariant"].values[row][chosen] == 1)
