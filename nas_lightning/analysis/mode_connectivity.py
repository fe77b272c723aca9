"""Loss and accuracy along a curve between two networks, beside those along the straight line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.analysis.barrier import barrier_scalars
from nas_lightning.analysis.bezier_curve import at_weights, curve_point, line_point
from nas_lightning.analysis.curve_surface import CurveSurface
from nas_lightning.analysis.evaluation import Batches, Forward, Loss, evaluating
from nas_lightning.analysis.grid import check_axis
from nas_lightning.analysis.split_losses import losses_of_splits, split_variables
from nas_lightning.analysis.surface import Point, measure_pending

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

PATHS = ("curve", "line")
"""The paths between the ends, in the order of their rows."""
KIND = "mode_connectivity"


class PathSurface(CurveSurface):
    """Losses along the curve, row 0, and along the straight line, row 1, at positions t from 0 to 1."""

    title = "a curve between two networks"
    dimensions = ("path", "position")
    descriptions: ClassVar = {
        "path": {"long_name": ", ".join(f"{row}: {name}" for row, name in enumerate(PATHS))},
        "position": {"long_name": "position t from the first network, 0, to the second, 1", "units": "1"},
    }


@contextmanager
def losses_on_paths(
    module: nn.Module,
    splits: Mapping[str, Batches],
    curve: tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]],
    *,
    statistics: Batches,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Loss and accuracy of every split at points of the curve and of the straight line.

    Args:
        module: Maps inputs to logits ``[batch, classes]``.
        splits: Batches of each split, on the module's device.
        curve: The weights A, theta and B by name; the module's own tensors may be among them.
        statistics: Batches from which batch norm's running statistics are estimated at every point, also at
            the ends: at no other weights do those of a training fit.
        forward: Computes the module's logits at every point in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Yields:
        Function of a point, whose ``direction_seed`` is the row of the path and ``alpha`` is t, that gives
        ``SPLIT_loss`` and ``SPLIT_accuracy``. When the block ends, the module is as before, bit for bit.
    """
    start, bend, end = ({n: values.detach().clone() for n, values in one.items()} for one in curve)
    with evaluating(module), at_weights(module) as move_to:

        def measure(point: Point) -> dict[str, float]:
            is_curve = PATHS[point.direction_seed] == "curve"
            move_to(
                curve_point(start, bend, end, point.alpha)
                if is_curve
                else line_point(start, end, point.alpha)
            )
            return losses_of_splits(module, splits, statistics=statistics, forward=forward, loss=loss)

        yield measure


def mode_connectivity(
    module: nn.Module,
    splits: Mapping[str, Batches],
    curve: tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]],
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    *,
    statistics: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute loss and accuracy along a quadratic Bézier curve and along the straight line of its ends.

    Args:
        module: A network of the architecture of the ends; it is as before afterwards, bit for bit.
        splits: Batches of each split by name, such as ``"train"`` and ``"test"``.
        curve: The weights A, theta and B by name, see :mod:`~nas_lightning.analysis.bezier_curve`.
        positions: t, increasing, from 0 to 1.
        statistics: See :func:`losses_on_paths`; None takes the split ``"train"``.
        forward: See :func:`losses_on_paths`.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``SPLIT_loss`` (nat) and ``SPLIT_accuracy`` (fraction) over (path, position), path 0 the curve and 1
        the line, and the numbers of :func:`connectivity_scalars`. NaN and infinity are kept.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 3, bias=False)
        >>> start, bend, end = ({"weight": torch.full((3, 2), value)} for value in (0.0, 1.0, 0.0))
        >>> batches = [(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]))]
        >>> found = mode_connectivity(layer, {"train": batches}, (start, bend, end), [0, 0.5, 1])
        >>> dict(found.train_loss.sizes), float(found.line_train_barrier)
        ({'path': 2, 'position': 3}, 0.0)
    """
    if statistics is None and "train" not in splits:
        raise ValueError("`statistics` is missing: without it there must be a split 'train'")
    surface = new_paths(positions, splits, {}, loss)
    used = splits["train"] if statistics is None else statistics
    with losses_on_paths(module, splits, curve, statistics=used, forward=forward, loss=loss) as measure:
        measure_pending(surface, measure)
    paths = surface.curves.drop_vars("done")
    return paths.merge(connectivity_scalars(paths))


def new_paths(
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    splits: Iterable[str],
    attributes: Mapping[str, str | int | float],
    loss: Loss | None = None,
) -> PathSurface:
    """Both paths, of which no point is measured; a ValueError if an argument is refused."""
    steps = check_axis("positions", positions)
    if len(steps) < 3 or steps[0] != 0 or steps[-1] != 1:
        raise ValueError(f"`positions` (={steps.tolist()}) must be three or more, from 0 to 1")
    variables = split_variables(splits, loss)
    return PathSurface.create(KIND, variables, steps, [0.0], range(len(PATHS)), attributes)


def connectivity_scalars(paths: xr.Dataset) -> xr.Dataset:
    """Compute the barriers of the curve and of the line, each as a number of its own.

    ``PATH_SPLIT_barrier`` (nat) and ``PATH_SPLIT_accuracy_barrier`` (a fraction), PATH ``curve`` or ``line``:
    how far the loss rises above, and the accuracy falls below, the straight line between its values at the
    ends; see :func:`~nas_lightning.analysis.barrier.barrier`.

    Args:
        paths: ``SPLIT_loss`` and ``SPLIT_accuracy`` over (path, position).
    """
    import xarray as xr

    barriers = barrier_scalars(paths)
    heights = [name for name in map(str, barriers.data_vars) if name.endswith("_barrier")]
    return xr.Dataset(
        {
            f"{path}_{name}": (
                (),
                float(barriers[name].values[row]),
                barriers[name].attrs | {"long_name": f"{barriers[name].attrs['long_name']}, {path}"},
            )
            for row, path in enumerate(PATHS)
            for name in heights
        }
    )
