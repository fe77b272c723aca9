"""A network whose second derivatives are cheap: convolutions and batch norms that differentiate twice.

PyTorch differentiates a convolution's backward pass with one convolution for every group, which for a
depthwise convolution means one for every channel, and batch norm's backward pass in evaluation mode with a
dozen elementwise operations. Here both are a handful of the library's own kernels.

With y = w * x and cotangent g, the backward pass is (w^T * g, x^T * g). Its own derivatives, for cotangents u
of the first and v of the second, are u's convolution w * u + v * x towards g, the transposed one v^T * g
towards x, and u^T * g towards w. Together with the pass itself and the two of ordinary backward, a product
with the Hessian takes eight convolutions where a gradient takes three: the gradient of the weights, which
would be the ninth, enters no product. Of several products with one graph, each but the first takes six.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.acceleration.accelerated import why_plain
from nas_lightning.acceleration.copies import sharing_copy
from nas_lightning.acceleration.fused_network import FusedNetwork
from nas_lightning.acceleration.layers import Convolution, Sizes
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.network import CellNetwork

Window: TypeAlias = tuple[list[int], list[int], list[int], int]
"""Stride, padding, dilation and groups of a convolution."""


def twice_differentiable(network: nn.Module) -> Callable[[Tensor], Any]:
    """A network in evaluation mode, for gradients of gradients.

    The result computes what the network computes, up to rounding, and shares every tensor with it; the
    network stays as it is. A product with the Hessian of a network of cells takes half of the time.
    Convolutions and batch norms are replaced where their class is exactly ``nn.Conv2d`` without bias or
    ``nn.BatchNorm2d``; other layers stay.

    Pitfall: a gradient that is recorded for another one (``create_graph=True``) is zero in the weights of
    these layers, because a product needs only its derivative, which is right, and not the gradient itself.

    Args:
        network: Any module. One with hooks is returned as it is.

    Returns:
        Maps inputs to what the network maps them to in evaluation mode.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten())
        >>> loss = twice_differentiable(network)(torch.ones(1, 1, 1, 1)).square().sum()
        >>> (gradient,) = torch.autograd.grad(loss, network[0].weight, create_graph=True)
        >>> torch.autograd.grad(gradient.sum(), network[0].weight)[0].item()
        2.0
    """
    return network if why_plain(network) is not None else _TwiceDifferentiable(network)


class _TwiceDifferentiable:
    """A copy of a network whose layers differentiate twice."""

    def __init__(self, network: nn.Module) -> None:
        self._module = sharing_copy(network).eval()
        if isinstance(self._module, CellNetwork) and all(type(cell) is Cell for cell in self._module.cells):
            self._module = FusedNetwork(self._module, training=False, kinds=())
        for layer in self._module.modules():
            if type(layer) is nn.Conv2d and layer.bias is None and _has_usual_padding(layer):
                layer.__class__ = _Convolution
            elif type(layer) is nn.BatchNorm2d and layer.affine and layer.running_mean is not None:
                layer.__class__ = _BatchNorm

    def __call__(self, inputs: Float[Tensor, "batch *_"]) -> Any:
        """Output of the network in evaluation mode."""
        if inputs.device.type == "cpu" and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self._module(inputs)


def _has_usual_padding(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class _Convolution(Convolution):
    """A convolution without bias that differentiates twice."""

    def _convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Sizes) -> Tensor:
        stride, padding, dilation = ([size, size] if isinstance(size, int) else list(size) for size in sizes)
        result: Tensor = _Convolve.apply(input, weight, (stride, padding, dilation, self.groups))
        return result


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm with running statistics that differentiates twice."""

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = _Normalize.apply(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.eps
        )
        return result


class _Convolve(torch.autograd.Function):
    """y = w * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, window: Window) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window = window
        return _convolution(x, weight, window)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        arguments = (gradients[0], x, weight, ctx.window, ctx.needs_input_grad[:2])
        if torch.is_grad_enabled():
            found = _ConvolveBackward.apply(*arguments)
        else:
            found = _convolution_backward(*arguments)
        return *found, None


class _ConvolveBackward(torch.autograd.Function):
    """w^T * g, and zero for x^T * g."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(gradient, x, weight)
        ctx.window = window
        ctx.set_materialize_grads(False)
        towards_x = (
            _convolution_backward(gradient, x, weight, window, (True, False))[0] if wanted[0] else None
        )
        return towards_x, _zeros(weight) if wanted[1] else None

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v = cotangents
        gradient, x, weight = ctx.saved_tensors
        _, wants_x, wants_weight, *_ = ctx.needs_input_grad
        towards_gradient = towards_x = towards_weight = None
        if u is not None:
            towards_gradient = _convolution(u, weight, ctx.window)
            if wants_weight:
                towards_weight = _convolution_backward(gradient, u, weight, ctx.window, (False, True))[1]
        if v is not None:
            towards_gradient = _sum(towards_gradient, _convolution(x, v, ctx.window))
            if wants_x:
                towards_x = _convolution_backward(gradient, x, v, ctx.window, (True, False))[0]
        return towards_gradient, towards_x, towards_weight, None, None


class _Normalize(torch.autograd.Function):
    """z = gamma c (y - mean) + beta with c = 1 / sqrt(variance + eps)."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(y, gamma, mean, variance)
        ctx.eps = eps
        return _norm(y, gamma, beta, mean, variance, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, gamma, mean, variance = ctx.saved_tensors
        arguments = (gradients[0], y, gamma, mean, variance, ctx.eps, list(ctx.needs_input_grad[:3]))
        if torch.is_grad_enabled():
            found = _NormalizeBackward.apply(*arguments)
        else:
            found = _norm_backward(*arguments)
        return *found, None, None, None


class _NormalizeBackward(torch.autograd.Function):
    """gamma c g, and zeros for sum g c (y - mean) and sum g."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        y: Tensor,
        gamma: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        wanted: list[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gradient, y, gamma, mean, variance)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        towards_y = _norm(gradient, gamma, None, torch.zeros_like(mean), variance, eps) if wanted[0] else None
        return towards_y, *(_zeros(gamma) if own else None for own in wanted[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v, shift = cotangents
        gradient, y, gamma, mean, variance = ctx.saved_tensors
        _, wants_y, wants_gamma, *_ = ctx.needs_input_grad
        zero = torch.zeros_like(mean)
        towards_gradient = towards_y = towards_gamma = None
        if u is not None:
            towards_gradient = _norm(u, gamma, None, zero, variance, ctx.eps)
            if wants_gamma:
                mask = [False, True, False]
                towards_gamma = _norm_backward(gradient, u, gamma, zero, variance, ctx.eps, mask)[1]
        if v is not None or shift is not None:
            v = zero if v is None else v
            towards_gradient = _sum(towards_gradient, _norm(y, v, shift, mean, variance, ctx.eps))
            if wants_y:
                towards_y = _norm(gradient, v, None, zero, variance, ctx.eps)
        return towards_gradient, towards_y, towards_gamma, *(None,) * 4


def _convolution(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    stride, padding, dilation, groups = window
    arguments = (stride, padding, dilation, False, [0, 0], groups)
    result: Tensor = torch.ops.aten.convolution(x, weight, None, *arguments)
    return result


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = window
    arguments = (None, stride, padding, dilation, False, [0, 0], groups, [*wanted, False])
    towards_x, towards_weight, _ = torch.ops.aten.convolution_backward(gradient, x, weight, *arguments)
    return towards_x, towards_weight


def _norm(
    y: Tensor, gamma: Tensor, beta: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    arguments = (gamma, beta, mean, variance, False, 0.0, eps)
    result: Tensor = torch.ops.aten.native_batch_norm(y, *arguments)[0]
    return result


def _norm_backward(
    gradient: Tensor,
    y: Tensor,
    gamma: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    wanted: list[bool],
) -> tuple[Tensor | None, ...]:
    of_batch = mean.new_empty(0)  # no statistics of a batch; a GPU takes no None for them
    arguments = (gamma, mean, variance, of_batch, of_batch, False, eps, wanted)
    found: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(gradient, y, *arguments)
    return found


def _zeros(like: Tensor) -> Tensor:
    """Zeros of a shape that take no memory."""
    return like.new_zeros(()).expand_as(like)


def _sum(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second
