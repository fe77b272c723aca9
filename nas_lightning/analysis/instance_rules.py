"""What a layer's input and the gradient of its output say of the gradient of every instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Rule: TypeAlias = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
"""Gradients of a layer's parameters for every instance, from the layer, its input and the gradient of its
output: ``[instances, *shape]`` by the parameter's name in the layer."""


def convolution_weights(
    inputs: Float[Tensor, "batch in_channels in_height in_width"],
    gradient: Float[Tensor, "batch out_channels out_height out_width"],
    shape: Sequence[int],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Float[Tensor, "batch out_channels _ _ _"]:
    """Gradient of a convolution's weights for every instance.

    Args:
        inputs: Input of the convolution.
        gradient: Gradient of the loss with respect to its output.
        shape: Shape of the weights: (out_channels, in_channels / groups, height, width).
        stride: As the convolution's.
        padding: Zeros added on each side.
        dilation: As the convolution's.
        groups: As the convolution's.

    Returns:
        The gradients.
    """
    batch, kernel = len(inputs), shape[2:]
    if tuple(kernel) == (1, 1) and groups == 1 and padding == (0, 0):
        strided = inputs[:, :, :: stride[0], :: stride[1]]
        return torch.bmm(gradient.flatten(2), strided.flatten(2).mT).view(batch, *shape)
    if groups == shape[0] == inputs.shape[1] and torch.compiler.is_compiling():
        # Depthwise: sums of products with the shifted image, which a compiler makes one loop of.
        padded = functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
        height, width = gradient.shape[2:]
        taps = [
            (padded[:, :, row : row + height * stride[0], column : column + width * stride[1]])[
                :, :, :: stride[0], :: stride[1]
            ]
            for row in range(0, kernel[0] * dilation[0], dilation[0])
            for column in range(0, kernel[1] * dilation[1], dilation[1])
        ]
        return torch.stack([(gradient * tap).sum((2, 3)) for tap in taps], dim=2).view(batch, *shape)
    # The instances side by side, as groups of one convolution: none shares a weight with another.
    _, weight, _ = torch.ops.aten.convolution_backward(
        gradient.reshape(1, -1, *gradient.shape[2:]),
        inputs.reshape(1, -1, *inputs.shape[2:]),
        inputs.new_empty(()).expand(batch * shape[0], *shape[1:]),  # only its shape is read
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        batch * groups,
        [False, True, False],
    )
    values: Tensor = weight.view(batch, *shape)
    return values


def _convolution(
    layer: nn.Conv2d,
    inputs: Float[Tensor, "batch in_channels in_height in_width"],
    gradient: Float[Tensor, "batch out_channels out_height out_width"],
) -> dict[str, Tensor]:
    """Weight [batch, out_channels, in_channels / groups, height, width] and bias of a convolution."""
    assert not isinstance(layer.padding, str)
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    values = {"weight": convolution_weights(inputs, gradient, layer.weight.shape, *geometry)}
    if layer.bias is not None:
        values["bias"] = gradient.sum((2, 3))
    return values


def norm_weights(
    inputs: Float[Tensor, "batch channels *size"],
    gradient: Float[Tensor, "batch channels *size"],
    mean: Tensor | None,
    deviation: Float[Tensor, " channels"],
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch channels"]]:
    """Gradient of a batch norm's scale and shift for every instance, with running statistics.

    Args:
        inputs: Input of the batch norm.
        gradient: Gradient of the loss with respect to its output.
        mean: Running mean of each channel.
        deviation: Reciprocal of the running standard deviation of each channel.

    Returns:
        The gradients of scale and shift.
    """
    assert mean is not None
    positions = tuple(range(2, gradient.ndim))
    shift = gradient.sum(positions) if positions else gradient
    product = (gradient * inputs).sum(positions) if positions else gradient * inputs
    return (product - mean * shift) * deviation, shift


def _batch_norm(
    layer: _BatchNorm,
    inputs: Float[Tensor, "batch channels *size"],
    gradient: Float[Tensor, "batch channels *size"],
) -> dict[str, Tensor]:
    """Scale [batch, channels] and shift of a batch norm with running statistics."""
    assert layer.running_var is not None
    scale, shift = norm_weights(
        inputs, gradient, layer.running_mean, torch.rsqrt(layer.running_var + layer.eps)
    )
    return {"weight": scale, "bias": shift}


def _linear(
    layer: nn.Linear,
    inputs: Float[Tensor, "batch *_ in_features"],
    gradient: Float[Tensor, "batch *_ classes"],
) -> dict[str, Tensor]:
    """Weight [batch, out_features, in_features] and bias of a linear layer."""
    rows, columns = (x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x in (gradient, inputs))
    values = {"weight": torch.bmm(rows.mT, columns)}
    if layer.bias is not None:
        values["bias"] = rows.sum(1)
    return values


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer, if it has one; a subclass that computes something else has none.

    Args:
        layer: Any layer.
    """
    forward = type(layer).forward
    same_function = getattr(type(layer), "same_function", False)  # a subclass's word for it
    if isinstance(layer, nn.Conv2d):
        is_plain = forward is nn.Conv2d.forward and type(layer)._conv_forward is nn.Conv2d._conv_forward
        is_plain = is_plain or same_function
        is_padded = layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        return _convolution if is_plain and not is_padded else None
    if isinstance(layer, _BatchNorm):
        is_plain = same_function or forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        return _batch_norm if is_plain else None
    return _linear if forward is nn.Linear.forward else None
