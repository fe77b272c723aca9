"""Random directions in weight space."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Direction: TypeAlias = Mapping[str, Tensor]
Directions: TypeAlias = Sequence[Mapping[str, Tensor]]
"""Two directions, each keyed as ``named_parameters()``."""
Normalization: TypeAlias = Literal["filter", "layer", "none"]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Classes that hold what they wrap as ``module``."""
_WRAPPED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Names under which torch.compile, sharding, activation checkpoints and Fabric hold what they wrap."""

_EPSILON = 1e-10
# A remainder that is this much smaller than the whole is rounding. This is so with units of one element.
_PARALLEL = 1e-9


def random_direction(
    module: nn.Module,
    seed: int,
    normalization: Normalization = "filter",
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Draw a Gaussian direction in the space of a module's live parameters.

    Every tensor d is drawn from N(0, 1), then scaled unit by unit to the size of the weights w:

        d_u  <-  d_u * ||w_u|| / (||d_u|| + 1e-10).

    - ``"filter"`` (Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4): the
      units of a tensor with more than one dimension are its slices along dimension 0, the filters; biases and
      the scales and shifts of batch norm get direction 0.
    - ``"layer"``: the same with the whole tensor as one unit.
    - ``"none"``: N(0, 1) everywhere, biases and batch norm included, as section 4.2.1 of Shu et al. (ICLR
      2020) reads. A short step then leaves weights of small norm far behind.

    A tensor is drawn on the CPU in float32 from a generator seeded by (seed, name of the parameter), so that
    the direction depends on no device, precision, rank or other parameter; norms are taken in float64. What
    DataParallel, DistributedDataParallel, torch.compile and their like add to names does not count.

    Args:
        module: Module whose parameters with ``requires_grad=True`` have a direction.
        seed: Seed of the direction.
        normalization: As above.
        names: Parameters to which the direction is restricted, to leave out an auxiliary tower; those that
            are not live have no direction. None stands for all.

    Returns:
        The direction, keyed and ordered as ``named_parameters()``, on the parameters' devices and in their
        types.

    Raises:
        ValueError: If `normalization` or one of `names` is unknown, or no live parameter remains.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> direction = random_direction(layer, seed=0)
        >>> torch.allclose(direction["weight"].norm(dim=1), layer.weight.norm(dim=1))
        True
        >>> direction["bias"]
        tensor([0., 0.])
    """
    with torch.inference_mode(False), torch.no_grad():
        parameters = _live_parameters(module, names)
        return _placed(_draw(module, parameters, seed, normalization), parameters)


def random_directions(
    module: nn.Module,
    seed: int,
    normalization: Normalization = "filter",
    orthogonal: bool = False,
    names: Collection[str] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw the two directions of a surface, :func:`random_direction` of seeds 2 seed and 2 seed + 1.

    Random directions in a space of many dimensions are nearly orthogonal. `orthogonal` makes the second
    exactly so, up to the rounding of the parameters' type: in every normalisation unit u (a filter, a tensor;
    without normalisation all parameters together)

        e_u = b_u - (<a_u, b_u> / ||a_u||^2) a_u,      b_u  <-  e_u * ||b_u|| / ||e_u||,

    which keeps the norm of every unit. A unit of one element has no other direction and stays as it is: the
    cosine of a network with such units, see :func:`cosine`, is not quite 0. The other arguments, and what is
    refused, are those of :func:`random_direction`.

    Example:
        >>> first, second = random_directions(nn.Linear(30, 2), seed=0, orthogonal=True)
        >>> abs(cosine(first, second)) < 1e-6
        True
    """
    with torch.inference_mode(False), torch.no_grad():
        parameters = _live_parameters(module, names)
        first, second = (_draw(module, parameters, 2 * seed + i, normalization) for i in (0, 1))
        if orthogonal:
            second = _made_orthogonal(first, second, normalization)
        return _placed(first, parameters), _placed(second, parameters)


def cosine(first: Direction, second: Direction) -> float:
    """Compute the cosine between two directions, <a, b> / (||a|| ||b||), in float64; NaN if one is zero.

    Raises:
        ValueError: If the directions are not of the same parameters.

    Example:
        >>> cosine({"weight": torch.tensor([1.0, 0.0])}, {"weight": torch.tensor([1.0, 1.0])})
        0.7071067811865475
    """
    check_same_names(first, second)
    with torch.no_grad():
        pairs = [
            (first[name].cpu().double().flatten(), second[name].cpu().double().flatten()) for name in first
        ]
    product = math.fsum(float(a @ b) for a, b in pairs)
    norms = [math.sqrt(math.fsum(float(a @ a) for a in side)) for side in zip(*pairs, strict=True)]
    return product / math.prod(norms) if all(norms) else math.nan


def unwrapped_name(module: nn.Module, name: str) -> str:
    """A parameter's name without what wrappers of modules insert into it.

    Example:
        >>> unwrapped_name(nn.DataParallel(nn.Linear(1, 1)), "module.weight")
        'weight'
    """
    kept, holder = [], module
    for part in name.split("."):
        if not (part in _WRAPPED or (part == "module" and isinstance(holder, _WRAPPERS))):
            kept.append(part)
        holder = getattr(holder, part)
    return ".".join(kept)


def _live_parameters(module: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    parameters = dict(module.named_parameters())
    unknown = sorted(set(names or ()) - parameters.keys())
    if unknown:
        raise ValueError(f"`names` holds {unknown[0]!r}, which is not a parameter of the module")
    live = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad and (names is None or name in names)
    }
    if not live:
        raise ValueError("no parameter with requires_grad=True: there is no direction to draw")
    return live


def _draw(
    module: nn.Module, parameters: Mapping[str, Tensor], seed: int, normalization: Normalization
) -> dict[str, Tensor]:
    """A normalised direction on the CPU in float64."""
    if normalization not in ("filter", "layer", "none"):
        raise ValueError(f"`normalization` (={normalization!r}) must be 'filter', 'layer' or 'none'")
    return {
        name: _scaled(
            _gaussian(unwrapped_name(module, name), parameter.shape, seed), parameter, normalization
        )
        for name, parameter in parameters.items()
    }


def _placed(direction: Direction, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(parameters[name]) for name, value in direction.items()}


def _gaussian(name: str, shape: torch.Size, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(shape, generator=generator, dtype=torch.float32).double()


def _scaled(drawn: Tensor, parameter: Tensor, normalization: Normalization) -> Tensor:
    if normalization == "none":
        return drawn
    if drawn.dim() <= 1:
        return torch.zeros_like(drawn)
    units = _units(drawn, normalization)
    weights = _units(parameter.detach().cpu().double(), normalization)
    scale = _norm(weights) / (_norm(units) + _EPSILON)
    return (units * scale).reshape(drawn.shape)


def _units(tensor: Tensor, normalization: Normalization) -> Tensor:
    """A tensor as a matrix of one normalisation unit per row."""
    return tensor.flatten(1) if normalization == "filter" and tensor.dim() > 1 else tensor.reshape(1, -1)


def _norm(units: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    return norm


def _made_orthogonal(first: Direction, second: Direction, normalization: Normalization) -> dict[str, Tensor]:
    if normalization != "none":
        return {
            name: _orthogonal(_units(first[name], normalization), _units(value, normalization)).reshape(
                value.shape
            )
            for name, value in second.items()
        }
    flat = [torch.cat([value.flatten() for value in drawn.values()])[None] for drawn in (first, second)]
    parts = torch.split(_orthogonal(*flat)[0], [value.numel() for value in second.values()])
    return {name: part.reshape(second[name].shape) for name, part in zip(second, parts, strict=True)}


def _orthogonal(first: Tensor, second: Tensor) -> Tensor:
    """Rows of `second` made orthogonal to those of `first`, their norms kept."""
    square = (first * first).sum(1, keepdim=True)
    projection = (first * second).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
    rest = second - projection * first
    norm, rest_norm = _norm(second), _norm(rest)
    usable = rest_norm > _PARALLEL * norm
    return torch.where(usable, rest * (norm / torch.where(usable, rest_norm, 1.0)), second)


def check_same_names(first: Direction, second: Direction) -> None:
    """Refuse two directions of different parameters, naming one that is missing."""
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        raise ValueError(f"the two directions are not of the same parameters: one of them lacks {odd[0]!r}")
