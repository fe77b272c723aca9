"""Layers that compute what PyTorch's do in an order that suits a processor's caches.

:func:`replace_layers` puts them into a copy of a network. Names, parameters and values stay.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, library, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.build import kernel_library
from nas_lightning.acceleration.cpu.fused_blocks import update_running_statistics
from nas_lightning.acceleration.cpu.pooling import can_max_pool, max_pool

Sizes: TypeAlias = Any
"""Stride, padding or dilation: of both sides, or of height and width."""


class Convolution(nn.Conv2d):
    """``torch.nn.Conv2d``; with dilation 2, on a CPU, as an undilated convolution of every second pixel.

    A convolution with dilation 2 never mixes pixels of different parity. So the four images of even and odd
    rows and columns go through an undilated one side by side, whose backward pass CPU libraries have tuned
    (with stride 2 only the even pixels are read). The sums are the same, term by term.
    """

    def _conv_forward(
        self, input: Float[Tensor, "batch in_channels height width"], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "batch out_channels _ _"]:
        if self._is_slow_in_half(input):
            with torch.autocast("cpu", enabled=False):
                in_full: Tensor = self._conv_forward(input.float(), weight.float(), bias)
                return in_full
        is_even = input.ndim == 4 and input.shape[2] % 2 == 0 and input.shape[3] % 2 == 0
        if input.device.type != "cpu" or not is_even or not self._is_divisible():
            if self.padding_mode == "zeros":
                return self._convolve(input, weight, bias, self.stride, self.padding, self.dilation)
            plainly: Tensor = super()._conv_forward(input, weight, bias)
            return plainly
        assert not isinstance(self.padding, str)
        padding = (self.padding[0] // 2, self.padding[1] // 2)
        if self.stride == (2, 2):
            return self._convolve(every_second_pixel(input, 0), weight, bias, 1, padding, 1)
        return _phases_from_batch(self._convolve(_phases_to_batch(input), weight, bias, 1, padding, 1))

    def _convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None, *sizes: Sizes) -> Tensor:
        """The convolution with a stride, padding and dilation; its groups are the layer's."""
        stride, padding, dilation = sizes
        result: Tensor = functional.conv2d(input, weight, bias, stride, padding, dilation, self.groups)
        return result

    def _is_divisible(self) -> bool:
        """Whether even and odd pixels can be convolved apart: the padding must not shift them."""
        padding = self.padding
        is_padded = self.padding_mode == "zeros" and not isinstance(padding, str)
        is_padded = is_padded and all(isinstance(size, int) and size % 2 == 0 for size in padding)
        return self.dilation == (2, 2) and self.stride in ((1, 1), (2, 2)) and is_padded

    def _is_slow_in_half(self, input: Tensor) -> bool:
        """Whether bfloat16 would take many times as long as float32: strided or large depthwise on a CPU."""
        is_simple = self.groups == 1 or (self.kernel_size == (3, 3) and self.stride == (1, 1))
        return input.device.type == "cpu" and not is_simple and torch.is_autocast_enabled("cpu")


class BatchNorm(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``; compiled for a CPU, training sums over the pixels of an image first.

    A compiler turns one sum over images and pixels of channels-last data into a single thread's work; sums
    per image are shared by all threads and read an image while it is in the cache.
    """

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The normalised input."""
        is_usual = self.training and self.affine and self.track_running_stats
        if not (is_usual and input.device.type == "cpu" and torch.compiler.is_compiling()):
            return super().forward(input)
        output, mean, variance = _BatchNormTraining.apply(input, self.weight, self.bias, self.eps)
        update_running_statistics(self, mean, variance, input.numel() // input.shape[1])
        return output  # type: ignore[no-any-return]


class MaxPool(nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` of a square window; on a CPU by a kernel that keeps places in single bytes.

    Without that kernel, compiled code calls PyTorch's: a compiler makes a loop that looks at one number at a
    time. The kernel has no second derivative.
    """

    has_kernel: bool = False
    """Whether the kernel of :mod:`nas_lightning.acceleration.cpu` can be called."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:
        """The largest of each window."""
        window = _window(self)
        if self.has_kernel and can_max_pool(input, window[0], window[2]):
            return max_pool(input, *window)
        if input.device.type == "cpu" and torch.compiler.is_compiling():
            return _max_pool(input, *window)[0]  # type: ignore[no-any-return]
        plainly: Tensor = super().forward(input)
        return plainly


def replace_layers(module: nn.Module, kernels: bool = True) -> None:
    """Have a copy's layers computed as this file does.

    Only layers of exactly PyTorch's classes are replaced, and poolings of a square window.
    """
    weight = next((p for p in module.parameters() if p.is_floating_point()), None)
    is_near = weight is not None and weight.device.type == "cpu"
    has_kernel = kernels and is_near and weight is not None and kernel_library(weight.dtype) is not None
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = Convolution
        elif type(layer) is nn.BatchNorm2d:
            layer.__class__ = BatchNorm
        elif type(layer) is nn.MaxPool2d and _is_square(layer):
            layer.__class__ = MaxPool
            layer.has_kernel = has_kernel  # type: ignore[assignment]


def _is_square(layer: nn.MaxPool2d) -> bool:
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    is_usual = (layer.dilation, layer.return_indices, layer.ceil_mode) == (1, False, False)
    return is_usual and all(isinstance(size, int) for size in sizes)


def _window(layer: nn.MaxPool2d) -> list[int]:
    """Size, stride and padding."""
    return [layer.kernel_size, layer.stride, layer.padding]  # type: ignore[list-item]


_WINDOW = "int size, int stride, int padding"


@library.custom_op(
    "nas_lightning::torch_max_pool", mutates_args=(), schema=f"(Tensor x, {_WINDOW}) -> (Tensor, Tensor)"
)
def _max_pool(x: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    output, indices = torch.ops.aten.max_pool2d_with_indices(
        x, [size, size], [stride, stride], [padding, padding]
    )
    return output, indices


@library.custom_op(
    "nas_lightning::torch_max_pool_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, Tensor x, Tensor indices, {_WINDOW}) -> Tensor",
)
def _max_pool_backward(
    gradient: Tensor, x: Tensor, indices: Tensor, size: int, stride: int, padding: int
) -> Tensor:
    window = ([size, size], [stride, stride], [padding, padding], [1, 1], False)
    towards_input: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *window, indices)
    return towards_input


@_max_pool.register_fake
def _(x: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    rows, columns = ((length + 2 * padding - size) // stride + 1 for length in x.shape[2:])
    output = torch.empty_like(x[:, :, :1, :1].expand(-1, -1, rows, columns), memory_format=_format(x))
    return output, torch.empty_like(output, dtype=torch.int64)


@_max_pool_backward.register_fake
def _(gradient: Tensor, x: Tensor, indices: Tensor, size: int, stride: int, padding: int) -> Tensor:
    return torch.empty_like(x, memory_format=_format(x))


def _format(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.window = inputs[1:]


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    x, indices = ctx.saved_tensors
    return _max_pool_backward(gradient, x, indices, *ctx.window), None, None, None


_max_pool.register_autograd(_differentiate, setup_context=_save_for_backward)


class _BatchNormTraining(torch.autograd.Function):
    """Output, mean and (biased) variance of a batch."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = _in_full(inputs)
        means = x.mean((2, 3))
        variances = (x - means[:, :, None, None]).square().mean((2, 3))
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        deviation = torch.rsqrt(variance + eps)
        scale = weight * deviation
        output = x * _per_channel(scale) + _per_channel(bias - mean * scale)
        ctx.save_for_backward(inputs, weight, mean, deviation)
        ctx.mark_non_differentiable(mean, variance)
        return output.to(inputs.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        inputs, weight, mean, deviation = ctx.saved_tensors
        gradient, x = _in_full(gradients[0]), _in_full(inputs)
        centred = x - _per_channel(mean)
        shift = gradient.sum((2, 3)).sum(0)
        scale = (gradient * centred).sum((2, 3)).sum(0) * deviation
        count = inputs.numel() // inputs.shape[1]
        towards_inputs = _per_channel(weight * deviation) * (
            gradient - _per_channel(shift / count) - centred * _per_channel(deviation * scale / count)
        )
        return towards_inputs.to(inputs.dtype), scale, shift, None


def every_second_pixel(
    x: Float[Tensor, "batch channels height width"], first: int
) -> Float[Tensor, "batch channels _ _"]:
    """Every second row and column, from the ``first`` on; the gradient keeps the memory format."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1)[:, first::2, first::2].permute(0, 3, 1, 2)
    return x[:, :, first::2, first::2]


def _in_full(x: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _per_channel(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def _phases_to_batch(x: Tensor) -> Tensor:
    """[batch, channels, height, width] as [4 batch, channels, height / 2, width / 2], by parity."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    phases = rows.permute(2, 4, 0, 1, 3, 5).reshape(4 * batch, height // 2, width // 2, channels)
    return phases.permute(0, 3, 1, 2)


def _phases_from_batch(x: Tensor) -> Tensor:
    """The inverse of :func:`_phases_to_batch`."""
    batch, channels, height, width = x.shape
    phases = x.permute(0, 2, 3, 1).reshape(2, 2, batch // 4, height, width, channels)
    rows = phases.permute(2, 3, 0, 4, 1, 5).reshape(batch // 4, 2 * height, 2 * width, channels)
    return rows.permute(0, 3, 1, 2)
