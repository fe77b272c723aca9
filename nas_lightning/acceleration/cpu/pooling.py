"""Max pooling by the kernels of ``pooling.h``, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas_lightning.acceleration.cpu import operators

_LARGEST_WINDOW = 15  # an index in a window is a byte


def can_max_pool(x: Tensor, size: int, padding: int) -> bool:
    """Whether :func:`max_pool` takes these images and this square window; others are left to torch."""
    return 2 * padding <= size <= _LARGEST_WINDOW and x.dtype in (torch.float32, torch.float64)


def max_pool(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """The maximum of every square window, as ``torch.nn.functional.max_pool2d`` computes it."""
    window = [size, stride, padding]
    if torch.is_grad_enabled() and x.requires_grad:
        output: Tensor = _MaxPool.apply(x, window)[0]
        return output
    output, _ = operators.max_pool(x, window, False)
    return output


class _MaxPool(torch.autograd.Function):
    """The maximum of each window, and its index there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: list[int]) -> tuple[Tensor, Tensor]:
        output, indices = operators.max_pool(x, window, True)
        ctx.save_for_backward(indices)
        ctx.shape, ctx.window = list(x.shape), window
        ctx.mark_non_differentiable(indices)
        return output, indices

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        operators.refuse_second_derivative()
        (indices,) = ctx.saved_tensors
        return operators.max_pool_backward(gradient, indices, ctx.shape, ctx.window), None
