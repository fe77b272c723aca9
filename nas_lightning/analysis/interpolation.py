"""Loss and accuracy on the straight line between two networks: linear interpolation of their weights.

w(t) = (1 - t) A + t B, for all parameters and buffers of two checkpoints A and B of one network. Sources:
Goodfellow et al., *Qualitatively characterizing neural network optimization problems* (ICLR 2015), from the
initial weights to the trained ones; Frankle et al., *Linear mode connectivity and the lottery ticket
hypothesis* (ICML 2020), between two trained networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.analysis.barrier import barrier_scalars
from nas_lightning.analysis.curve_surface import CurveSurface
from nas_lightning.analysis.evaluation import Batches, Forward, Loss, evaluating
from nas_lightning.analysis.grid import axis, check_axis
from nas_lightning.analysis.loss import kept_buffers, running_norms
from nas_lightning.analysis.split_losses import losses_of_splits, split_variables
from nas_lightning.analysis.surface import Point, measure_pending

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

State: TypeAlias = Mapping[str, Tensor]
"""Parameters and buffers by name, as ``state_dict()`` gives them."""
PathNorm: TypeAlias = Literal["reestimated", "interpolated"]


class InterpolationSurface(CurveSurface):
    """Losses between pairs of networks: a row is a pair, its position t."""

    title = "an interpolation"
    dimensions = ("pair", "position")
    descriptions: ClassVar = {
        "pair": {"long_name": "number of the pair of checkpoints"},
        "position": {"long_name": "share of the second checkpoint", "units": "1"},
    }


def path_positions(
    resolution: int, extent: float | int | Sequence[float | int] = (0.0, 1.0)
) -> Float[np.ndarray, " position"]:
    """Space positions evenly on the line through two networks, and add both ends exactly.

    Args:
        resolution: Number of positions, at least 2.
        extent: First and last position; 0 and 1 lie between them. A number e means (-e, e).

    Raises:
        ValueError: If `resolution` or `extent` is refused.

    Example:
        >>> path_positions(3, (-0.5, 1.0)).tolist()
        [-0.5, 0.0, 0.25, 1.0]
    """
    steps = axis(resolution, extent)
    if steps[0] > 0 or steps[-1] < 1:
        raise ValueError(f"`extent` (={extent}) must reach from 0, the first network, to 1, the second")
    for end in (0.0, 1.0):
        steps = np.where(np.abs(steps - end) < 1e-9, end, steps)
    ends: np.ndarray = np.unique(np.r_[steps, 0.0, 1.0])
    return ends


@contextmanager
def interpolated(module: nn.Module, start: State, end: State) -> Iterator[Callable[[float], None]]:
    """Set a module's parameters and buffers in place to (1 - t) A + t B.

    Yields ``move(t)``. At t = 0 and t = 1 every tensor is that of A or B bit for bit. Tensors of whole
    numbers, such as the number of batches that batch norm has seen, are those of the nearer end. Names that
    A and B lack stay as they are. When the block ends, also by an exception, the module is as before.

    Raises:
        ValueError: If A, B and the module do not fit together, or A equals B.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with interpolated(layer, {"weight": torch.zeros(1, 1)}, {"weight": torch.ones(1, 1)}) as move:
        ...     move(0.25)
        ...     layer.weight.item()
        0.25
    """
    check_ends(module, start, end)
    own = module.state_dict(keep_vars=True)
    with torch.inference_mode(False), torch.no_grad():
        targets = {name: own[name] for name in start}
        kept = {name: target.detach().clone() for name, target in targets.items()}
        first, second = (
            # A copy, since an end may be the module itself.
            {name: state[name].detach().to(target, copy=True) for name, target in targets.items()}
            for state in (start, end)
        )

    def move(t: float) -> None:
        with torch.no_grad():
            for name, target in targets.items():
                if t in (0, 1) or not target.is_floating_point():
                    target.copy_(second[name] if t > 0.5 else first[name])
                else:
                    target.copy_(first[name] * (1 - t) + second[name] * t)

    try:
        yield move
    finally:
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(kept[name])


def check_ends(module: nn.Module, start: State, end: State) -> None:
    """Refuse two states that do not fit to each other and to a module, or that are equal."""
    own = module.state_dict()
    for name in sorted({*start, *end}):
        shapes = [tuple(state[name].shape) if name in state else None for state in (own, start, end)]
        if shapes[0] is None:
            raise ValueError(f"the ends of the line hold {name!r}, which the network does not have")
        if shapes[1] != shapes[2] or shapes[0] != shapes[1]:
            raise ValueError(
                f"{name!r} has shape {shapes[1]} at the first end of the line, {shapes[2]} at the second and"
                f" {shapes[0]} in the network: they must be of one architecture and size"
            )
    names = [name for name, _ in module.named_parameters() if name in start]
    if all(torch.equal(start[name].cpu(), end[name].cpu()) for name in names):
        raise ValueError("both ends of the line have the same weights: there is no direction between them")


def distance_between(module: nn.Module, start: State, end: State) -> float:
    """Distance ||B - A|| over the module's parameters that A and B hold, in float64."""
    norms = [
        torch.linalg.vector_norm(end[name].detach().double().cpu() - start[name].detach().double().cpu())
        for name, _ in module.named_parameters()
        if name in start
    ]
    return math.hypot(*map(float, norms))


@contextmanager
def losses_between(
    module: nn.Module,
    splits: Mapping[str, Batches],
    ends: Mapping[int, tuple[State, State]],
    *,
    statistics: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Loss and accuracy of every split at points of the lines between pairs of networks.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; which weights it has does not count.
        splits: Batches of each split, on the module's device.
        ends: The two ends of every pair, by its number.
        statistics: Where given, batch norm's running statistics are estimated from these batches at every
            point; otherwise they are interpolated as the weights are.
        forward: Computes the module's logits at every point in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Yields:
        Function of a point, whose ``direction_seed`` is the pair and ``alpha`` is t, that gives
        ``SPLIT_loss`` and ``SPLIT_accuracy``. When the block ends, the module is as before, bit for bit.

    Raises:
        ValueError: If the ends of a pair do not fit, see :func:`check_ends`.
    """
    with evaluating(module), kept_buffers(module), ExitStack() as current:
        pair: int | None = None
        move: Callable[[float], None]

        def measure(point: Point) -> dict[str, float]:
            nonlocal pair, move
            if point.direction_seed != pair:
                pair = None
                current.close()
                move = current.enter_context(interpolated(module, *ends[point.direction_seed]))
                pair = point.direction_seed
            move(point.alpha)
            return losses_of_splits(module, splits, statistics=statistics, forward=forward, loss=loss)

        yield measure


def loss_interpolation(
    module: nn.Module,
    splits: Mapping[str, Batches],
    pairs: Sequence[tuple[State, State]],
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    batch_norm: PathNorm = "reestimated",
    *,
    statistics: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute loss and accuracy on the straight lines between pairs of networks, and their barriers.

    Args:
        module: A network of the architecture of all ends; it is as before afterwards, bit for bit.
        splits: Batches of each split by name, such as ``"train"`` and ``"test"``.
        pairs: State dicts A and B of every pair.
        positions: t, increasing, with 0 and 1.
        batch_norm: ``"reestimated"``: running statistics from ``statistics`` at every t. ``"interpolated"``:
            (1 - t) those of A + t those of B, which no activation between the ends has. Activations of
            averaged weights have less variance than the average of the ends' variances (Jordan et al.,
            *REPAIR*, ICLR 2023): batch norm then shrinks the signal from layer to layer, and part
            of the barrier is due to this, not to the weights. Both are the same without batch norm.
        statistics: Batches from which they are estimated; None takes the split ``"train"``.
        forward: See :func:`losses_between`.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``SPLIT_loss`` (nat) and ``SPLIT_accuracy`` (fraction) over (pair, position), ``distance`` = ||B - A||
        over pairs, and the barriers of :func:`~nas_lightning.analysis.barrier.barrier_scalars`. NaN and
        infinity are kept.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> zeros = {name: torch.zeros_like(value) for name, value in layer.state_dict().items()}
        >>> batches = [(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]))]
        >>> line = loss_interpolation(layer, {"train": batches}, [(zeros, layer.state_dict())], [0, 0.5, 1])
        >>> dict(line.train_loss.sizes), round(float(line.train_loss[0, 0]), 4)
        ({'pair': 1, 'position': 3}, 1.0986)
    """
    if not pairs:
        raise ValueError("`pairs` must hold at least one pair of networks")
    ends = {number: (dict(start), dict(end)) for number, (start, end) in enumerate(pairs)}
    surface = new_interpolation(positions, range(len(pairs)), splits, {}, loss)
    used = statistics_of(module, splits, batch_norm, statistics)
    with losses_between(module, splits, ends, statistics=used, forward=forward, loss=loss) as measure:
        measure_pending(surface, measure)
    path = surface.curves.drop_vars("done")
    return path.merge(path_scalars(path, [distance_between(module, *end) for end in ends.values()]))


def statistics_of(
    module: nn.Module,
    splits: Mapping[str, Batches],
    batch_norm: PathNorm,
    statistics: Batches | None = None,
) -> Batches | None:
    """The batches from which running statistics are estimated at every point; None where they are not.

    A module without running statistics needs none.
    """
    if batch_norm not in ("interpolated", "reestimated"):
        raise ValueError(f"`batch_norm` (={batch_norm!r}) must be 'reestimated' or 'interpolated'")
    if batch_norm == "interpolated" or not running_norms(module, "frozen"):
        return None
    if statistics is None and "train" not in splits:
        raise ValueError(
            "`batch_norm` (='reestimated') needs `statistics`, the batches to estimate from, or the split"
            " 'train'"
        )
    return splits["train"] if statistics is None else statistics


def new_interpolation(
    positions: Float[np.ndarray, " position"] | Iterable[float | int],
    pairs: Iterable[int],
    splits: Iterable[str],
    attributes: Mapping[str, str | int | float],
    loss: Loss | None = None,
) -> InterpolationSurface:
    """Lines of which no point is measured; a ValueError if an argument is refused."""
    steps = check_axis("positions", positions)
    if not {0.0, 1.0} <= set(steps.tolist()):
        raise ValueError(f"`positions` (={steps.tolist()}) must hold 0 and 1, the two networks")
    variables = split_variables(splits, loss)
    return InterpolationSurface.create("interpolation", variables, steps, [0.0], pairs, attributes)


def path_scalars(path: xr.Dataset, lengths: Sequence[float]) -> xr.Dataset:
    """The barriers of lines, and the distance between the ends of each."""
    scalars = barrier_scalars(path)
    description = {"long_name": "distance between the ends' weights", "units": "1"}
    scalars["distance"] = ("pair", np.array(lengths, dtype=np.float64), description)
    return scalars
