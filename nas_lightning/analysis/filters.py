"""Filters: the units in which a network's function does not see a weight's scale.

A filter is a slice along dimension 0 of a parameter with more than one dimension. The layer's output in that
channel is linear in it, and batch norm divides the channel by its standard deviation: (w_u, running mean,
running variance + eps) -> (c w_u, c mean, c^2 (variance + eps)) leaves the function as it is, and divides
derivatives in w_u by c. Statistics that multiply them by ||w_u|| do not change (Dinh et al., *Sharp minima
can generalize for deep nets*, ICML 2017; Li et al., *Visualizing the loss landscape of neural nets*, NeurIPS
2018, section 4). Biases, and scales and shifts of batch norm, hold no filters.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from nas_lightning.analysis.directions import Normalization


def squared_norms(values: Float[Tensor, "samples *shape"]) -> Float64[Tensor, " filters"]:
    """Squared norms of every filter's values, summed over samples; a tensor without filters is one unit."""
    units = values.flatten(2) if values.ndim > 2 else values.reshape(len(values), 1, -1)
    # Squares overflow long before gradients do.
    norms: Tensor = torch.linalg.vector_norm(units, dim=2, dtype=torch.float64)
    return norms.square().sum(0)


def filter_norms(parameter: Tensor) -> Float64[Tensor, " filters"]:
    """Norm ||w_u|| of every filter of a parameter; one zero for a parameter without filters."""
    weights = parameter.detach()
    if weights.ndim <= 1:
        return torch.zeros(1, dtype=torch.float64, device=weights.device)
    norms: Tensor = torch.linalg.vector_norm(weights.flatten(1), dim=1, dtype=torch.float64)
    return norms


def filter_scale(module: nn.Module) -> Float64[np.ndarray, " parameters"]:
    """Root mean square of the filter that each weight belongs to, ||w_u|| / sqrt(n_u), n_u its entries.

    A random step with this standard deviation in every entry has the length of the weights, filter by filter.

    Args:
        module: Its parameters with ``requires_grad`` count, in the order of ``module.parameters()``.

    Returns:
        A number for each entry; 0 for parameters without filters.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 7.0]]))
        >>> filter_scale(layer)
        array([5., 5., 0.])
    """
    with torch.inference_mode(False):
        scales = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                norms = filter_norms(parameter)
                entries = parameter.numel() // len(norms)
                scales.append((norms / entries**0.5).repeat_interleave(entries).cpu())
        return torch.cat(scales).numpy()


def direction_scale(
    module: nn.Module, normalization: Normalization = "filter"
) -> Float64[np.ndarray, " parameters"]:
    """Root mean square of every entry of a random direction, over its draws.

    :func:`~nas_lightning.analysis.directions.random_direction` draws each unit uniformly from a sphere of the
    radius ||w_u||, so that this is ||w_u|| / sqrt(n_u): :func:`filter_scale` for ``"filter"``, the same over
    whole tensors for ``"layer"``, and 1 everywhere for ``"none"``.

    Args:
        module: Its parameters with ``requires_grad`` count, in the order of ``module.parameters()``.
        normalization: Of the directions.

    Raises:
        ValueError: If `normalization` is unknown.

    Example:
        >>> layer = nn.Linear(1, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [7.0]]))
        >>> direction_scale(layer, "filter"), direction_scale(layer, "layer")
        (array([1., 7., 0., 0.]), array([5., 5., 0., 0.]))
    """
    if normalization == "filter":
        return filter_scale(module)
    if normalization not in ("layer", "none"):
        raise ValueError(f"`normalization` (={normalization!r}) must be 'filter', 'layer' or 'none'")
    with torch.inference_mode(False), torch.no_grad():
        scales = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                squares = parameter.detach().double().square().mean() if parameter.ndim > 1 else 0.0
                size = 1.0 if normalization == "none" else float(squares) ** 0.5
                scales.append(np.full(parameter.numel(), size))
        return np.concatenate(scales)
