"""Scalars of the measurements that a run ended with: loss contour, gradient variance, Hessian spectrum."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from nas_lightning.netcdf import read_dataset
from nas_lightning.study.study import AnalysisFile, Run

SURFACES = ("loss_contour", "gradient_variance", "hessian_spectrum")
"""Stems of the files of measurements."""

Scalars: TypeAlias = dict[str, float | int | str]

# What a file says of its points and directions, not of the loss.
_NO_SCALARS = frozenset({"done", "cosine"})

_COMMON = {"split": "test", "sample_seed": 0, "max_samples": None}
_SURFACE = _COMMON | {"extent": 1.0, "direction_seeds": [0], "normalization": "filter", "orthogonal": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    "LossContour": _SURFACE | {"resolution": 51, "batch_norm": "frozen"},
    "GradientVariance": _SURFACE | {"resolution": 21, "method": "exact"},
    "HessianSpectrum": _COMMON
    | {"k": 5, "smallest": 1, "trace_samples": 10, "tolerance": 1e-3, "max_products": 300, "seed": 0},
}
"""Settings of the callbacks that decide what is measured, where a plan does not give them."""


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
    analyses = {analysis.stem: analysis for analysis in run.analyses}
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
            if stem in analyses and (difference := measured_otherwise(run, analyses[stem], dataset)):
                raise ValueError(difference)
            surfaces[stem] = {"file": str(path), **surface_scalars(dataset)}
        except (OSError, ValueError) as error:
            reason = in_one_line(error)
            problems.append(reason if str(path) in reason else f"{path}: {reason}")
    return surfaces, tuple(problems)


def measured_otherwise(run: Run, analysis: AnalysisFile, dataset: xr.Dataset) -> str | None:
    """In what a measurement's file is not what a study asks for.

    Settings that do not decide the numbers (batch size, file name, pictures) are not compared, nor is what
    the file does not say.

    Args:
        run: The run.
        analysis: What the study asks for; of a callback that is named, its defaults count where it is silent.
        dataset: The file's content.

    Returns:
        One line with the file and the first difference; None if there is none.
    """
    given = dict(analysis.settings.get("init_args") or {})
    planned = DEFAULTS.get(str(analysis.settings.get("class_path")).rpartition(".")[2], {}) | given
    for name, wanted, found in _compared(run, planned, dataset):
        if found != wanted:
            path = analysis.path(run.folder, run.epochs)
            return (
                f"{path} was measured with {name} {_shown(found)}, the plan says {_shown(wanted)};"
                " move it away to measure again"
            )
    return None


def _compared(run: Run, planned: dict[str, Any], dataset: xr.Dataset) -> Iterator[tuple[str, object, object]]:
    """Names of settings, what the plan says of them, and what the file does."""
    for name in DEFAULTS["HessianSpectrum"] | DEFAULTS["LossContour"] | DEFAULTS["GradientVariance"]:
        if name in planned and name in dataset.attrs:
            found = dataset.attrs[name]
            yield name, _like(planned[name], found), found
    if "max_samples" in planned and "samples" in dataset.attrs:
        samples = planned["max_samples"]
        if samples is None:
            samples = _split_size(run, planned.get("split", dataset.attrs.get("split")))
        if samples is not None:
            yield "samples", _like(samples, 0), dataset.attrs["samples"]
    if "direction_seeds" in planned and "direction_seed" in dataset.variables:
        seeds = dataset["direction_seed"].values.tolist()
        yield "direction_seeds", list(planned["direction_seeds"]), seeds
    if "resolution" in planned and "alpha" in dataset.sizes:
        yield "resolution", _like(planned["resolution"], 0), dataset.sizes["alpha"]
    if "extent" in planned and "alpha" in dataset.coords and dataset.sizes["alpha"]:
        steps = dataset["alpha"].values
        extent = planned["extent"]
        ends = extent if isinstance(extent, list | tuple) else (f"-{extent}", extent)
        yield "extent", [_like(end, 0.0) for end in ends], [float(steps[0]), float(steps[-1])]


def _like(value: object, found: object) -> object:
    """A planned value in the form that files have it in; YAML has numbers such as 1e-3 as text."""
    if isinstance(found, str):
        return str(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _split_size(run: Run, split: object) -> int | None:
    """Number of images of a split, as the run's result says."""
    try:
        result = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
        return int(result["provenance"]["data"]["split_sizes"][split])
    except (OSError, ValueError, LookupError, TypeError):
        return None


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
