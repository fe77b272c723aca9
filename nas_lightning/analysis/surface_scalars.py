"""Numbers by which the surfaces of many architectures are compared.

All work on the dataset of a surface, dimensions ``alpha`` and ``beta`` and possibly ``direction_seed``;
several direction seeds give one value each, and :func:`spread` their mean and standard deviation. Distances
are in units of alpha: one is the length of a direction, which filter normalisation makes comparable between
networks (Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4).

Areas: a grid point stands for the part of the square that is closer to it, along each axis, than to its
neighbours; points on the border stand for half as much. The centre is w*, (alpha, beta) = (0, 0). On a grid
without it (even resolution) values there are interpolated linearly between the nearest points. Steps may be
uneven.

NaN and infinity are kept: no point with such a loss is near the optimum or convex, and a mean that holds one
is not finite itself. They count only where their weight is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

Axis = Float64[np.ndarray, " _"]
"""Steps along one direction, increasing from below 0 to above 0."""
Field = Float64[np.ndarray, "alpha beta"]
"""One value per point."""

RINGS = (0.25, 0.5, 0.75, 1.0)
"""Outer radii of the rings of :func:`variance_scalars`, in units of the distance from centre to border."""

# A multiple of four, so that the rays map onto one another when the axes are swapped or mirrored.
_RAYS = 720
_STEPS_PER_CELL = 16
# Rounding of losses that were computed in float32, relative to their size.
_LOSS_ROUNDING = 2.0**-24

_CURVATURE = "nat alpha-2"
_LOSS_ATTRIBUTES = {
    "near_convex_share": ("share of the square in the near-convex region", "1"),
    "near_convex_radius": ("radius of the largest disc in the near-convex region", "alpha"),
    "convexity_ratio": ("share of the near-convex region where the loss is convex", "1"),
    "convexity_ratio_square": ("share of the square where the loss is convex", "1"),
    "curvature_center": ("mean curvature along the axes at the centre", _CURVATURE),
    "curvature_center_max": ("larger curvature along an axis at the centre", _CURVATURE),
    "curvature_mean": ("mean absolute curvature along the axes", _CURVATURE),
    "curvature_max": ("maximum absolute curvature along the axes", _CURVATURE),
}


def loss_scalars(dataset: xr.Dataset, loss_rise: float | int = 1.0) -> xr.Dataset:
    """Compute width, convexity and curvature of a loss surface s(alpha, beta).

    near_convex_share: area of the near-convex region over the area of the square. The region is the set of
        grid points with s <= s(0, 0) + loss_rise that are connected with the centre along the grid (four
        neighbours).
    near_convex_radius: min over rays from the centre of the first r with s(r cos t, r sin t) > s(0, 0) +
        loss_rise, s interpolated bilinearly, the crossing linearly; at most the distance R from centre to
        border, so that a value of R means "at least R".
    convexity_ratio: area of the interior grid points of the region at which the matrix of second differences
        [[s_aa, s_ab], [s_ab, s_bb]] is positive semi-definite, over the area of all of its interior points;
        ``convexity_ratio_square`` takes all interior points of the square. Li et al. (section 6) map
        |lambda_min / lambda_max| of the full Hessian; the ratio here is of the plane shown, at the grid's
        step, and 1 for every convex s. Eigenvalues are taken as zero where float32 rounding of s explains
        them.
    curvature_center, curvature_center_max: mean and maximum over both axes of the second difference at the
        centre; the mean is half the trace of the plane's 2x2 Hessian, and does not change when the
        directions are rotated.
    curvature_mean, curvature_max: mean and maximum of |second difference| over the inner points of both axes
        through the centre. (The signed mean is the difference of the slopes at the ends, whatever lies
        between.) The maximum is a lower bound of the Lipschitz constant of the gradient along the axes, L of
        the paper's theorem 4.1.

    The second difference at x_i is 2 ((s_{i+1} - s_i) / h_{i+1} - (s_i - s_{i-1}) / h_i) / (h_i + h_{i+1}),
    which is (s_{i+1} - 2 s_i + s_{i-1}) / h^2 on an even grid; the mixed one is central. All depend on the
    step: compare surfaces of the same grid.

    Args:
        dataset: A finished surface with the variable ``loss`` in nat.
        loss_rise: Rise over the loss at the centre that bounds the region, in nat. The default of 1 means
            that the geometric mean probability of the true class falls by the factor e; it is two level
            lines of the paper's figure 6, and well below the rise to chance level (2.3 - s(0, 0) with ten
            classes).

    Returns:
        The scalars over ``direction_seed`` (where ``dataset`` has it), each with ``long_name`` and
        ``units``, and the attributes of ``dataset``. Without a finite loss at the centre, region, radius and
        ratio are NaN; ratios of no interior point at all are NaN.

    Raises:
        ValueError: If the dataset is no finished loss surface around (0, 0), or ``loss_rise`` is not above 0.
    """
    if not (math.isfinite(loss_rise) and loss_rise > 0):
        raise ValueError(f"`loss_rise` (={loss_rise}) must be a number of nats above 0")

    def measure(loss: Field, alphas: Axis, betas: Axis) -> dict[str, float]:
        return _region_scalars(loss, alphas, betas, float(loss_rise)) | _axis_curvatures(loss, alphas, betas)

    scalars = each_seed(dataset, "loss", measure)
    for name, (long_name, units) in _LOSS_ATTRIBUTES.items():
        scalars[name].attrs |= {"long_name": long_name, "units": units}
    scalars.attrs["loss_rise"] = float(loss_rise)
    return scalars


def variance_scalars(dataset: xr.Dataset) -> xr.Dataset:
    """Compute the gradient variance at the centre and around it.

    Ring k holds the grid points with rho_{k-1} R < sqrt(alpha^2 + beta^2) <= rho_k R, rho = 0 and
    :data:`RINGS`, R the distance from the centre to the border. The norm is Euclid's: two random directions
    of the same length are nearly orthogonal in so many dimensions, so that a ring holds networks at nearly
    the same distance from w*. The centre is in no ring, nor are the corners beyond R. A ring's value is the
    mean over its points, weighted by their area.

    Args:
        dataset: A finished surface with the variable ``variance``, the trace of the covariance of the
            gradient.

    Returns:
        ``variance_center`` and, over ``ring`` (rho_k), ``variance_ring``; ``standard_deviation_center`` and
        ``standard_deviation_ring`` likewise of the square root, which the paper's figures 7 and 8 show; all
        over ``direction_seed`` where ``dataset`` has it. Rings with NaN or infinity are not finite, rings
        without a grid point are NaN. The centre is that of the surface, by the surface's
        method.

    Raises:
        ValueError: If the dataset is no finished surface of the gradient variance around (0, 0).
    """
    scalars = each_seed(dataset, "variance", _ring_means)
    for quantity in ("variance", "standard_deviation"):
        name = f"gradient {quantity.replace('_', ' ')}"
        units = dataset["variance"].attrs.get("units", "nat2") if quantity == "variance" else "nat"
        scalars[f"{quantity}_center"].attrs |= {"long_name": f"{name} at the centre", "units": units}
        scalars[f"{quantity}_ring"].attrs |= {"long_name": f"mean {name} in the ring", "units": units}
    scalars["ring"].attrs |= {"long_name": "outer radius of the ring", "units": "extent"}
    return scalars


def spread(scalars: xr.Dataset) -> xr.Dataset:
    """Compute mean and standard deviation of scalars over direction seeds.

    Args:
        scalars: What :func:`loss_scalars` or :func:`variance_scalars` returned.

    Returns:
        The same variables over ``statistic`` ("mean", "standard_deviation") in place of ``direction_seed``.
        The standard deviation is that of a sample (divided by the number of seeds less one), NaN for one
        seed: it says how far another random plane may differ; that of the mean is smaller by the square root
        of the number of seeds, attribute ``direction_seeds``. NaN or infinity of one seed makes both
        not finite.
    """
    import xarray as xr

    if "direction_seed" not in scalars.dims:
        scalars = scalars.drop_vars("direction_seed", errors="ignore").expand_dims("direction_seed")
    count = scalars.sizes["direction_seed"]
    mean = scalars.mean("direction_seed", skipna=False, keep_attrs=True)
    deviation = xr.full_like(mean, math.nan)
    if count > 1:
        seeded = scalars[[name for name in scalars.data_vars if "direction_seed" in scalars[name].dims]]
        with np.errstate(invalid="ignore"):
            deviation.update(seeded.std("direction_seed", ddof=1, skipna=False, keep_attrs=True))
    statistics = xr.concat([mean, deviation], dim="statistic", combine_attrs="override")
    statistics = statistics.assign_coords(statistic=["mean", "standard_deviation"])
    statistics.attrs["direction_seeds"] = count
    return statistics


def each_seed(
    dataset: xr.Dataset,
    variable: str,
    measure: Callable[[Field, Axis, Axis], Mapping[str, float | np.ndarray]],
) -> xr.Dataset:
    """Scalars of the surface of every direction seed; arrays are over ``ring``."""
    import xarray as xr

    alphas, betas = _checked_axes(dataset, variable)
    values = dataset[variable].transpose(..., "alpha", "beta").to_numpy().astype(np.float64)
    has_seeds = "direction_seed" in dataset[variable].dims
    # Infinite losses are values like others.
    with np.errstate(invalid="ignore", over="ignore"):
        measured = [measure(surface, alphas, betas) for surface in (values if has_seeds else values[None])]
    variables = {}
    for name in measured[0]:
        column = np.array([scalars[name] for scalars in measured])
        dims = ("direction_seed", "ring")[: column.ndim]
        variables[name] = (dims, column) if has_seeds else (dims[1:], column[0])
    coordinates: dict[str, object] = {"ring": list(RINGS)} if variable == "variance" else {}
    if has_seeds:
        coordinates["direction_seed"] = dataset["direction_seed"]
    return xr.Dataset(variables, coordinates, attrs=dict(dataset.attrs))


def _checked_axes(dataset: xr.Dataset, variable: str) -> tuple[Axis, Axis]:
    """Both axes, float64, of a finished surface."""
    if variable not in dataset:
        names = ", ".join(sorted(map(str, dataset.data_vars)))
        raise ValueError(f"the dataset has no variable `{variable}`, it has {names}")
    dims = set(dataset[variable].dims)
    if not {"alpha", "beta"} <= dims <= {"alpha", "beta", "direction_seed"}:
        raise ValueError(
            f"`{variable}` has the dimensions {tuple(dataset[variable].dims)}: alpha, beta and at most "
            "direction_seed are needed"
        )
    if "done" in dataset and (finished := int((dataset["done"] == 1).sum())) < dataset["done"].size:
        raise ValueError(f"the surface is unfinished: {finished} of {dataset['done'].size} points are done")
    axes = []
    for name in ("alpha", "beta"):
        axis = dataset[name].to_numpy().astype(np.float64)
        if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all() and axis[0] < 0 < axis[-1]):
            raise ValueError(
                f"`{name}` (from {axis[0]:g} to {axis[-1]:g}) must increase from below 0 to above 0"
            )
        axes.append(axis)
    return axes[0], axes[1]


def _region_scalars(loss: Field, alphas: Axis, betas: Axis, loss_rise: float) -> dict[str, float]:
    """Share, radius and convexity ratios."""
    from scipy import ndimage  # only when a surface is measured: no training waits for it

    areas, convex = point_areas(alphas, betas), _convex_points(loss, alphas, betas)
    inner = np.zeros(loss.shape, dtype=bool)
    inner[1:-1, 1:-1] = True
    scalars = dict.fromkeys(("near_convex_share", "near_convex_radius", "convexity_ratio"), math.nan)
    level = center_value(loss, alphas, betas) + loss_rise
    if math.isfinite(level):
        labels, _ = ndimage.label(loss <= level)  # neither NaN nor infinity is
        around = np.outer(_center_weights(alphas), _center_weights(betas)) > 0
        region = np.isin(labels, labels[around & (labels > 0)])
        scalars["near_convex_share"] = float(areas[region].sum() / areas.sum())
        scalars["near_convex_radius"] = _radius(loss, alphas, betas, level)
        scalars["convexity_ratio"] = _ratio(areas, convex & region, inner & region)
    return scalars | {"convexity_ratio_square": _ratio(areas, convex, inner)}


def _ratio(areas: Field, part: np.ndarray, whole: np.ndarray) -> float:
    return float(areas[part].sum() / areas[whole].sum()) if whole.any() else math.nan


def _radius(loss: Field, alphas: Axis, betas: Axis, level: float) -> float:
    """Distance to the nearest first crossing of the level along rays from the centre."""
    limit = _border_distance(alphas, betas)
    spacing = min(np.diff(alphas).min(), np.diff(betas).min())
    radii = np.linspace(0, limit, 1 + math.ceil(_STEPS_PER_CELL * limit / spacing))
    angles = (np.arange(_RAYS) + 0.5) * (2 * math.pi / _RAYS)
    values = _interpolate(
        loss, alphas, betas, np.outer(np.cos(angles), radii), np.outer(np.sin(angles), radii)
    )
    beyond = ~(values <= level)
    beyond[:, 0] = False
    crossed = np.flatnonzero(beyond.any(axis=1))
    if not crossed.size:
        return limit
    first = beyond[crossed].argmax(axis=1)
    before, after = values[crossed, first - 1], values[crossed, first]
    fraction = np.where(np.isfinite(after), (level - before) / (after - before), 0.0)
    return float((radii[first - 1] + fraction * radii[1]).min())


def _axis_curvatures(loss: Field, alphas: Axis, betas: Axis) -> dict[str, float]:
    """Second differences at the centre and along both axes."""
    at_center, along = [], []
    for surface, axis, across in ((loss, alphas, betas), (loss.T, betas, alphas)):
        curvature = _second_difference(_weighted_sum(_center_weights(across), surface.T), axis)
        weights = _center_weights(axis)
        at_border = weights[0] != 0 or weights[-1] != 0
        at_center.append(math.nan if at_border else float(_weighted_sum(weights[1:-1], curvature)))
        along.append(np.abs(curvature))
    every = np.concatenate(along)
    return {
        "curvature_center": float(np.mean(at_center)),
        "curvature_center_max": float(np.max(at_center)),
        "curvature_mean": float(every.mean()) if every.size else math.nan,
        "curvature_max": float(every.max()) if every.size else math.nan,
    }


def _ring_means(variance: Field, alphas: Axis, betas: Axis) -> dict[str, float | np.ndarray]:
    """Values at the centre and means over the rings, of the variance and of its root."""
    areas = point_areas(alphas, betas)
    # Rounding must not put a point on a ring's outer circle into the next one.
    distances = np.hypot(alphas[:, None], betas) / _border_distance(alphas, betas) - 1e-9
    scalars: dict[str, float | np.ndarray] = {}
    for name, field in (("variance", variance), ("standard_deviation", np.sqrt(variance))):
        means = []
        for inner, outer in zip((0.0, *RINGS[:-1]), RINGS, strict=True):
            ring = (distances > inner) & (distances <= outer)
            means.append(np.average(field[ring], weights=areas[ring]) if ring.any() else math.nan)
        scalars |= {f"{name}_center": center_value(field, alphas, betas), f"{name}_ring": np.array(means)}
    return scalars


def point_areas(alphas: Axis, betas: Axis) -> Field:
    """Area that each point stands for: up to half-way to its neighbours, and to the border of the square."""
    return np.outer(*(np.convolve(np.diff(axis), [0.5, 0.5]) for axis in (alphas, betas)))


def _border_distance(alphas: Axis, betas: Axis) -> float:
    """Distance from (0, 0) to the nearest side of the square."""
    return float(min(-alphas[0], alphas[-1], -betas[0], betas[-1]))


def _center_weights(axis: Axis) -> Axis:
    """Weights of linear interpolation at 0: one point's, or those of the two points around it."""
    weights = np.zeros_like(axis)
    nearest = int(np.abs(axis).argmin())
    # A zero that linspace has rounded is a zero.
    if abs(axis[nearest]) <= 1e-9 * (axis[-1] - axis[0]):
        weights[nearest] = 1
        return weights
    above = int(np.searchsorted(axis, 0.0))
    weights[above] = -axis[above - 1] / (axis[above] - axis[above - 1])
    weights[above - 1] = 1 - weights[above]
    return weights


def _weighted_sum(weights: Axis, values: Float64[np.ndarray, "points *rest"]) -> Float64[np.ndarray, "*rest"]:
    """Sum over the first axis, of the terms whose weight is not zero."""
    used = weights != 0
    return np.tensordot(weights[used], values[used], axes=1)


def center_value(field: Field, alphas: Axis, betas: Axis) -> float:
    """The field at (0, 0), interpolated bilinearly where that is no point of the grid."""
    return float(_weighted_sum(_center_weights(alphas), _weighted_sum(_center_weights(betas), field.T)))


def _interpolate(
    field: Field,
    alphas: Axis,
    betas: Axis,
    alpha: Float64[np.ndarray, "*shape"],
    beta: Float64[np.ndarray, "*shape"],
) -> Float64[np.ndarray, "*shape"]:
    """Bilinear interpolation at positions inside the square."""
    row = np.clip(np.searchsorted(alphas, alpha, side="right") - 1, 0, len(alphas) - 2)
    column = np.clip(np.searchsorted(betas, beta, side="right") - 1, 0, len(betas) - 2)
    along = (alpha - alphas[row]) / (alphas[row + 1] - alphas[row])
    across = (beta - betas[column]) / (betas[column + 1] - betas[column])
    result = np.zeros_like(alpha)
    for i, j in np.ndindex(2, 2):
        weight = (along if i else 1 - along) * (across if j else 1 - across)
        result += np.where(weight == 0, 0.0, weight * field[row + i, column + j])
    return result


def _second_difference(
    values: Float64[np.ndarray, "points *rest"], axis: Axis
) -> Float64[np.ndarray, "inner *rest"]:
    """Second derivative along the first axis at its inner points, see :func:`loss_scalars`."""
    column = (-1, *(1,) * (values.ndim - 1))
    slopes = np.diff(values, axis=0) / np.diff(axis).reshape(column)
    curvature: np.ndarray = 2 * np.diff(slopes, axis=0) / (axis[2:] - axis[:-2]).reshape(column)
    return curvature


def _convex_points(field: Field, alphas: Axis, betas: Axis) -> Bool[np.ndarray, "alpha beta"]:
    """Inner points whose matrix of second differences is positive semi-definite; border points are not.

    A negative eigenvalue counts as zero if rounding of the field to float32 explains it. A point with NaN or
    infinity among its nine is not convex.
    """
    from scipy import ndimage  # only when a surface is measured: no training waits for it

    convex = np.zeros(field.shape, dtype=bool)
    if min(field.shape) < 3:
        return convex
    along = _second_difference(field, alphas)[:, 1:-1]
    across = _second_difference(field.T, betas).T[1:-1]
    wide_alpha, wide_beta = alphas[2:] - alphas[:-2], betas[2:] - betas[:-2]
    mixed = field[2:, 2:] - field[2:, :-2] - field[:-2, 2:] + field[:-2, :-2]
    mixed /= np.outer(wide_alpha, wide_beta)
    smallest = (along + across) / 2 - np.hypot((along - across) / 2, mixed)
    size = ndimage.maximum_filter(np.abs(field), 3)[1:-1, 1:-1]
    rounding = 16 * _LOSS_ROUNDING * size * (wide_alpha[:, None] ** -2 + wide_beta**-2)
    convex[1:-1, 1:-1] = np.isfinite(smallest) & (smallest >= -rounding)
    return convex
