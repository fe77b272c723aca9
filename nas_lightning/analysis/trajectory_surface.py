"""The loss along a training's path and over its plane, and the numbers of the path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from nas_lightning.analysis.evaluation import Batches, Forward, Loss, loss_name
from nas_lightning.analysis.loss import (
    BatchNorm,
    estimate_running_statistics,
    evaluate,
    loss_at_points,
    loss_variables,
)
from nas_lightning.analysis.stored_weights import CheckpointWeights, StoredWeights
from nas_lightning.analysis.surface import measured_plane
from nas_lightning.analysis.trajectory import (
    MARGIN,
    TrajectoryPlane,
    plane_axes,
    plane_directions,
    trajectory_plane,
)
from nas_lightning.provenance import weights_hash

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together


def trajectory_surface(
    module: nn.Module,
    batches: Batches,
    checkpoints: Sequence[StoredWeights],
    resolution: int = 21,
    margin: float = MARGIN,
    batch_norm: BatchNorm = "reestimated",
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute the path of a training in its own plane, and the loss over that plane.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*, the last of the path, and are
            so bit for bit afterwards.
        batches: (inputs, targets), on the module's device.
        checkpoints: The path's weights in their order, without w*.
        resolution: Points along each component.
        margin: Room around the path, see :func:`~nas_lightning.analysis.trajectory.plane_axes`.
        batch_norm: See :func:`~nas_lightning.analysis.loss.loss_at_points`; ``"frozen"`` where there is none.
        forward: Computes the module's logits in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``loss`` (nat) and ``accuracy`` over (alpha, beta), the lengths along both components from w*; the
        variables of :func:`trajectory_variables` and :func:`checkpoint_variables`, w* last; and the scalars
        of :func:`trajectory_scalars`.

    Raises:
        ValueError: If the checkpoints span no plane, or an argument is refused.

    Example:
        >>> module = nn.Linear(2, 3)
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))]
        >>> states = [nn.Linear(2, 3).state_dict() for _ in range(3)]
        >>> path = [StoredWeights(state, ["weight", "bias"]) for state in states]
        >>> surface = trajectory_surface(module, batches, path, resolution=3, batch_norm="frozen")
        >>> dict(surface.loss.sizes), surface.checkpoint_loss.size
        ({'alpha': 3, 'beta': 3}, 4)
    """
    origin = {name: value.detach() for name, value in module.named_parameters()}
    path = [*checkpoints, StoredWeights(origin, list(checkpoints[0].shapes), "w*")]
    plane = trajectory_plane(path, origin)
    directions = {0: plane_directions(path, origin, plane.coefficients)}
    attributes: dict[str, str | int | float] = {
        "kind": "trajectory",
        "weights_sha256": weights_hash(module.state_dict()),
        "samples": sum(len(targets) for _, targets in batches),
        "batch_norm": batch_norm,
        "checkpoints": len(path),
        **({} if loss is None else {"loss": loss_name(loss)}),
    }
    count = len(path)
    described = trajectory_variables(plane, runs=[0] * count, steps=range(count), epochs=[math.nan] * count)
    with visited(module) as visit:
        found = [visit(one, batches, forward=forward, loss=loss) for one in path]
    described |= checkpoint_variables(np.array(found), loss)
    axes = plane_axes(plane.coordinates, resolution, margin)
    with loss_at_points(module, batches, directions, batch_norm, forward=forward, loss=loss) as measure:
        surface = measured_plane(measure, loss_variables(loss), *axes, attributes).assign(described)
    return surface.assign(trajectory_scalars(surface).data_vars)


@contextmanager
def visited(module: nn.Module) -> Iterator[Callable[..., tuple[float, float]]]:
    """Measure a module at the weights and running statistics of checkpoints.

    Yields:
        ``visit(weights, batches, *, initial=False, forward=None, loss=None)``: mean loss and accuracy of a
        checkpoint, see :func:`~nas_lightning.analysis.loss.evaluate`. What it lacks, or shares with the
        module, is as in the module before. The running statistics of `initial` weights are those of no data,
        and are estimated from the batches. When the block ends, also by an exception, parameters and buffers
        are as before, bit for bit.
    """
    with torch.no_grad():
        state = module.state_dict()
        kept = {name: value.clone() for name, value in state.items()}

    def visit(
        weights: StoredWeights,
        batches: Batches,
        *,
        initial: bool = False,
        forward: Forward | None = None,
        loss: Loss | None = None,
    ) -> tuple[float, float]:
        loaded = weights.state_dict() if isinstance(weights, CheckpointWeights) else weights.state
        with torch.no_grad():
            for name, value in state.items():
                found = loaded.get(name)
                if found is None or found.data_ptr() == value.data_ptr():
                    found = kept[name]
                value.copy_(found)
        if initial:
            estimate_running_statistics(module, batches)
        return evaluate(module, batches, forward=forward, loss=loss)

    try:
        yield visit
    finally:
        with torch.no_grad():
            for name, value in state.items():
                value.copy_(kept[name])


def checkpoint_variables(
    values: Float64[np.ndarray, "checkpoints 2"], loss: Loss | None = None
) -> dict[str, xr.DataArray]:
    """Loss and accuracy of every checkpoint as variables of a file."""
    import xarray as xr

    return {
        f"checkpoint_{name}": xr.DataArray(column, dims="checkpoint", attrs=dict(description))
        for (name, description), column in zip(loss_variables(loss).items(), values.T, strict=True)
    }


def trajectory_variables(
    plane: TrajectoryPlane, *, runs: Sequence[int], steps: Sequence[int], epochs: Sequence[float]
) -> dict[str, xr.DataArray]:
    """The plane as variables of a file, over the checkpoints, the components and the two axes.

    Args:
        plane: The plane.
        runs: Number of each checkpoint's run.
        steps: Steps of the optimiser before each checkpoint.
        epochs: Epochs before each checkpoint, NaN within an epoch.
    """
    import xarray as xr

    length = {"units": "norm of the weights"}
    axes = ("checkpoint", "axis")
    between = np.where(np.diff(runs, prepend=runs[0]) == 0, plane.steps, 0.0)
    variables = {
        "coefficient": (axes, plane.coefficients, "c_ik of d_k = sum_i c_ik (w_i - w*)", {}),
        "coordinate": (axes, plane.coordinates, "<w_i - w*, d_k>", length),
        "distance": ("checkpoint", plane.distances, "distance from the plane", length),
        "path_step": ("checkpoint", between, "distance from the checkpoint before", length),
        "checkpoint_run": ("checkpoint", np.array(runs, np.int32), "number of the run", {}),
        "checkpoint_step": ("checkpoint", np.array(steps, np.int32), "steps of the optimiser", {}),
        "checkpoint_epochs": ("checkpoint", np.array(epochs, np.float64), "epochs of training", {}),
        "explained_variance": (
            "component",
            plane.explained_variance,
            "share of a component in the variance",
            {},
        ),
    }
    return {
        name: xr.DataArray(values, dims=dims, attrs={"long_name": long_name, "units": "1", **units})
        for name, (dims, values, long_name, units) in variables.items()
    }


def trajectory_scalars(dataset: xr.Dataset) -> xr.Dataset:
    """Compute the numbers of the first run's path by which trainings are compared.

    - ``plane_variance``: share of the variance of all checkpoints that the two components explain.
    - ``path_length``: sum of ||w_i - w_(i - 1)||; it grows with the number of checkpoints.
    - ``path_straightness``: ||w_0 - w*|| / path_length, 1 for a straight line.

    Lengths are Euclidean: a rescaling of weights before a batch norm changes them.

    Args:
        dataset: A file's variables, see :func:`trajectory_variables`.
    """
    import xarray as xr

    own = dataset["checkpoint_run"].values == 0
    first = int(np.flatnonzero(own)[0])
    length = float(dataset["path_step"].values[own][1:].sum())
    whole = math.hypot(*dataset["coordinate"].values[first], float(dataset["distance"].values[first]))
    text = {
        "plane_variance": (
            float(dataset["explained_variance"].values[:2].sum()),
            "share of the variance in the plane",
            "1",
        ),
        "path_length": (length, "length of the path", "norm of the weights"),
        "path_straightness": (
            whole / length if length else math.nan,
            "distance of the ends over the path's length",
            "1",
        ),
    }
    return xr.Dataset(
        {
            name: ((), value, {"long_name": long_name, "units": units})
            for name, (value, long_name, units) in text.items()
        }
    )
