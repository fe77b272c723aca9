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
    mean_gradient_norm: float
    variance: float
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
    """E ||g_i - E g_i||^2 by its definition."""
    gradients = every_gradient(module, batches)
    count = len(gradients)
    by_parameter = {}
    square = 0.0
    for name in gradients[0]:
        mean = sum((g[name] for g in gradients), torch.zeros_like(gradients[0][name])) / count
        by_parameter[name] = sum(float(((g[name] - mean) ** 2).sum()) for g in gradients) / count
        square += float((mean**2).sum())
    return SlowStatistics(count, square**0.5, sum(by_parameter.values()), by_parameter)


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
