"""Scalars of the measurements that a run ended with: loss contour, gradient variance, Hessian spectrum."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import xarray as xr

from nas_lightning.netcdf import read_dataset
from nas_lightning.study.study import Run

SURFACES = ("loss_contour", "gradient_variance", "hessian_spectrum")
"""Stems of the files of measurements."""

Scalars: TypeAlias = dict[str, float | int | str]

# What a file says of its points and directions, not of the loss.
_NO_SCALARS = frozenset({"done", "cosine"})


def read_measurements(run: Run, weights: str) -> tuple[dict[str, Scalars], tuple[str, ...]]:
    """Read the measurements of a run, those that its study asks for and those that are there all the same.

    Args:
        run: The run.
        weights: SHA-256 of the weights that the run ended with.

    Returns:
        The scalars of each by the stem of its file, the path as ``file``; and what is missing, unfinished,
        damaged or of other weights, a line each, which names the file.
    """
    planned = {analysis.stem: analysis.path(run.folder, run.epochs) for analysis in run.analyses}
    usual = {stem: run.folder / "landscape" / f"{stem}-epoch{run.epochs - 1:04d}.nc" for stem in SURFACES}
    surfaces: dict[str, Scalars] = {}
    problems = []
    for stem, path in (usual | planned).items():
        if not path.exists():
            if stem in planned:
                problems.append(f"there is no {path}")
            continue
        try:
            dataset = read_dataset(path)
            if dataset.attrs.get("weights_sha256", weights) != weights:
                raise ValueError("measured with other weights than those that the run ended with")
            surfaces[stem] = {"file": str(path), **surface_scalars(dataset)}
        except (OSError, ValueError) as error:
            reason = in_one_line(error)
            problems.append(reason if str(path) in reason else f"{path}: {reason}")
    return surfaces, tuple(problems)


def surface_scalars(dataset: xr.Dataset) -> Scalars:
    """The scalars of a measurement's file.

    Args:
        dataset: The file's content.

    Returns:
        Of every variable without dimensions its value; of every variable over ``direction_seed`` the mean
        and, as ``NAME.sd``, the standard deviation of a sample (divided by the number of seeds less one; NaN
        for one seed). Values that are not finite make both not finite. Of a spectrum ``largest_eigenvalue``
        and ``smallest_eigenvalue`` (NaN where none was asked for). Always ``samples``, ``split`` and
        ``direction_seeds``, where the file has them.

    Raises:
        ValueError: If the measurement is unfinished.
    """
    if "done" in dataset and (done := int((dataset["done"] == 1).sum())) < dataset["done"].size:
        raise ValueError(f"unfinished, {done} of {dataset['done'].size} points are measured")
    scalars: Scalars = {}
    for name, variable in dataset.data_vars.items():
        if name in _NO_SCALARS or variable.dims not in ((), ("direction_seed",)):
            continue
        values = np.atleast_1d(variable.to_numpy()).astype(np.float64)
        scalars[str(name)] = float(values.mean()) if values.size else math.nan
        if variable.dims:
            with np.errstate(invalid="ignore"):
                scalars[f"{name}.sd"] = float(values.std(ddof=1)) if values.size > 1 else math.nan
    for name, source in (
        ("largest_eigenvalue", "eigenvalue"),
        ("smallest_eigenvalue", "smallest_eigenvalue"),
    ):
        if source in dataset and dataset[source].ndim == 1:
            scalars[name] = float(dataset[source][0]) if dataset[source].size else math.nan
    if "direction_seed" in dataset.sizes:
        scalars["direction_seeds"] = dataset.sizes["direction_seed"]
    return scalars | {name: dataset.attrs[name] for name in ("samples", "split") if name in dataset.attrs}


def in_one_line(error: OSError | ValueError) -> str:
    """What went wrong, with the file's name, without numbers of system errors."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
