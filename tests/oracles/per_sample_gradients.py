"""Gradient statistics the slow way: one backward pass for every sample, plain loops, float64."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class SlowStatistics:
    count: int
    loss: float
    mean_gradient_norm: float
    variance: float
    normalized_variance: float
    variance_by_parameter: dict[str, float]


def every_gradient(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[dict[str, Tensor]]:
    """The gradient of each sample by parameter, in float64, on a copy."""
    module = copy.deepcopy(module).double().eval()
    result = []
    for inputs, targets in batches:
        for x, target in zip(inputs, targets, strict=True):
            module.zero_grad(set_to_none=True)
            functional.cross_entropy(module(x[None].double()), target[None]).backward()  # type: ignore[no-untyped-call]
            result.append(
                {
                    name: p.grad.clone()
                    for name, p in module.named_parameters()
                    if p.requires_grad and p.grad is not None
                }
            )
    return result


def slow_statistics(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> SlowStatistics:
    """E ||g_i - E g_i||^2 by its definition, of every filter times ||w_u||^2 for the normalised one."""
    batches = list(batches)
    weights = {name: parameter.detach().double() for name, parameter in module.named_parameters()}
    gradients = every_gradient(module, batches)
    count = len(gradients)
    by_parameter = {}
    square = normalized = 0.0
    for name in gradients[0]:
        mean = sum((g[name] for g in gradients), torch.zeros_like(gradients[0][name])) / count
        by_parameter[name] = sum(float(((g[name] - mean) ** 2).sum()) for g in gradients) / count
        square += float((mean**2).sum())
        for u in range(len(mean) if mean.ndim > 1 else 0):
            variance = sum(float(((g[name][u] - mean[u]) ** 2).sum()) for g in gradients) / count
            normalized += float((weights[name][u] ** 2).sum()) * variance
    loss = mean_loss(module, batches)
    return SlowStatistics(count, loss, square**0.5, sum(by_parameter.values()), normalized, by_parameter)


def mean_loss(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean cross entropy over single samples, in float64, on a copy."""
    module = copy.deepcopy(module).double().eval()
    losses = [
        float(functional.cross_entropy(module(x[None].double()), target[None]).detach())
        for inputs, targets in batches
        for x, target in zip(inputs, targets, strict=True)
    ]
    return sum(losses) / len(losses)


def slow_tangent_kernel_trace(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean of ||grad z_y||^2, the logit of a sample's label, one backward pass a sample, in float64."""
    module = copy.deepcopy(module).double().eval()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    squares = []
    for inputs, targets in batches:
        for x, target in zip(inputs, targets, strict=True):
            logit = module(x[None].double())[0, target]
            gradients = torch.autograd.grad(logit, parameters, allow_unused=True)
            squares.append(sum(float((g**2).sum()) for g in gradients if g is not None))
    return sum(squares) / len(squares)
