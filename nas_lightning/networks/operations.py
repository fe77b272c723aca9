"""Primitive operations: what an edge of a cell computes.

The operations of DARTS (Liu et al., ICLR 2019, section 3.1 and the authors' code), those that NASNet,
AmoebaNet and ENAS cells need (``sep_conv_7x7``, ``conv_7x1_1x7``), SETN's ``conv_3x1_1x3``, EEEA-Net's
inverted residuals, NASP's and NAS-Bench-201's plain convolutions, NASP's larger poolings, RobustDARTS's
noise, and the user's own. Every operation maps ``[batch, channels, height, width]`` to as many
channels, at the same resolution or, with stride 2, at half of it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.cells.operations import BUILT_IN_OPERATIONS, declare_operation

OperationFactory = Callable[[int, int, bool], nn.Module]
"""Makes the operation of one edge from (channels, stride, affine): channels in and out, stride 1 or 2."""


class _Layers(nn.Sequential):
    """Named layers, one after the other."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))


class ReLUConvBN(_Layers):
    """ReLU, 1x1 convolution, batch norm: how a cell brings an input to its own channels.

    Args:
        input_channels: Channels of the input.
        channels: Channels of the output.
        affine: Whether the batch norm has scale and shift.
    """

    def __init__(self, input_channels: int, channels: int, affine: bool = True) -> None:
        super().__init__(
            relu=nn.ReLU(),
            convolution=nn.Conv2d(input_channels, channels, 1, bias=False),
            norm=nn.BatchNorm2d(channels, affine=affine),
        )


class SeparableConvolution(_Layers):
    """Twice: ReLU, depthwise convolution, 1x1 convolution, batch norm; the first one carries the stride.

    Args:
        channels: Channels of input and output.
        kernel_size: Height and width of the depthwise kernels, an odd number.
        stride: 1 or 2.
        affine: Whether the batch norms have scale and shift.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__(
            relu_1=nn.ReLU(),
            depthwise_1=_depthwise(channels, kernel_size, stride),
            pointwise_1=_pointwise(channels),
            norm_1=nn.BatchNorm2d(channels, affine=affine),
            relu_2=nn.ReLU(inplace=True),
            depthwise_2=_depthwise(channels, kernel_size, 1),
            pointwise_2=_pointwise(channels),
            norm_2=nn.BatchNorm2d(channels, affine=affine),
        )


class SingleSeparableConvolution(_Layers):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm: one half of a separable convolution.

    The usual ``sep_conv_3x3`` is two of them, one after the other. Repositories that have both call this one
    ``sep_conv_3x3_single``.

    Args:
        channels: Channels of input and output.
        kernel_size: Height and width of the depthwise kernels, an odd number.
        stride: 1 or 2.
        affine: Whether the batch norm has scale and shift.
    """

    dilation = 1

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__(
            relu=nn.ReLU(),
            depthwise=_depthwise(channels, kernel_size, stride, self.dilation),
            pointwise=_pointwise(channels),
            norm=nn.BatchNorm2d(channels, affine=affine),
        )


class DilatedConvolution(SingleSeparableConvolution):
    """ReLU, depthwise convolution with dilation 2, 1x1 convolution, batch norm."""

    dilation = 2


class PlainConvolution(_Layers):
    """ReLU, convolution, batch norm.

    ``conv_3x3`` of NASP and of NNI's spaces, and in the same order ``nor_conv_3x3`` of NAS-Bench-201 (Dong
    and Yang, ICLR 2020).

    Args:
        channels: Channels of input and output.
        kernel_size: Height and width of the kernels, an odd number.
        stride: 1 or 2.
        affine: Whether the batch norm has scale and shift.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__(
            relu=nn.ReLU(),
            convolution=nn.Conv2d(
                channels, channels, kernel_size, stride, padding=kernel_size // 2, bias=False
            ),
            norm=nn.BatchNorm2d(channels, affine=affine),
        )


class RowColumnConvolution(_Layers):
    """ReLU, convolution of a row (1 x length), convolution of a column (length x 1), batch norm.

    Args:
        channels: Channels of input and output.
        length: Length of row and column, an odd number.
        stride: 1 or 2, along the row in the first convolution, along the column in the second.
        affine: Whether the batch norm has scale and shift.
    """

    def __init__(self, channels: int, length: int, stride: int, affine: bool = True) -> None:
        half = length // 2
        super().__init__(
            relu=nn.ReLU(),
            row=nn.Conv2d(channels, channels, (1, length), (1, stride), (0, half), bias=False),
            column=nn.Conv2d(channels, channels, (length, 1), (stride, 1), (half, 0), bias=False),
            norm=nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduction(nn.Module):
    """Halves the resolution: two 1x1 convolutions of stride 2, the second one shifted by one pixel.

    Each makes half of the output channels, so that together they read every second row and column of both
    parities (Liu et al., ICLR 2019, the authors' code). Height and width must be even.

    Args:
        input_channels: Channels of the input.
        channels: Channels of the output, an even number.
        affine: Whether the batch norm has scale and shift.
    """

    def __init__(self, input_channels: int, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.convolution_even = nn.Conv2d(input_channels, channels // 2, 1, stride=2, bias=False)
        self.convolution_odd = nn.Conv2d(input_channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch _ _ _"]:
        """Even pixels through one convolution, odd pixels through the other, then batch norm."""
        x = self.relu(x)
        halves = self.convolution_even(x), self.convolution_odd(x[:, :, 1:, 1:])
        return self.norm(torch.cat(halves, dim=1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """EEEA-Net's inverted residual with expansion 1 (Termritthikun et al., 2021, and the authors' code).

    ReLU, pointwise convolution, batch norm, ReLU, depthwise convolution, batch norm, pointwise convolution,
    batch norm; at stride 1 the input is added.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.layers = _Layers(
            relu_1=nn.ReLU(),
            expansion=_pointwise(channels),
            norm_1=nn.BatchNorm2d(channels, affine=affine),
            relu_2=nn.ReLU(inplace=True),
            depthwise=_depthwise(channels, kernel_size, stride),
            norm_2=nn.BatchNorm2d(channels, affine=affine),
            projection=_pointwise(channels),
            norm_3=nn.BatchNorm2d(channels, affine=affine),
        )

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """The layers, plus the input at stride 1."""
        out: Tensor = self.layers(x)
        return x + out if self.stride == 1 else out


class Zero(nn.Module):
    """The operation ``none``: zero at the resolution of the edge; networks leave it out."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """Zero for every stride-th pixel."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """The operation ``noise``: normal noise instead of the input, in training; zero in evaluation.

    Space S4 of RobustDARTS (Zela et al., ICLR 2020, section 3) offers it to catch searches that prefer it.
    The authors' network draws N(0, 1) in evaluation as well. Here evaluation takes its mean, zero, so that a
    trained network is a function and its loss surface exists. Nothing passes from input to output, so for
    liveness the edge does not exist, as one of ``none``.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """Noise for every stride-th pixel."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        return torch.randn_like(pixels) if self.training else torch.zeros_like(pixels)


def _depthwise(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel_size - 1) // 2
    return nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)


def _pointwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1, bias=False)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, affine)


def _max_pool(channels: int, size: int, stride: int, affine: bool) -> nn.Module:
    return nn.MaxPool2d(size, stride, padding=size // 2)


def _average_pool(channels: int, size: int, stride: int, affine: bool) -> nn.Module:
    # The mean is over the pixels inside the image.
    return nn.AvgPool2d(size, stride, padding=size // 2, count_include_pad=False)


def _of_size(make: Callable[[int, int, int, bool], nn.Module], size: int) -> OperationFactory:
    """The factory of a kind of operation for one kernel size."""
    return lambda channels, stride, affine: make(channels, size, stride, affine)


_SIZED: tuple[tuple[str, Callable[[int, int, int, bool], nn.Module], tuple[int, ...]], ...] = (
    ("max_pool_{0}x{0}", _max_pool, (3, 5, 7)),
    ("avg_pool_{0}x{0}", _average_pool, (3, 5, 7)),
    ("sep_conv_{0}x{0}", SeparableConvolution, (3, 5, 7)),
    ("sep_conv_{0}x{0}_single", SingleSeparableConvolution, (3, 5, 7)),
    ("dil_conv_{0}x{0}", DilatedConvolution, (3, 5)),
    ("conv_{0}x1_1x{0}", RowColumnConvolution, (3, 7)),
    ("conv_{0}x{0}", PlainConvolution, (1, 3, 5)),
    ("nor_conv_{0}x{0}", PlainConvolution, (1, 3, 5, 7)),
    ("inv_res_{0}x{0}", InvertedResidual, (3, 5)),
)

_MADE: dict[str, OperationFactory] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "noise": lambda channels, stride, affine: Noise(stride),
    "skip_connect": _skip,
} | {name.format(size): _of_size(make, size) for name, make, sizes in _SIZED for size in sizes}

BUILT_IN_FACTORIES: dict[str, OperationFactory] = {name: _MADE[name] for name in BUILT_IN_OPERATIONS}
"""The built-in operations by name."""

_registered: dict[str, OperationFactory] = {}


def register_operation(name: str, factory: OperationFactory) -> None:
    """Make an operation of your own valid in genotypes, specs, drawings and networks.

    The operation reads a node of a cell, ``[batch, channels, height, width]``, and returns as many channels
    at the resolution divided by the stride (rounded up). A module whose class sets ``rectified_input = True``
    is fed with the ReLU of the node. In a network every parameter of it must take part in the output, as
    distributed training demands.

    A module that ``import_operations`` imports may hold::

        def convolution(channels, stride, affine):
            return nn.Conv2d(channels, channels, 3, stride, padding=1)

        register_operation("my_conv_3x3", convolution)

    Args:
        name: Name used in genotypes.
        factory: Called as ``factory(channels, stride, affine)`` for every edge that carries the operation;
            ``affine`` says whether batch norm has scale and shift (in trained networks always).

    Raises:
        ValueError: If the name is not valid, belongs to a built-in operation, or is registered with another
            factory. Registering the same factory again changes nothing.
    """
    if not callable(factory):
        raise ValueError(
            f"operation {name!r}: the factory {factory!r} must be callable (channels, stride, affine)"
        )
    if name in _registered and _registered[name] is not factory:
        raise ValueError(
            f"operation {name!r} is already registered with another factory: choose another name"
        )
    declare_operation(name)
    _registered[name] = factory


def build_operation(name: str, channels: int, stride: int, affine: bool = True) -> nn.Module:
    """Make the operation of one edge.

    Args:
        name: A built-in or registered operation.
        channels: Channels of its input and output.
        stride: 1, or 2 to halve the resolution.
        affine: Whether batch norm has scale and shift.

    Returns:
        The module; one that was registered may expect the ReLU of the node, see :func:`register_operation`.

    Raises:
        ValueError: If the name is not known, or a registered operation does not return a module that keeps
            the channels and divides the resolution by the stride.
    """
    if name in BUILT_IN_FACTORIES:
        return BUILT_IN_FACTORIES[name](channels, stride, affine)
    if name not in _registered:
        known = ", ".join((*BUILT_IN_FACTORIES, *_registered))
        raise ValueError(f"operation {name!r} is not registered; known are {known}")
    operation = _registered[name](channels, stride, affine)
    return _checked_operation(name, operation, channels, stride)


def _checked_operation(name: str, operation: object, channels: int, stride: int) -> nn.Module:
    """A registered operation, refused before anything is trained if it returns the wrong shape."""
    made = f"operation {name!r} (channels={channels}, stride={stride})"
    if not isinstance(operation, nn.Module):
        raise ValueError(f"{made}: the factory returned {operation!r}; it must return a torch.nn.Module")
    trial = copy.deepcopy(operation).eval()
    example = next((p for p in trial.parameters() if p.is_floating_point()), torch.empty(0))
    expected = (2, channels, 8 // stride, 8 // stride)
    try:
        with torch.no_grad():
            output = trial(example.new_zeros(2, channels, 8, 8))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{made} fails on an input of shape (2, {channels}, 8, 8): {reason}") from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != expected:
        raise ValueError(
            f"{made} returns {shape} for an input of shape (2, {channels}, 8, 8); it must return {expected}"
        )
    return operation
