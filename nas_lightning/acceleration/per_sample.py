"""Sums over instances of the gradient and of its square, out of one backward pass without a hook.

Every layer with parameters is replaced by one whose backward pass puts together the gradients of the single
instances, and hands on their sum as the gradient of the weights. The sum of their squared norms leaves the
pass as the "gradient" of a number that the layer takes as a further input, its probe. So autograd, and a
compiler, see nothing but an ordinary backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from nas_lightning.acceleration.folding import compile_module, sharing_copy
from nas_lightning.analysis.evaluation import evaluating, sample_losses
from nas_lightning.analysis.per_sample_gradients import convolution_weights, norm_weights


class FusedGradients:
    """Gradient sums of a module's instances in evaluation mode, in one compiled backward pass.

    The gradient of an instance is written out where it is needed for the mean anyhow; a linear layer of one
    position is measured by the product of the norms of its input and its gradient instead, which needs no
    instance's gradient.

    Args:
        module: Maps inputs to logits. Its layers may be convolutions, batch norms and linear layers, each
            called once; see :class:`~nas_lightning.analysis.per_sample_gradients.PerSampleGradients`.
        parameters: The parameters that count, by full name.
        compiled: Whether to compile; without it, hooks on the layers are as fast.
    """

    def __init__(
        self, module: nn.Module, parameters: Mapping[str, nn.Parameter], *, compiled: bool = True
    ) -> None:
        self._copy = sharing_copy(module).eval()
        self._parameters = dict(parameters)
        device = next(iter(parameters.values())).device
        self._probes = {
            name: torch.zeros((), dtype=torch.float64, device=device, requires_grad=True)
            for name in parameters
        }
        for name in dict.fromkeys(name.rpartition(".")[0] for name in parameters):
            layer = self._copy.get_submodule(name)
            parent, _, child = name.rpartition(".")
            prefix = f"{name}." if name else ""
            # A parameter that does not count has a probe that nobody asks.
            probes = [
                None if tensor is None else self._probes.get(f"{prefix}{own}", torch.zeros((), device=device))
                for own, tensor in (("weight", layer.weight), ("bias", layer.bias))
            ]
            measured = _measured(layer, *probes)
            if name:
                setattr(self._copy.get_submodule(parent), child, measured)
            else:
                self._copy = measured
        if compiled:
            compile_module(self._copy)
        self._size: int | None = None

    def takes(self, size: int) -> bool:
        """Whether a batch of this size is compiled for: the first size asked for is."""
        if self._size is None:
            self._size = size
        return size == self._size

    def sums(
        self, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Run a batch forward and backward.

        Args:
            inputs: The batch; a batch of another size, see :meth:`takes`, is compiled for anew.
            targets: Its classes.

        Returns:
            sum_i ||grad f_i||^2, float64, and sum_i grad f_i, by parameter.
        """
        names = list(self._parameters)
        wanted = [self._parameters[name] for name in names] + [self._probes[name] for name in names]
        if inputs.ndim == 4 and inputs.device.type == "cpu":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with evaluating(self._copy), torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
            losses = sample_losses(self._copy, inputs, targets)
            found = torch.autograd.grad(losses.sum(), wanted)
        gradients, squares = found[: len(names)], found[len(names) :]
        return dict(zip(names, squares, strict=True)), dict(zip(names, gradients, strict=True))


def _measured(layer: nn.Module, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    assert weight is not None
    if isinstance(layer, nn.Conv2d):
        return _Convolution(layer, weight, bias)
    if isinstance(layer, nn.Linear):
        return _Linear(layer, weight, bias)
    assert isinstance(layer, _BatchNorm)
    assert bias is not None
    return _Norm(layer, weight, bias)


class _Convolution(nn.Module):
    """A convolution whose backward pass measures its instances."""

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.layer, self.probes = layer, (weight, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        layer = self.layer
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return _ConvolutionSums.apply(inputs, layer.weight, layer.bias, *self.probes, *geometry)  # type: ignore[no-any-return]


class _ConvolutionSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_probe: Tensor,
        bias_probe: Tensor | None,
        *geometry: Any,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.geometry, ctx.has_bias = geometry, bias is not None
        return functional.conv2d(inputs, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        gradient = gradients[0]
        towards_inputs = None
        if ctx.needs_input_grad[0]:
            towards_inputs, _, _ = torch.ops.aten.convolution_backward(
                gradient,
                inputs,
                weight,
                None,
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                groups,
                [True, False, False],
            )
        weights = convolution_weights(inputs, gradient, weight.shape, stride, padding, dilation, groups)
        bias = gradient.sum((2, 3)) if ctx.has_bias else None
        return (towards_inputs, *_sums(weights, bias), None, None, None, None)


class _Norm(nn.Module):
    """A batch norm with running statistics whose backward pass measures its instances."""

    def __init__(self, layer: _BatchNorm, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.layer, self.probes = layer, (weight, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        layer = self.layer
        assert layer.running_var is not None
        deviation = torch.rsqrt(layer.running_var + layer.eps)
        return _NormSums.apply(inputs, layer.weight, layer.bias, *self.probes, layer.running_mean, deviation)  # type: ignore[no-any-return]


class _NormSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        weight_probe: Tensor,
        bias_probe: Tensor,
        mean: Tensor,
        deviation: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, mean, deviation)
        scale = weight * deviation
        shape = (-1, *[1] * (inputs.ndim - 2))
        return inputs * scale.view(shape) + (bias - mean * scale).view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, deviation = ctx.saved_tensors
        gradient = gradients[0]
        scale, shift = norm_weights(inputs, gradient, mean, deviation)
        towards_inputs = gradient * (weight * deviation).view(-1, *[1] * (inputs.ndim - 2))
        return (towards_inputs, *_sums(scale, shift), None, None)


class _Linear(nn.Module):
    """A linear layer whose backward pass measures its instances."""

    def __init__(self, layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.layer, self.probes = layer, (weight, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return _LinearSums.apply(inputs, self.layer.weight, self.layer.bias, *self.probes)  # type: ignore[no-any-return]


class _LinearSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_probe: Tensor,
        bias_probe: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return functional.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        gradient = gradients[0]
        rows, columns = (x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x in (gradient, inputs))
        bias = rows.sum(1) if ctx.has_bias else None
        towards_inputs = gradient @ weight if ctx.needs_input_grad[0] else None
        positions = rows.shape[1]
        if positions**2 * sum(weight.shape) < weight.numel():
            # Gram: ||sum_p g_p x_p^T||^2 = <G G^T, X X^T>, without the instances' gradients themselves.
            first, second = (values.double() @ values.double().mT for values in (rows, columns))
            squares = (first * second).sum()
            total = torch.einsum("npo,npi->oi", rows, columns)
            shift, shift_squares = (None, None) if bias is None else (bias.sum(0), _squares(bias))
            return (towards_inputs, total, shift, squares, shift_squares)
        return (towards_inputs, *_sums(torch.bmm(rows.mT, columns), bias))


def _sums(
    weights: Float[Tensor, "batch *shape"], bias: Float[Tensor, "batch channels"] | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Sum over instances of both gradients, then of their squares."""
    if bias is None:
        return weights.sum(0), None, _squares(weights), None
    return weights.sum(0), bias.sum(0), _squares(weights), _squares(bias)


def _squares(gradients: Tensor) -> Tensor:
    # Squares overflow long before gradients do.
    return gradients.double().square().sum()
