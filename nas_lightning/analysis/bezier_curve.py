"""A curve of weights between two networks: the quadratic Bézier curve of mode connectivity.

    phi(t) = (1 - t)^2 A + 2 t (1 - t) theta + t^2 B,    0 <= t <= 1,

leads from the weights A at t = 0 to the weights B at t = 1; the bend theta is trained to make the mean loss
along the curve small, E_{t ~ U(0, 1)} L(phi(t)). Source: Garipov et al., *Loss surfaces, mode connectivity,
and fast ensembling of DNNs* (NeurIPS 2018), sections 3.1 to 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn


def curve_coefficients(position: float) -> tuple[float, float, float]:
    """The factors of A, theta and B at a position t: (1 - t)^2, 2 t (1 - t), t^2; their sum is 1.

    Raises:
        ValueError: If t is not from 0 to 1.
    """
    if not 0 <= position <= 1:
        raise ValueError(f"`position` (={position}) must be from 0 to 1")
    return (1 - position) ** 2, 2 * position * (1 - position), position**2


def curve_point(
    start: Mapping[str, Tensor], bend: Mapping[str, Tensor], end: Mapping[str, Tensor], position: float
) -> dict[str, Tensor]:
    """The weights phi(t) of the curve, differentiable in the bend: d phi / d theta = 2 t (1 - t).

    Args:
        start: A, by the names of the parameters.
        bend: theta, with the same names.
        end: B, with the same names.
        position: t. At 0 and 1 the weights are A and B bit for bit, and do not depend on theta.

    Returns:
        phi(t) by the same names: new tensors.

    Raises:
        ValueError: If names or shapes differ, or t is not from 0 to 1.

    Example:
        >>> start, bend, end = ({"w": torch.tensor([value])} for value in (0.0, 2.0, 0.0))
        >>> curve_point(start, bend, end, 0.5)
        {'w': tensor([1.])}
    """
    _check_alike(bend, start, end)
    first, middle, last = curve_coefficients(position)
    if middle == 0:  # a sum with zero times a number would not keep -0.0, infinity and NaN
        return {name: (start if first else end)[name].clone() for name in bend}
    return {
        name: torch.add(first * start[name] + last * end[name], values, alpha=middle)
        for name, values in bend.items()
    }


def line_point(start: Mapping[str, Tensor], end: Mapping[str, Tensor], position: float) -> dict[str, Tensor]:
    """The weights (1 - t) A + t B of the straight line, at t = 0 and 1 bit for bit A and B.

    It is the curve whose bend lies half-way, theta = (A + B) / 2.
    """
    _check_alike(start, end)
    curve_coefficients(position)
    if position in (0, 1):
        return {name: (end if position else start)[name].clone() for name in start}
    return {name: (1 - position) * values + position * end[name] for name, values in start.items()}


def flat_weights(weights: Mapping[str, Tensor]) -> Float[Tensor, " size"]:
    """All weights in one vector, in the order of their names' mapping."""
    return torch.cat([values.detach().flatten() for values in weights.values()])


def named_weights(flat: Float[Tensor, " size"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a vector of :func:`flat_weights`, as views with the names and shapes of `like`.

    Raises:
        ValueError: If the vector has another size.
    """
    sizes = [values.numel() for values in like.values()]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"`flat` has shape {tuple(flat.shape)}, the weights have {sum(sizes)} numbers")
    parts = torch.split(flat, sizes)
    return {name: part.view(values.shape) for (name, values), part in zip(like.items(), parts, strict=True)}


@contextmanager
def at_weights(module: nn.Module) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Set a module's weights in place, as often as needed.

    Yields a function of weights by name. When the block ends, also by an exception, parameters and buffers
    (the running statistics, which a measurement may have estimated anew) are as before, bit for bit.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> before = layer.weight.item()
        >>> with at_weights(layer) as move_to:
        ...     move_to({"weight": torch.tensor([[2.0]])})
        ...     layer.weight.item()
        2.0
        >>> layer.weight.item() == before
        True
    """
    parameters = dict(module.named_parameters())
    tensors: list[Tensor] = [*parameters.values(), *module.buffers()]
    with torch.inference_mode(False), torch.no_grad():
        kept = [tensor.detach().clone() for tensor in tensors]

    def move_to(weights: Mapping[str, Tensor]) -> None:
        _check_alike(parameters, weights)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])

    try:
        yield move_to
    finally:
        with torch.no_grad():
            for tensor, values in zip(tensors, kept, strict=True):
                tensor.copy_(values)


def _check_alike(one: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> None:
    for other in others:
        for name in {**one, **other}:
            shapes = [tuple(weights[name].shape) if name in weights else None for weights in (one, other)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"the weights of {name!r} have the shapes {shapes[0]} and {shapes[1]}")
