"""Fused separable blocks: convolution and batch norm in one pass over memory on a CPU.

A block is ReLU, a depthwise convolution (or none), a 1x1 convolution and batch norm. Layer by layer, each
reads and writes the whole batch. ``fused_blocks.c`` takes a block through one image at a time, in a core's
cache; its backward pass recomputes what was not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_lightning.acceleration.cpu.build import kernel_library
from nas_lightning.acceleration.cpu.operators import (
    blocks_backward,
    blocks_evaluation,
    blocks_forward,
    output_shapes,
    refuse_second_derivative,
)

LARGEST_KERNEL = 7
"""Largest depthwise kernel of ``fused_blocks.c``."""


class Block(NamedTuple):
    """The layers of a block behind its ReLU."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.Module


def can_fuse(blocks: Sequence[Block], training: bool) -> bool:
    """Whether :func:`fused_blocks` computes what the layers do.

    Weights must lie on a CPU, all float32 or all float64; norms must be in the mode asked for and have
    weights and running statistics; the geometry must be one of ``fused_blocks.c``; a C compiler must exist.
    Hooks and overridden methods are the caller's to look for.
    """
    if not blocks:
        return False
    dtype = blocks[0].pointwise.weight.dtype
    # Only the first block may be strided: all others are assumed to have the size of their output.
    is_strided = any(depthwise and depthwise.stride != (1, 1) for depthwise, _, _ in blocks[1:])
    fits = not is_strided and all(_can_fuse(block, dtype, training) for block in blocks)
    return fits and kernel_library(dtype) is not None


def _can_fuse(block: Block, dtype: torch.dtype, training: bool) -> bool:
    depthwise, pointwise, norm = block
    layers = [layer for layer in (depthwise, pointwise) if layer is not None]
    if type(norm) is not nn.BatchNorm2d or any(type(layer) is not nn.Conv2d for layer in layers):
        return False  # a subclass may compute something else
    if norm.training != training or not norm.track_running_stats:
        return False
    values = [pointwise.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
    if depthwise is not None:
        values.append(depthwise.weight)
        if not _is_depthwise(depthwise):
            return False
    fits = all(value is not None and _is_plain(value, dtype) for value in values)
    return fits and _is_pointwise(pointwise)


def _is_plain(value: Tensor, dtype: torch.dtype) -> bool:
    return value.dtype == dtype and value.device.type == "cpu" and value.is_contiguous()


def _is_depthwise(layer: nn.Conv2d) -> bool:
    (size, _), (stride, _), (dilation, _) = layer.kernel_size, layer.stride, layer.dilation
    padding = dilation * (size - 1) // 2
    return (
        size % 2 == 1
        and size <= LARGEST_KERNEL
        and layer.groups == layer.in_channels == layer.out_channels
        and (layer.bias, layer.padding_mode, layer.padding) == (None, "zeros", (padding, padding))
        and (layer.kernel_size, layer.stride, layer.dilation)
        == ((size, size), (stride, stride), (dilation, dilation))
    )


def _is_pointwise(layer: nn.Conv2d) -> bool:
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.groups, layer.bias)
    return geometry == ((1, 1), (1, 1), (0, 0), 1, None)


def fused_blocks(
    x: Sequence[Tensor],
    blocks: Sequence[Block],
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> Tensor:
    """Output of blocks; in training, updates the running statistics of their norms.

    Args:
        x: ``[batch, channels, height, width]``, rectified or not; several are concatenated by channel.
        blocks: The blocks, see :func:`can_fuse`.
        factors: Factor of every image's output, ``[batch]``, a constant, in training; None is 1.
        addend: Added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.

    Raises:
        ValueError: If shapes do not fit, or in training a channel has fewer than two values.
        RuntimeError: If a gradient is wanted in evaluation, or a second derivative.
    """
    weights: list[Tensor | None] = []
    sizes: list[int] = []
    for block in blocks:
        depthwise, norm = block.depthwise, _norm_of(block)
        weights += [None if depthwise is None else depthwise.weight, block.pointwise.weight]
        weights += [norm.weight, norm.bias]
        sizes += (1, 1) if depthwise is None else (depthwise.stride[0], depthwise.dilation[0])
    norms = [(_norm_of(block),) for block in blocks]
    return _compute(x, weights, sizes, norms, factors, addend)[0]


def fused_projections(x: Sequence[Tensor], projections: Sequence[Block]) -> list[Tensor]:
    """Outputs of 1x1 convolutions that read the same images, which are read once.

    Args:
        x: As for :func:`fused_blocks`.
        projections: Blocks without a depthwise convolution, independent of each other.

    Raises:
        ValueError, RuntimeError: As by :func:`fused_blocks`.
    """
    norms = [_norm_of(block) for block in projections]
    if len({(norm.eps, norm.weight.dtype) for norm in norms}) > 1:  # one kernel call has one of each
        return [fused_blocks(x, [block]) for block in projections]
    pointwise = _joined([block.pointwise.weight for block in projections])
    weight, bias = _joined([norm.weight for norm in norms]), _joined([norm.bias for norm in norms])
    return _compute(x, [None, pointwise, weight, bias], [1, 1], [norms])


def _joined(values: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(values)) if len(values) > 1 else values[0]


def _norm_of(block: Block) -> nn.BatchNorm2d:
    assert isinstance(block.norm, nn.BatchNorm2d), "can_fuse() was not asked"
    return block.norm


def _compute(
    x: Sequence[Tensor],
    weights: list[Tensor | None],
    sizes: list[int],
    norms: Sequence[Sequence[nn.BatchNorm2d]],
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> list[Tensor]:
    """Outputs of blocks, one for each norm of the last."""
    first, parts = norms[0][0], [norm.num_features for norm in norms[-1]]
    eps, dtype = [own[0].eps for own in norms], first.weight.dtype
    x = [part.to(dtype) for part in x]
    addend = None if addend is None else addend.to(dtype)
    shape = _check_shapes(x, weights, sizes, factors, addend)
    count = shape[0] * shape[2] * shape[3]
    if not first.training:
        return _evaluate(x, weights, parts, sizes, norms, factors, addend)
    if count < 2:
        raise ValueError(f"batch norm needs more than 1 value per channel in training, got {shape}")
    factors = None if factors is None else factors.to(dtype).contiguous()
    outputs: list[Tensor]
    *outputs, statistics = _FusedBlocks.apply(len(x), factors, addend, parts, sizes, eps, *x, *weights)
    start = 0
    for own in norms:
        width = sum(norm.num_features for norm in own)
        for norm in own:
            end = start + norm.num_features
            update_running_statistics(
                norm, statistics[start:end], statistics[start + width : end + width], count
            )
            start = end
        start += width
    return outputs


def _evaluate(
    x: Sequence[Tensor],
    weights: list[Tensor | None],
    parts: list[int],
    sizes: list[int],
    norms: Sequence[Sequence[nn.BatchNorm2d]],
    factors: Tensor | None,
    addend: Tensor | None,
) -> list[Tensor]:
    assert factors is None, "drop path belongs to training"
    tensors = (*x, *weights)
    if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in tensors):
        raise RuntimeError("Fused blocks have no gradient in evaluation mode. Use `torch.no_grad()`.")
    statistics: list[Tensor] = []
    for own in norms:
        statistics += [_joined([norm.running_mean for norm in own])]  # type: ignore[misc]
        statistics += [_joined([norm.running_var for norm in own])]  # type: ignore[misc]
    eps = [own[0].eps for own in norms]
    outputs: list[Tensor] = blocks_evaluation(x, addend, statistics, weights, parts, sizes, eps)
    return outputs


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update a norm's running statistics as a training step of ``torch.nn.BatchNorm2d`` does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share: Any = norm.momentum
    if share is None:
        share = 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


def _check_shapes(
    x: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    factors: Tensor | None,
    addend: Tensor | None,
) -> tuple[int, ...]:
    """Shape of all outputs together, after checking everything that C reads."""
    batch, _, *sides = x[0].shape
    if any((part.shape[0], *part.shape[2:]) != (batch, *sides) for part in x):
        raise ValueError(f"images differ in more than channels: {[tuple(part.shape) for part in x]}")
    channels = sum(part.shape[1] for part in x)
    for depthwise, pointwise in zip(weights[::4], weights[1::4], strict=True):
        assert pointwise is not None
        for weight, own in ((depthwise, 0), (pointwise, 1)):
            if weight is not None and weight.shape[own] != channels:
                raise ValueError(f"{channels} channels do not fit weights of shape {tuple(weight.shape)}")
        channels = pointwise.shape[0]
    shape = output_shapes(x, weights, sizes)[-1]
    if addend is not None and tuple(addend.shape) != shape:
        raise ValueError(f"an addend of shape {tuple(addend.shape)} does not fit an output of shape {shape}")
    if factors is not None and tuple(factors.shape) != (batch,):
        raise ValueError(f"factors of shape {tuple(factors.shape)} do not fit {batch} images")
    return shape


class _FusedBlocks(torch.autograd.Function):
    """Outputs, then mean and biased variance of every block's norm."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: int,
        factors: Tensor | None,
        addend: Tensor | None,
        parts: list[int],
        sizes: list[int],
        eps: list[float],
        *tensors: Tensor | None,
    ) -> Any:
        """The first ``inputs`` of ``tensors`` are the images, the others the weights."""
        x, weights = list(tensors[:inputs]), list(tensors[inputs:])
        results = blocks_forward(x, factors, addend, weights, parts, sizes, eps)
        outputs, saved = results[: len(parts)], results[len(parts) :]
        ctx.save_for_backward(factors, *saved, *tensors)
        ctx.arguments = inputs, sizes, eps
        ctx.mark_non_differentiable(saved[-1])
        return (*outputs, saved[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        inputs, sizes, eps = ctx.arguments
        factors, *tensors = ctx.saved_tensors
        saved, tensors = tensors[: len(eps) + 1], tensors[len(eps) + 1 :]
        x, weights = tensors[:inputs], tensors[inputs:]
        results = blocks_backward(list(gradients[:-1]), x, factors, saved, weights, sizes, eps)
        of_weights = iter(results[inputs:])
        grad_weights = (None if weight is None else next(of_weights) for weight in weights)
        grad_addend = gradients[0] if ctx.needs_input_grad[2] else None
        return None, None, grad_addend, None, None, None, *results[:inputs], *grad_weights
