"""A module's weights displaced along two directions, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from nas_lightning.analysis.directions import Direction, Directions, check_same_names
from nas_lightning.analysis.surface import Point


@contextmanager
def displaced(module: nn.Module, directions: Directions) -> Iterator[Callable[[float, float], None]]:
    """Displace a module's weights in place along two directions, w* + alpha d1 + beta d2.

    Yields ``move(alpha, beta)``. Every displacement starts from a copy of w*, so that rounding does not add
    up, and touches only the parameters whose direction is not zero. When the block ends, by an exception or
    an interrupt as well, the weights are w* bit for bit. Directions that do not fit raise a ValueError.

    Example:
        >>> from nas_lightning.analysis import random_directions
        >>> layer = nn.Linear(1, 1).requires_grad_(True)
        >>> weight = layer.weight.item()
        >>> with displaced(layer, random_directions(layer, seed=0)) as move:
        ...     move(1.0, -0.5)
        ...     moved = layer.weight.item() != weight
        >>> moved, layer.weight.item() == weight
        (True, True)
    """
    first, second = _check_directions(module, directions)
    parameters = dict(module.named_parameters())
    with torch.inference_mode(False), torch.no_grad():
        along = [_nonzero(direction, parameters) for direction in (first, second)]
        touched = [name for name in first if any(name in tensors for tensors in along)]
        weights: list[Tensor] = [parameters[name] for name in touched]
        kept = [weight.detach().clone() for weight in weights]
    moved: list[list[Tensor]] = [[parameters[name] for name in tensors] for tensors in along]
    steps = [list(tensors.values()) for tensors in along]

    def move(alpha: float, beta: float) -> None:
        with torch.no_grad():
            _copy(weights, kept)
            for step, targets, tensors in zip((alpha, beta), moved, steps, strict=True):
                # Adding zero would turn -0.0 into 0.0, and infinity in a direction into NaN.
                if step != 0 and targets:
                    torch._foreach_add_(targets, tensors, alpha=float(step))

    try:
        yield move
    finally:
        with torch.no_grad():
            _copy(weights, kept)


@contextmanager
def at_points(
    module: nn.Module, directions_by_seed: Mapping[int, Directions]
) -> Iterator[Callable[[Point], None]]:
    """Displace a module's weights to the points of a surface, of one or more pairs of directions.

    Yields the function that displaces the weights to a point; see :func:`displaced`.
    """
    # One pair of directions at a time holds its copy of w*.
    with ExitStack() as current:
        seed: int | None = None
        move: Callable[[float, float], None]

        def move_to(point: Point) -> None:
            nonlocal seed, move
            if point.direction_seed != seed:
                seed = None
                current.close()
                move = current.enter_context(displaced(module, directions_by_seed[point.direction_seed]))
                seed = point.direction_seed
            move(point.alpha, point.beta)

        yield move_to


def _check_directions(module: nn.Module, directions: Directions) -> tuple[Direction, Direction]:
    if len(directions) != 2:
        raise ValueError(f"`directions` must be two directions, not {len(directions)}")
    first, second = directions
    check_same_names(first, second)
    parameters = dict(module.named_parameters())
    for direction in (first, second):
        for name, tensor in direction.items():
            if name not in parameters:
                raise ValueError(f"`directions` hold {name!r}, which is not a parameter of the module")
            if tensor.shape != parameters[name].shape:
                raise ValueError(
                    f"the direction of {name!r} has shape {tuple(tensor.shape)}, the parameter "
                    f"{tuple(parameters[name].shape)}"
                )
    return first, second


def _nonzero(direction: Direction, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(parameters[name]) for name, tensor in direction.items() if bool(tensor.any())}


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
