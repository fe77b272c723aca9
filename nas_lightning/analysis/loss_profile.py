"""The loss along random directions as a function of the distance from w*: a curve, no plane.

With d a random direction that is normalised filter by filter, the profile is E_i[f_i(w* + r d)] over radii
r >= 0. A radius of 1 moves every filter by its own norm. The scale of weights before a batch norm does not
change the profile: the direction has the scale of the weights. Source: Li et al., *Visualizing the loss
landscape of neural nets* (NeurIPS 2018), section 4, for the directions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import nn

from nas_lightning.analysis.curve_surface import CurveSurface
from nas_lightning.analysis.directions import Directions, Normalization, random_direction
from nas_lightning.analysis.evaluation import (
    Batches,
    Forward,
    Loss,
    evaluating,
    first_batch,
    has_classes,
    logits_of,
    loss_name,
)
from nas_lightning.analysis.grid import check_axis, check_seeds
from nas_lightning.analysis.loss import BatchNorm, loss_at_points, loss_variables
from nas_lightning.analysis.surface import measure_pending
from nas_lightning.provenance import weights_hash

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

DIRECTION_SEEDS = (0, 1, 2, 3, 4)
"""Directions of a profile unless others are named."""
RISE = 1.0
"""Rise of the loss, in nat, whose radius is a statistic."""


class ProfileSurface(CurveSurface):
    """A loss profile: a row is a direction, its position the radius."""

    title = "a loss profile"
    dimensions = ("direction_seed", "radius")
    descriptions: ClassVar = {
        "radius": {"long_name": "distance from w*, in norms of the filters", "units": "1"}
    }
    needed = ("loss", "accuracy")


def read_profile(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the file of a loss profile into memory; see :meth:`CurveSurface.read`."""
    return ProfileSurface.read(path)


def profile_directions(
    module: nn.Module,
    seed: int,
    normalization: Normalization = "filter",
    names: Iterable[str] | None = None,
) -> Directions:
    """The direction of a seed, :func:`random_direction`, and no second one."""
    direction = random_direction(module, seed, normalization, None if names is None else list(names))
    nothing = {name: torch.zeros_like(value) for name, value in direction.items()}
    return direction, nothing


def loss_profile(
    module: nn.Module,
    batches: Batches,
    radii: Float[np.ndarray, " radius"] | Iterable[float | int],
    direction_seeds: Iterable[int] = DIRECTION_SEEDS,
    batch_norm: BatchNorm = "frozen",
    *,
    normalization: Normalization = "filter",
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute the mean loss and the accuracy at w* + r d for random directions d and radii r.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*, and are so bit for bit
            afterwards.
        batches: (inputs, targets), on the module's device, iterated once a point.
        radii: Increasing, from 0.
        direction_seeds: One direction each.
        batch_norm: See :func:`~nas_lightning.analysis.loss.loss_at_points`.
        normalization: Of the directions, see :func:`~nas_lightning.analysis.directions.random_direction`.
        forward: Computes the module's logits at every point in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``loss`` (nat) and ``accuracy`` (fraction) over (direction_seed, radius), and the scalars of
        :func:`profile_scalars`. NaN and infinity are kept.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> module = nn.Linear(2, 3)
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))]
        >>> profile = loss_profile(module, batches, [0, 0.5, 1], direction_seeds=[0, 1])
        >>> dict(profile.loss.sizes)
        {'direction_seed': 2, 'radius': 3}
    """
    seeds = check_seeds("direction_seeds", direction_seeds)
    attributes: dict[str, str | int | float] = {
        "weights_sha256": weights_hash(module.state_dict()),
        "samples": sum(len(targets) for _, targets in batches),
        "batch_norm": batch_norm,
        "normalization": normalization,
        "num_classes": count_classes(module, batches, loss),
        **({} if loss is None else {"loss": loss_name(loss)}),
    }
    surface = new_profile(radii, seeds, attributes, loss)
    directions = {seed: profile_directions(module, seed, normalization) for seed in seeds}
    with loss_at_points(module, batches, directions, batch_norm, forward=forward, loss=loss) as measure:
        measure_pending(surface, measure)
    profile = surface.curves.drop_vars("done")
    return profile.merge(profile_scalars(profile))


def new_profile(
    radii: Float[np.ndarray, " radius"] | Iterable[float | int],
    direction_seeds: Iterable[int],
    attributes: Mapping[str, str | int | float],
    loss: Loss | None = None,
) -> ProfileSurface:
    """A profile of which no point is measured; a ValueError if an argument is refused."""
    steps = check_axis("radii", radii)
    if steps[0] != 0 or len(steps) < 2:
        raise ValueError(f"`radii` (={steps.tolist()}) must be two or more, from 0")
    return ProfileSurface.create(
        "loss_profile", loss_variables(loss), steps, [0.0], direction_seeds, attributes
    )


def count_classes(module: nn.Module, batches: Batches, loss: Loss | None = None) -> int:
    """Number K of classes, which is that of a sample's logits; 0 with an own loss of other outputs."""
    inputs, targets = first_batch(batches)
    with evaluating(module), torch.no_grad():
        if loss is None:
            return int(logits_of(module, inputs[:1]).shape[1])
        outputs = module(inputs[:1])
        return int(outputs.shape[1]) if has_classes(outputs, targets[:1]) else 0


def profile_scalars(profile: xr.Dataset) -> xr.Dataset:
    """Compute the numbers of every direction by which architectures are compared.

    - ``mean_rise``: (1/R) times the integral from 0 to R of min(s(r) - s(0), ln K) dr, s the loss, R the
      largest radius, K the number of classes, by the trapezoid rule over the radii. ln K is the loss of a
      network that does not know anything: the cap keeps one exploding point from deciding the mean, and is
      the same for every network, whatever its s(0). A loss at r > 0 that is NaN or infinite counts as ln K
      above s(0). The number grows with every s(r), is at most ln K, and negative where the loss falls. A loss
      without classes has no cap (``num_classes`` is 0): one value that is not finite makes it infinite.
    - ``one_nat_radius``: smallest radius at which the loss is 1 nat above s(0), between radii by linear
      interpolation; before a loss that is not finite the last radius with a finite one. R where the loss
      never rises so far.

    Both do not depend on the scale of weights before a batch norm, where the directions have their scale.

    Args:
        profile: ``loss`` over (direction_seed, radius) with the attribute ``num_classes``.

    Returns:
        Both over ``direction_seed``; NaN without a finite s(0).
    """
    import xarray as xr

    radii = profile["radius"].values.astype(np.float64)
    losses = profile["loss"].transpose(*ProfileSurface.dimensions).values.astype(np.float64)
    classes = int(profile.attrs["num_classes"])
    chance = math.log(classes) if classes else math.inf
    rises = [mean_rise(loss, radii, chance) for loss in losses]
    reached = [_first_radius(loss, radii) for loss in losses]
    text = {
        "mean_rise": (rises, "mean rise of the loss along a random direction", "nat"),
        "one_nat_radius": (reached, "radius at which the loss has risen by 1 nat", "1"),
    }
    variables = {
        name: ("direction_seed", np.array(values), {"long_name": long_name, "units": units})
        for name, (values, long_name, units) in text.items()
    }
    return xr.Dataset(variables, {"direction_seed": profile["direction_seed"]})


def mean_rise(loss: Float64[np.ndarray, " step"], steps: Float64[np.ndarray, " step"], cap: float) -> float:
    """The mean over the steps of min(s(r) - s(0), cap) by the trapezoid rule; NaN without a finite s(0).

    Args:
        loss: s at the steps; one that is not finite counts as the cap above s(0).
        steps: Increasing, with 0 among them.
        cap: The largest rise that counts.
    """
    center = loss[int(np.flatnonzero(steps == 0)[0])]
    if not math.isfinite(center):
        return math.nan
    rise = np.where(np.isfinite(loss), np.minimum(loss - center, cap), cap)
    return float((np.diff(steps) @ (rise[1:] + rise[:-1])) / (2 * (steps[-1] - steps[0])))


def _first_radius(loss: Float64[np.ndarray, " radius"], radii: Float64[np.ndarray, " radius"]) -> float:
    if not math.isfinite(loss[0]):
        return math.nan
    level = loss[0] + RISE
    beyond = np.flatnonzero(~(loss < level))
    if not beyond.size:
        return float(radii[-1])
    after = int(beyond[0])
    if not math.isfinite(loss[after]):
        return float(radii[after - 1])
    share = (level - loss[after - 1]) / (loss[after] - loss[after - 1])
    return float(radii[after - 1] + share * (radii[after] - radii[after - 1]))
