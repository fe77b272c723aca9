"""Parameters and multiply-adds of a network of stacked cells, by formula.

The formulas restate the layers that ``nas_lightning.networks`` builds (stem, preprocessing, operations,
auxiliary tower, classifier; appendix A.3 of Shu et al., ICLR 2020, after Liu et al., ICLR 2019), so that a
size is known at once and without torch. Tests hold them against the networks themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from nas_lightning.cells.genotype import Genotype
from nas_lightning.cells.operations import BUILT_IN_OPERATIONS, carries
from nas_lightning.cells.stack import (
    AUXILIARY_CHANNELS,
    IMAGENET_STEM_STRIDE,
    CellPlan,
    StackPlan,
    Stem,
    check_image_size,
    check_positive,
    check_stem_stride,
    stack_plan,
)


class UnknownOperationSize(ValueError):
    """An operation declared by the user has no formula: measure the instantiated network instead."""


@dataclass(frozen=True)
class Cost:
    """Trainable parameters of layers, and multiply-adds of convolution and linear layers for one image."""

    parameters: int
    multiply_adds: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


NO_COST = Cost(0, 0)


def count_parameters(
    genotype: Genotype,
    *,
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    auxiliary: bool = False,
    stem_stride: int = 1,
    live: bool = False,
    stem: Stem = "cifar",
) -> int:
    """Parameters of the network, counted by formula.

    Args:
        genotype: The cells.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        num_classes: Outputs of the classifier (and of the tower).
        auxiliary: Whether the network has an auxiliary tower.
        stem_stride: Stride of the stem; parameters do not depend on it.
        live: False counts every parameter, dead branches included, as the paper does; True only those whose
            value reaches the classifier (or the tower).
        stem: What comes before the first cell.

    Returns:
        The number of parameters.

    Raises:
        ValueError: If a size is not positive or does not suit the stem, or ``num_cells`` is under 3 with a
            tower.
        UnknownOperationSize: If a counted edge carries an operation without a formula.
    """
    check_positive(num_classes=num_classes)
    check_stem_stride(stem, stem_stride)
    plan = stack_plan(
        genotype, init_channels=init_channels, num_cells=num_cells, auxiliary=auxiliary, stem=stem
    )
    total = _stem(plan, 1, stem_stride) + _linear(plan.output_channels, num_classes)
    for cell in plan.cells:
        total += _cell(genotype, cell, 1, live=live)
        if cell.index == plan.auxiliary_index:
            total += _tower(cell.output_channels, num_classes, stem)
    return total.parameters


def multiply_adds(
    genotype: Genotype,
    *,
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    stem_stride: int = 1,
    image_size: int = 32,
    stem: Stem = "cifar",
) -> int:
    """Multiply-adds of one image's forward pass in evaluation mode, counted by formula.

    Those of convolution and linear layers, each counting (output positions) x (weights); batch norm,
    pooling, activations and sums count nothing. Dead branches are never computed and count nothing; nor does
    the tower, which evaluation does not use.

    Args:
        genotype: The cells.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        num_classes: Outputs of the classifier.
        stem_stride: Stride of the stem's convolution (2 for Tiny-ImageNet).
        image_size: Height and width of the image in pixels.
        stem: What comes before the first cell.

    Returns:
        The number of multiply-adds.

    Raises:
        ValueError: If a size is not positive or does not suit the stem, or the reduction cells cannot halve
            the image.
        UnknownOperationSize: If a live edge carries an operation without a formula.
    """
    check_positive(num_classes=num_classes)
    plan = stack_plan(genotype, init_channels=init_channels, num_cells=num_cells, stem=stem)
    check_image_size(plan, image_size, stem_stride)
    size = _strided(image_size, IMAGENET_STEM_STRIDE if stem == "imagenet" else stem_stride)
    total = _stem(plan, image_size, stem_stride) + _linear(plan.output_channels, num_classes)
    for cell in plan.cells:
        total += _cell(genotype, cell, size, live=True)
        if cell.reduction:
            size = _strided(size, 2)
    return total.multiply_adds


def _cell(genotype: Genotype, cell: CellPlan, size: int, *, live: bool) -> Cost:
    """Cost of a cell whose input 1 (and preprocessed input 0) is ``size`` x ``size``."""
    total = NO_COST
    for channels, is_live in zip(cell.input_channels, cell.live_inputs, strict=True):
        if is_live or not live:
            total += _preprocessing(channels, cell.channels, size)
    edges, _ = genotype.cell(cell.reduction)
    for edge, is_live in zip(edges, cell.live_edges, strict=True):
        if is_live or not live:
            stride = cell.stride(edge.source)
            inner_size = size if edge.source < 2 or not cell.reduction else _strided(size, 2)
            total += operation_cost(edge.op, cell.channels, stride, inner_size)
    return total


@cache
def operation_cost(op: str, channels: int, stride: int, size: int) -> Cost:
    """Cost of an operation of as many channels out as in, on an input of ``size`` x ``size`` pixels.

    Raises:
        UnknownOperationSize: If the operation is not a built-in one.
    """
    if op not in BUILT_IN_OPERATIONS:
        raise UnknownOperationSize(
            f"operation {op!r} has no size formula: it was declared by the user, so its size comes from the "
            "instantiated network"
        )
    out = _strided(size, stride)
    norm = _batch_norm(channels)
    pointwise = _convolution(channels, channels, 1, out)
    if not carries(op) or "_pool_" in op:
        return NO_COST
    if op == "skip_connect":
        return NO_COST if stride == 1 else _preprocessing(channels, channels, out)
    kernel = int(op.removesuffix("_single")[-1])
    if op.startswith(("conv_7x1", "conv_3x1")):
        # A 1 x k convolution strides along the width, then a k x 1 convolution along the height.
        taps = channels * channels * int(op[5])
        return Cost(2 * taps, taps * size * out + taps * out * out) + norm
    if op.startswith(("conv_", "nor_conv_")):
        return _convolution(channels, channels, kernel, out) + norm
    depthwise = _convolution(channels, channels, kernel, out, groups=channels)
    separable = depthwise + pointwise + norm
    if op.startswith("dil_conv") or op.endswith("_single"):
        return separable
    if op.startswith("sep_conv"):
        return separable + separable
    # Inverted residual with expansion 1: pointwise, depthwise and pointwise, a batch norm after each.
    return _convolution(channels, channels, 1, size) + norm + depthwise + norm + pointwise + norm


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


def _convolution(inputs: int, outputs: int, kernel: int, size: int, groups: int = 1) -> Cost:
    weights = inputs // groups * outputs * kernel * kernel
    return Cost(weights, weights * size * size)


def _batch_norm(channels: int) -> Cost:
    return Cost(2 * channels, 0)


def _linear(inputs: int, outputs: int) -> Cost:
    return Cost(inputs * outputs + outputs, inputs * outputs)


def _preprocessing(inputs: int, outputs: int, size: int) -> Cost:
    """A 1x1 convolution with batch norm on ``size`` x ``size`` outputs.

    A factorized reduction costs the same: two convolutions of stride 2, half the output channels each.
    """
    return _convolution(inputs, outputs, 1, size) + _batch_norm(outputs)


def _stem(plan: StackPlan, image_size: int, stride: int) -> Cost:
    """Cost of the stem; ``stride`` is that of the CIFAR stem."""
    channels = plan.stem_channels
    layers = [(channels, stride)] if plan.stem == "cifar" else [(channels // 2, 2)] + [(channels, 2)] * 2
    total, inputs, size = NO_COST, 3, image_size
    for outputs, layer_stride in layers:
        size = _strided(size, layer_stride)
        total += _convolution(inputs, outputs, 3, size) + _batch_norm(outputs)
        inputs = outputs
    return total


def _tower(inputs: int, num_classes: int, stem: Stem) -> Cost:
    first, second = AUXILIARY_CHANNELS
    convolutions = _convolution(inputs, first, 1, 2) + _batch_norm(first) + _convolution(first, second, 2, 1)
    norm = _batch_norm(second) if stem == "cifar" else NO_COST
    return convolutions + norm + _linear(second, num_classes)
