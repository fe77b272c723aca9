"""Where a loss surface is convex: the ends of the Hessian's spectrum at every point of a plane of weights.

Li et al., *Visualizing the loss landscape of neural nets* (NeurIPS 2018), section 6: a plane shows two
directions, in which a surface may look convex although it is not. At each point of the plane they map
|lambda_min / lambda_max| of the full Hessian: where it is near 0, negative curvature is small beside the
positive one. (Their code sums products over batches, so that its eigenvalues grow with the number of batches;
here they are those of the mean loss.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import nn

from nas_lightning.analysis.curvature_products import HessianProduct
from nas_lightning.analysis.directions import Directions, cosine
from nas_lightning.analysis.displacement import at_points
from nas_lightning.analysis.evaluation import Batches, Forward, Loss, evaluating, loss_name
from nas_lightning.analysis.extreme_eigenvalues import NOT_FINITE, check_run, extreme_eigenvalues
from nas_lightning.analysis.filters import filter_scale
from nas_lightning.analysis.loss import loss_variables
from nas_lightning.analysis.surface import Point, measured_plane
from nas_lightning.analysis.surface_scalars import Axis, Field, center_value, each_seed, point_areas
from nas_lightning.provenance import weights_hash

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

RATIO_BOUND = 0.1
"""Ratio up to which a point counts as nearly convex, unless another is given."""


def curvature_variables(normalized: bool, loss: Loss | None = None) -> Mapping[str, Mapping[str, str]]:
    """What a curvature map measures at every point; curvatures of D H D are in the unit of the loss."""
    described = loss_variables(loss)["loss"]
    unit = described["units"]
    curvature = {"units": unit if normalized else f"{unit} per squared weight"}
    scaled = ", scaled by the filters' root mean squares at w*" if normalized else ""
    return {
        "eigenvalue_ratio": {"long_name": "|smallest / largest eigenvalue| of the Hessian", "units": "1"},
        "largest_eigenvalue": {"long_name": f"largest eigenvalue of the Hessian{scaled}", **curvature},
        "smallest_eigenvalue": {"long_name": f"smallest eigenvalue of the Hessian{scaled}", **curvature},
        "residual": {"long_name": "larger residual of the two", **curvature},
        "converged": {"long_name": "1 if the residual is within the tolerance", "units": "1"},
        "products": {"long_name": "products with the Hessian", "units": "1"},
        "loss": dict(described),
    }


def curvature_map(
    module: nn.Module,
    batches: Batches,
    directions: Directions,
    alphas: Float[np.ndarray, " alpha"] | Iterable[float | int],
    betas: Float[np.ndarray, " beta"] | Iterable[float | int],
    *,
    normalized: bool = True,
    tolerance: float | int = 1e-4,
    max_products: int = 100,
    seed: int = 0,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute both ends of the Hessian's spectrum at w* + alpha w1 + beta w2, and their ratio.

    H is the Hessian of the mean loss (1/n) sum_i f_i over all samples, in evaluation mode, at the displaced
    weights; batch norm keeps the running statistics of w*. A point costs some 15 to 40 products with H, each
    about three to four gradients over the batches.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*, and are so bit for bit
            afterwards.
        batches: (inputs, targets), on the module's device, iterated once a product.
        directions: w1 and w2, of :func:`~nas_lightning.analysis.directions.random_directions`.
        alphas: Steps along w1, increasing.
        betas: Steps along w2.
        normalized: Whether the spectrum is that of D H D, D the filters' root mean squares at w*
            (:func:`~nas_lightning.analysis.filters.filter_scale`), the same at every point. It does not see
            the scale of weights before a batch norm.
        tolerance: Residual, relative to the largest absolute eigenvalue, at which a point is done.
        max_products: Limit on the products at a point.
        seed: Of the start vector, the same at every point.
        forward: Computes the module, differentiably in its parameters, twice; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        The variables of :func:`curvature_variables` over (alpha, beta). Where the loss or a product is not
        finite, the eigenvalues are NaN. Attributes: ``kind``, ``weights_sha256``, ``samples``, ``cosine``.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> import torch
        >>> from nas_lightning.analysis.directions import random_directions
        >>> module = nn.Linear(2, 3)
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))]
        >>> found = curvature_map(module, batches, random_directions(module, 0), [-1, 0, 1], [-1, 0, 1])
        >>> bool((found.largest_eigenvalue > 0).all()), bool((found.eigenvalue_ratio < 1e-3).all())
        (True, True)
    """
    attributes: dict[str, str | int | float] = {
        "kind": "curvature_map",
        "weights_sha256": weights_hash(module.state_dict()),
        "samples": sum(len(targets) for _, targets in batches),
        "cosine": cosine(*directions),
        **({} if loss is None else {"loss": loss_name(loss)}),
    }
    variables = curvature_variables(normalized, loss)
    with curvature_at_points(
        *(module, batches, {0: directions}, normalized, tolerance, max_products, seed),
        forward=forward,
        loss=loss,
    ) as measure:
        return measured_plane(measure, variables, alphas, betas, attributes)


@contextmanager
def curvature_at_points(
    module: nn.Module,
    batches: Batches,
    directions_by_seed: Mapping[int, Directions],
    normalized: bool = True,
    tolerance: float | int = 1e-4,
    max_products: int = 100,
    seed: int = 0,
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Measure the curvature at the points of a surface; the arguments are those of :func:`curvature_map`.

    Yields the function of a point that gives the values of :func:`curvature_variables`. When the block ends,
    also by an exception, parameters are as before, bit for bit.
    """
    check_run(tolerance, max_products)
    product = HessianProduct(module, batches, loss=loss, forward=forward)
    scale = filter_scale(module) if normalized else None
    with evaluating(module), at_points(module, directions_by_seed) as move_to:

        def measure(point: Point) -> dict[str, float]:
            move_to(point)
            value = product.partial_loss()
            found = NOT_FINITE
            if math.isfinite(value):
                found = extreme_eigenvalues(
                    product.partial,
                    product.size,
                    tolerance=tolerance,
                    max_products=max_products,
                    seed=seed,
                    scale=scale,
                )
            return {"eigenvalue_ratio": found.ratio, **found.variables(), "loss": value}

        yield measure


def curvature_scalars(dataset: xr.Dataset, ratio_bound: float | int = RATIO_BOUND) -> xr.Dataset:
    """Compute the numbers of a finished curvature map by which architectures are compared.

    - ``nearly_convex_share``: share of the square's area where |lambda_min / lambda_max| is at most
      `ratio_bound`; a point without a finite ratio is outside.
    - ``mean_ratio``: mean of the ratio over the area; not finite where the ratio of a point is not.
    - ``largest_eigenvalue_center``, ``smallest_eigenvalue_center``, ``eigenvalue_ratio_center``: at w*.
    - ``converged_share``: share of the points whose residual is within the tolerance.

    Areas are those of :mod:`nas_lightning.analysis.surface_scalars`.

    Args:
        dataset: A finished curvature map around (0, 0).
        ratio_bound: As above.

    Returns:
        The scalars over ``direction_seed``, where `dataset` has it.

    Raises:
        ValueError: If the dataset is no finished curvature map around (0, 0), or `ratio_bound` is not above
            0.
    """
    if not 0 < ratio_bound < math.inf:
        raise ValueError(f"`ratio_bound` (={ratio_bound}) must be above 0 and finite")

    def of_ratio(ratio: Field, alphas: Axis, betas: Axis) -> dict[str, float]:
        areas = point_areas(alphas, betas)
        return {
            "nearly_convex_share": float(areas[ratio <= ratio_bound].sum() / areas.sum()),
            "mean_ratio": float(np.average(ratio, weights=areas)),
            "eigenvalue_ratio_center": center_value(ratio, alphas, betas),
        }

    scalars = each_seed(dataset, "eigenvalue_ratio", of_ratio)
    for name in ("largest_eigenvalue", "smallest_eigenvalue"):
        scalars = scalars.merge(
            each_seed(dataset, name, lambda *field, name=name: {f"{name}_center": center_value(*field)})
        )
        scalars[f"{name}_center"].attrs = {
            "long_name": f"{name.replace('_', ' ')} of the Hessian at w*",
            "units": dataset[name].attrs.get("units", ""),
        }
    scalars = scalars.merge(
        each_seed(dataset, "converged", lambda field, *_: {"converged_share": float(field.mean())})
    )
    described = {
        "nearly_convex_share": f"share of the square with a ratio of at most {ratio_bound:g}",
        "mean_ratio": "mean ratio of the smallest to the largest eigenvalue",
        "eigenvalue_ratio_center": "ratio of the smallest to the largest eigenvalue at w*",
        "converged_share": "share of the points that converged",
    }
    for name, long_name in described.items():
        scalars[name].attrs = {"long_name": long_name, "units": "1"}
    return scalars
