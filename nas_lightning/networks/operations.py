"""Primitive operations: what an edge of a cell computes.

The operations of DARTS (Liu et al., ICLR 2019, section 3.1 and the authors' code), those that NASNet,
AmoebaNet and ENAS cells need (``sep_conv_7x7``, ``conv_7x1_1x7``), SETN's ``conv_3x1_1x3`` and EEEA-Net's
inverted residuals, and the user's own.

Most convolutional operations begin with a ReLU of their input. That ReLU belongs to the node that is read,
not to the edge: it is the same for all edges that read the node, so the cell computes it once. Operations
that expect it carry the class attribute ``rectified_input = True``; all others read the node as it is. Those
that can be computed in one pass over memory (``can_take_one_pass``) then take the ReLU into it.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.acceleration.cpu.stages import (
    Stage,
    can_compute_stages,
    compute_stages,
    has_own_ways,
    is_altered,
)
from nas_lightning.acceleration.layers import BatchNorm, Convolution, MaxPool, every_second_pixel
from nas_lightning.cells.operations import declare_operation

OperationFactory = Callable[[int, int, bool], nn.Module]
"""Makes the operation of one edge from (channels, stride, affine): channels in and out, stride 1 or 2."""


_KINDS: dict[type[nn.Module], str] = {Convolution: "C", BatchNorm: "N", nn.ReLU: "R"}
"""Layers that stages consist of."""


class RectifiedSequential(nn.Sequential):
    """Named layers in sequence, to be fed with the ReLU of a node."""

    rectified_input: ClassVar[bool] = True

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))


class ConvolutionStages(RectifiedSequential):
    """Stages of ReLU, depthwise convolution (or none), 1x1 convolution and batch norm."""

    def stages(self) -> tuple[Stage, ...]:
        """The layers, by stages; none if a layer has been added, taken away or altered."""
        layers = list(self.children())
        if not torch.compiler.is_compiling():
            kinds = "".join(_KINDS.get(type(layer), "?") for layer in layers)
            if kinds not in ("CN", "CCN", "CCNRCCN") or any(is_altered(layer) for layer in layers):
                return ()
        found: list[Stage] = []
        convolutions: list[Convolution] = []
        for layer in layers:
            if isinstance(layer, Convolution):
                convolutions.append(layer)
            elif isinstance(layer, BatchNorm):
                *depthwise, pointwise = convolutions
                found.append(Stage(depthwise[0] if depthwise else None, pointwise, layer))
                convolutions = []
        return tuple(found)

    def can_take_one_pass(self, training: bool) -> bool:
        """Whether :meth:`add_to` computes what the layers do, in training or in evaluation."""
        is_plain = type(self) is ConvolutionStages and not is_altered(self) and self.training == training
        return is_plain and can_compute_stages(self.stages(), training)

    def add_to(
        self,
        total: Float[Tensor, "batch channels _h _w"] | None,
        node: Float[Tensor, "batch in_channels height width"],
        factors: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels _h _w"]:
        """A node's sum so far and this operation's output, every stage in one pass over memory.

        Args:
            total: The sum; None is zero.
            node: The node that is read, not rectified.
            factors: Factor of every image's output, in training; None is 1.
        """
        return compute_stages((node,), self.stages(), factors, total)


class Zero(nn.Module):
    """The operation ``none``: zero at the resolution of the edge; networks leave it out."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """Zero for every stride-th pixel."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduction(nn.Module):
    """Halves the resolution with two 1x1 convolutions of every second pixel, the second shifted by one.

    Each makes half of the output channels, so that together they read every second row and column of both
    parities (Liu et al., ICLR 2019, the authors' code). Height and width must be even.

    Args:
        input_channels: Channels of the rectified input.
        channels: Channels of the output, an even number.
        affine: Whether the batch norm has scale and shift.
    """

    rectified_input: ClassVar[bool] = True

    def __init__(self, input_channels: int, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.convolution_even = Convolution(input_channels, channels // 2, 1, bias=False)
        self.convolution_odd = Convolution(input_channels, channels // 2, 1, bias=False)
        self.norm = BatchNorm(channels, affine=affine)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch _ _ _"]:
        """Even pixels through one convolution, odd pixels through the other, then batch norm."""
        return self._of_pixels(every_second_pixel(x, 0), every_second_pixel(x, 1))

    def of_nodes(self, nodes: Sequence[Tensor]) -> Float[Tensor, "batch _ _ _"]:
        """The same of the channels of some nodes that are not rectified: only the pixels that are read are.

        Args:
            nodes: ``[batch, _, height, width]`` each.
        """
        even, odd = ([every_second_pixel(node, first) for node in nodes] for first in (0, 1))
        return self._of_pixels(torch.cat(even, dim=1).relu(), torch.cat(odd, dim=1).relu())

    def can_take_one_pass(self, training: bool) -> bool:
        """Whether :meth:`of_nodes` computes what the layers do of the nodes' ReLU."""
        return type(self) is FactorizedReduction and not is_altered(self)

    def _of_pixels(self, even: Tensor, odd: Tensor) -> Tensor:
        # Only every fourth pixel is read: a strided convolution's backward pass would touch them all.
        halves = (self.convolution_even(even), self.convolution_odd(odd))
        return self.norm(torch.cat(halves, dim=1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """EEEA-Net's inverted residual with expansion 1 (Termritthikun et al., 2021, and the authors' code).

    ReLU, pointwise convolution, batch norm, ReLU, depthwise convolution, batch norm, pointwise convolution,
    batch norm; at stride 1 the input is added.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, affine: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.Sequential(
            OrderedDict[str, nn.Module](
                relu_1=nn.ReLU(),
                expansion=_pointwise(channels),
                norm_1=BatchNorm(channels, affine=affine),
                relu_2=nn.ReLU(inplace=True),
                depthwise=_depthwise(channels, kernel_size, stride),
                norm_2=BatchNorm(channels, affine=affine),
                projection=_pointwise(channels),
                norm_3=BatchNorm(channels, affine=affine),
            )
        )

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """The layers, plus the input at stride 1."""
        out: Tensor = self.layers(x)
        return x + out if self.stride == 1 else out


def pooling_key(layer: nn.Module) -> tuple[object, ...] | None:
    """Equal for poolings that are equal; None for anything else, and for a layer with hooks."""
    if type(layer) not in (MaxPool, nn.AvgPool2d) or has_own_ways(layer):
        return None
    settings = layer.__constants__
    return (type(layer), *(str(getattr(layer, name)) for name in settings))  # type: ignore[union-attr]


def pointwise_projection(input_channels: int, channels: int) -> ConvolutionStages:
    """1x1 convolution and batch norm of a rectified input: how a cell brings an input to its own channels."""
    return ConvolutionStages(
        convolution=Convolution(input_channels, channels, 1, bias=False), norm=BatchNorm(channels)
    )


def _pointwise(channels: int) -> nn.Conv2d:
    return Convolution(channels, channels, 1, bias=False)


def _depthwise(channels: int, kernel_size: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel_size - 1) // 2
    return Convolution(
        channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False
    )  # fmt: skip


def _separable(kernel_size: int) -> OperationFactory:
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return ConvolutionStages(
            depthwise_1=_depthwise(channels, kernel_size, stride),
            pointwise_1=_pointwise(channels),
            norm_1=BatchNorm(channels, affine=affine),
            relu=nn.ReLU(inplace=True),
            depthwise_2=_depthwise(channels, kernel_size, 1),
            pointwise_2=_pointwise(channels),
            norm_2=BatchNorm(channels, affine=affine),
        )

    return build


def _dilated(kernel_size: int) -> OperationFactory:
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return ConvolutionStages(
            depthwise=_depthwise(channels, kernel_size, stride, dilation=2),
            pointwise=_pointwise(channels),
            norm=BatchNorm(channels, affine=affine),
        )

    return build


def _row_column(length: int) -> OperationFactory:
    half = length // 2

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return RectifiedSequential(
            row=Convolution(channels, channels, (1, length), (1, stride), (0, half), bias=False),
            column=Convolution(channels, channels, (length, 1), (stride, 1), (half, 0), bias=False),
            norm=BatchNorm(channels, affine=affine),
        )

    return build


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, affine)


BUILT_IN_FACTORIES: dict[str, OperationFactory] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "max_pool_3x3": lambda channels, stride, affine: MaxPool(3, stride, padding=1),
    # count_include_pad=False: the mean is over the pixels inside the image
    "avg_pool_3x3": lambda channels, stride, affine: nn.AvgPool2d(
        3, stride, padding=1, count_include_pad=False
    ),
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "sep_conv_7x7": _separable(7),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "conv_7x1_1x7": _row_column(7),
    "conv_3x1_1x3": _row_column(3),
    "inv_res_3x3": lambda channels, stride, affine: InvertedResidual(channels, 3, stride, affine),
    "inv_res_5x5": lambda channels, stride, affine: InvertedResidual(channels, 5, stride, affine),
}
"""The built-in operations by name."""

_registered: dict[str, OperationFactory] = {}


def register_operation(name: str, factory: OperationFactory) -> None:
    """Make an operation of your own valid in genotypes, specs, drawings and networks.

    The operation reads a node of a cell, ``[batch, channels, height, width]``, and returns as many channels
    at the resolution divided by the stride (rounded up). A module whose class sets ``rectified_input = True``
    is fed with the ReLU of the node, computed once for all edges that read it. In a network every parameter
    of it must take part in the output, as distributed training demands.

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
        The module. Where its attribute ``rectified_input`` is true it expects the ReLU of the node it reads.

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
