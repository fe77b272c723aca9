"""Loss and accuracy of training and test images along random directions, to both sides of w*.

With d a random direction that is normalised filter by filter, the line is s(a) = E_i[f_i(w* + a d)] over
steps a from -R to R. A step of 1 moves every filter by its own norm. The scale of weights before a batch norm
does not change the line. Source: Li et al., *Visualizing the loss landscape of neural nets* (NeurIPS 2018),
sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from torch import nn

from nas_lightning.analysis.curve_surface import CurveSurface
from nas_lightning.analysis.directions import Directions, Normalization
from nas_lightning.analysis.displacement import at_points
from nas_lightning.analysis.evaluation import Batches, Forward, Loss, evaluating
from nas_lightning.analysis.grid import check_axis, check_seeds
from nas_lightning.analysis.loss import BatchNorm, kept_buffers, running_norms
from nas_lightning.analysis.loss_profile import (
    DIRECTION_SEEDS,
    count_classes,
    mean_rise,
    profile_directions,
)
from nas_lightning.analysis.split_losses import losses_of_splits, split_variables
from nas_lightning.analysis.surface import Point, measure_pending

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together


class LineSurface(CurveSurface):
    """Losses along random directions: a row is a direction, its position the step."""

    title = "a loss line"
    dimensions = ("direction_seed", "position")
    descriptions: ClassVar = {
        "position": {"long_name": "step from w*, in norms of the filters", "units": "1"}
    }


@contextmanager
def losses_along(
    module: nn.Module,
    splits: Mapping[str, Batches],
    directions_by_seed: Mapping[int, Directions],
    batch_norm: BatchNorm = "frozen",
    *,
    statistics: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Loss and accuracy of every split at the points of lines from w*.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*.
        splits: Batches of each split, on the module's device.
        directions_by_seed: Of :func:`~nas_lightning.analysis.loss_profile.profile_directions`.
        batch_norm: ``"frozen"``: the running statistics of w* everywhere; ``"reestimated"``: from
            ``statistics`` at every point.
        statistics: Batches of the training split, for ``"reestimated"``; None takes the split ``"train"``.
        forward: Computes the module's logits at every point in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Yields:
        Function of a point that gives ``SPLIT_loss`` and ``SPLIT_accuracy``. When the block ends, parameters
        and buffers are as before, bit for bit.

    Raises:
        ValueError: If directions do not fit, `batch_norm` is unknown, or there are no running statistics, or
            no batches to estimate them from.
    """
    running_norms(module, batch_norm)
    used = None
    if batch_norm == "reestimated":
        used = splits.get("train") if statistics is None else statistics
        if used is None:
            raise ValueError("`batch_norm` (='reestimated') needs `statistics`, or the split 'train'")
    with evaluating(module), kept_buffers(module), at_points(module, directions_by_seed) as move_to:

        def measure(point: Point) -> dict[str, float]:
            move_to(point)
            return losses_of_splits(module, splits, statistics=used, forward=forward, loss=loss)

        yield measure


def loss_line(
    module: nn.Module,
    splits: Mapping[str, Batches],
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    direction_seeds: Iterable[int] = DIRECTION_SEEDS,
    batch_norm: BatchNorm = "frozen",
    *,
    statistics: Batches | None = None,
    normalization: Normalization = "filter",
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute loss and accuracy of several splits at w* + a d for random directions d and steps a.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*, and are so bit for bit
            afterwards.
        splits: Batches of each split by name, such as ``"train"`` and ``"test"``.
        positions: The steps a, increasing.
        direction_seeds: One direction each.
        batch_norm: See :func:`losses_along`.
        statistics: See :func:`losses_along`.
        normalization: Of the directions, see :func:`~nas_lightning.analysis.directions.random_direction`.
        forward: See :func:`losses_along`.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``SPLIT_loss`` (nat) and ``SPLIT_accuracy`` (fraction) over (direction_seed, position), and the
        numbers of :func:`line_scalars`. NaN and infinity are kept.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> import torch
        >>> module = nn.Linear(2, 3)
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))]
        >>> line = loss_line(module, {"train": batches}, [-1, 0, 1], direction_seeds=[0, 1])
        >>> dict(line.train_loss.sizes)
        {'direction_seed': 2, 'position': 3}
    """
    seeds = check_seeds("direction_seeds", direction_seeds)
    batches = next(iter(splits.values()), [])
    attributes = {"num_classes": count_classes(module, batches, loss)}
    surface = new_line(positions, seeds, splits, attributes, loss)
    directions = {seed: profile_directions(module, seed, normalization) for seed in seeds}
    settings = {"statistics": statistics, "forward": forward, "loss": loss}
    with losses_along(module, splits, directions, batch_norm, **settings) as measure:  # type: ignore[arg-type]
        measure_pending(surface, measure)
    line = surface.curves.drop_vars("done")
    return line.merge(line_scalars(line))


def new_line(
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    direction_seeds: Iterable[int],
    splits: Iterable[str],
    attributes: Mapping[str, str | int | float],
    loss: Loss | None = None,
) -> LineSurface:
    """Lines of which no point is measured; a ValueError if an argument is refused."""
    steps = check_axis("positions", positions)
    if len(steps) < 2:
        raise ValueError(f"`positions` (={steps.tolist()}) must be two or more")
    variables = split_variables(splits, loss)
    return LineSurface.create("loss_line", variables, steps, [0.0], direction_seeds, attributes)


def line_scalars(line: xr.Dataset) -> xr.Dataset:
    """Compute the mean rise of every split along every direction.

    ``SPLIT_mean_rise`` is the mean over the steps from -R to R of min(s(a) - s(0), ln K), K the number of
    classes, by the trapezoid rule; the cap and what is not finite are those of ``mean_rise`` of
    :func:`~nas_lightning.analysis.loss_profile.profile_scalars`. A split whose loss rises faster has the
    sharper surface.

    Args:
        line: ``SPLIT_loss`` over (direction_seed, position) with the attribute ``num_classes``.

    Returns:
        The numbers over ``direction_seed``: NaN without a finite s(0); none where 0 is not among the steps.
    """
    import xarray as xr

    steps = line["position"].values.astype(np.float64)
    if 0.0 not in steps.tolist():
        return xr.Dataset()
    classes = int(line.attrs["num_classes"])
    chance = math.log(classes) if classes else math.inf
    found = {}
    for name, variable in line.data_vars.items():
        split, _, kind = str(name).rpartition("_")
        if kind == "loss" and variable.ndim == 2:
            losses = variable.transpose(*LineSurface.dimensions).values.astype(np.float64)
            text = {"long_name": f"mean rise of the {split} loss along a random line", "units": "nat"}
            rises = np.array([mean_rise(loss, steps, chance) for loss in losses])
            found[f"{split}_mean_rise"] = ("direction_seed", rises, text)
    return xr.Dataset(found, {"direction_seed": line["direction_seed"]})
