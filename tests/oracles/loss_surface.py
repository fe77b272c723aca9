"""Directions and loss surfaces written the plain way: filter by filter, point by point, sample by sample.

A deep copy of the module in float64 for every point; batch-norm statistics are read off one batch at a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def filter_normalized(drawn: Tensor, weight: Tensor) -> Tensor:
    """Every filter of the direction at the norm of the weight's filter (Li et al. 2018)."""
    drawn, weight = drawn.double(), weight.detach().double()
    if drawn.dim() < 2:
        return torch.zeros_like(drawn)
    filters = []
    for direction_filter, weight_filter in zip(drawn, weight, strict=True):
        norm = math.sqrt(sum(value**2 for value in direction_filter.flatten().tolist()))
        weight_norm = math.sqrt(sum(value**2 for value in weight_filter.flatten().tolist()))
        filters.append(direction_filter / (norm + 1e-10) * weight_norm)
    return torch.stack(filters)


def layer_normalized(drawn: Tensor, weight: Tensor) -> Tensor:
    if drawn.dim() < 2:
        return torch.zeros_like(drawn).double()
    return filter_normalized(drawn[None], weight.detach()[None])[0]


def not_normalized(drawn: Tensor, weight: Tensor) -> Tensor:
    assert drawn.shape == weight.shape
    return drawn.double()


def displaced_copy(
    module: nn.Module, directions: Sequence[Mapping[str, Tensor]], alpha: float, beta: float
) -> nn.Module:
    moved = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            for step, direction in zip((alpha, beta), directions, strict=True):
                if name in direction:
                    parameter.add_(step * direction[name].double())
    return moved


def batch_statistics(moved: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give every batch norm the average of its batches' mean and variance, weighted by their sizes."""
    layers = [layer for layer in moved.modules() if isinstance(layer, _BatchNorm)]
    total = sum(len(targets) for _, targets in batches)
    averages = [
        (torch.zeros(layer.num_features).double(), torch.zeros(layer.num_features).double())
        for layer in layers
    ]
    for inputs, targets in batches:
        one = copy.deepcopy(moved)
        own = [layer for layer in one.modules() if isinstance(layer, _BatchNorm)]
        for layer in own:
            layer.train()
            layer.momentum = 1.0
        with torch.no_grad():
            one(inputs.double())
        for layer, (mean, variance) in zip(own, averages, strict=True):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            mean += layer.running_mean * len(targets) / total
            variance += layer.running_var * len(targets) / total
    for layer, (mean, variance) in zip(layers, averages, strict=True):
        layer.running_mean, layer.running_var = mean, variance


def loss_and_accuracy(moved: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    losses, hits = [], []
    for inputs, targets in batches:
        for one, target in zip(inputs.double(), targets.tolist(), strict=True):
            with torch.no_grad():
                logits = moved(one[None])[0].tolist()
            largest = max(logits)
            losses.append(largest + math.log(sum(math.exp(v - largest) for v in logits)) - logits[target])
            hits.append(logits[target] == largest)
    return sum(losses) / len(losses), sum(hits) / len(hits)


def loss_surface(
    module: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    directions: Sequence[Mapping[str, Tensor]],
    alphas: Sequence[float],
    betas: Sequence[float],
    reestimated: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy, [alpha, beta]."""
    loss, accuracy = (np.empty((len(alphas), len(betas))) for _ in range(2))
    for row, alpha in enumerate(alphas):
        for column, beta in enumerate(betas):
            moved = displaced_copy(module, directions, alpha, beta)
            if reestimated:
                batch_statistics(moved, batches)
            loss[row, column], accuracy[row, column] = loss_and_accuracy(moved, batches)
    return loss, accuracy
